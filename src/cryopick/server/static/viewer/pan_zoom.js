/** A canvas that pans and zooms: wheel, drag, pinch. Tools get the pointer first. */
import { centredOn, fitted, moved, toImage, zoomed } from "./view_box.js";

/**
 * @typedef {import("./view_box.js").ViewBox} ViewBox
 * @typedef {{x: number, y: number, screenX: number, screenY: number, event: PointerEvent}} Point
 * @typedef {{
 *   onDown?: (point: Point) => boolean,
 *   onMove?: (point: Point) => void,
 *   onUp?: (point: Point) => void,
 *   onHover?: (point: Point | null) => void,
 * }} Tool `onDown` says whether the tool takes the gesture; if not, it pans.
 */

export class PanZoom {
  /**
   * @param {HTMLElement} element that gets the gestures
   * @param {{onChange: (view: ViewBox) => void}} options
   */
  constructor(element, { onChange }) {
    this.element = element;
    this.onChange = onChange;
    /** @type {ViewBox} */
    this.view = { scale: 1, x: 0, y: 0 };
    this.size = { width: 1, height: 1 };
    this.isFitted = true;
    /** @type {Tool} */
    this.tool = {};
    this.pointers = new Map();
    this.isToolAtWork = false;
    this.abort = new AbortController();
    const { signal } = this.abort;
    element.addEventListener("wheel", (event) => this.#wheel(event), { passive: false, signal });
    element.addEventListener("pointerdown", (event) => this.#down(event), { signal });
    element.addEventListener("pointermove", (event) => this.#move(event), { signal });
    element.addEventListener("pointerup", (event) => this.#up(event), { signal });
    element.addEventListener("pointercancel", (event) => this.#up(event), { signal });
    element.addEventListener("pointerleave", () => this.tool.onHover?.(null), { signal });
    element.addEventListener("dblclick", (event) => event.altKey && this.fit(), { signal });
    element.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
  }

  close() {
    this.abort.abort();
  }

  /** Pixels of the image; the view stays unless it showed the whole. */
  setSize(width, height) {
    const isNew = width !== this.size.width || height !== this.size.height;
    this.size = { width, height };
    if (isNew || this.isFitted) this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.element;
    this.isFitted = true;
    this.#show(fitted(this.size.width, this.size.height, clientWidth, clientHeight));
  }

  resized() {
    if (this.isFitted) this.fit();
    else this.onChange(this.view);
  }

  /** Zoom about the middle of the screen, or about a point of it. */
  zoom(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    this.isFitted = false;
    this.#show(zoomed(this.view, factor, x, y));
  }

  pan(dx, dy) {
    this.isFitted = false;
    this.#show(moved(this.view, dx, dy));
  }

  centreOn(x, y) {
    this.isFitted = false;
    this.#show(centredOn(this.view, x, y, this.element.clientWidth, this.element.clientHeight));
  }

  #show(view) {
    this.view = view;
    this.onChange(view);
  }

  /** @returns {Point} */
  #point(event) {
    const box = this.element.getBoundingClientRect();
    const screenX = event.clientX - box.left;
    const screenY = event.clientY - box.top;
    const [x, y] = toImage(this.view, screenX, screenY);
    return { x, y, screenX, screenY, event };
  }

  #wheel(event) {
    event.preventDefault();
    const point = this.#point(event);
    this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), point.screenX, point.screenY);
  }

  #down(event) {
    const point = this.#point(event);
    this.element.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 1 && event.button !== 1) this.isToolAtWork = this.tool.onDown?.(point) ?? false;
  }

  #move(event) {
    const point = this.#point(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.tool.onHover?.(point);
      return;
    }
    if (this.isToolAtWork) this.tool.onMove?.(point);
    else if (this.pointers.size === 2) this.#pinch(event.pointerId, before, point);
    else this.pan(point.screenX - before.screenX, point.screenY - before.screenY);
    this.pointers.set(event.pointerId, point);
  }

  #pinch(id, before, now) {
    const other = [...this.pointers].find(([key]) => key !== id)[1];
    const distance = (point) => Math.hypot(point.screenX - other.screenX, point.screenY - other.screenY);
    this.zoom(distance(now) / Math.max(distance(before), 1), other.screenX, other.screenY);
  }

  #up(event) {
    const point = this.#point(event);
    if (this.isToolAtWork) this.tool.onUp?.(point);
    this.isToolAtWork = false;
    this.pointers.delete(event.pointerId);
  }
}
