/** An image with marks above it, drawn at most once for each frame of the screen. */
import { html, useEffect, useLayoutEffect, useRef } from "../lib/html.js";
import { applyContrast } from "./grey_image.js";
import { PanZoom } from "./pan_zoom.js";
import { Tiles } from "./tiles.js";

/** Above this scale pixels are shown as squares. */
const SQUARE_PIXELS = 6;

export class Painter {
  /** @param {HTMLElement} element @param {HTMLCanvasElement} ground @param {HTMLCanvasElement} above */
  constructor(element, ground, above) {
    this.element = element;
    this.ground = ground;
    this.above = above;
    this.image = null;
    this.table = null;
    this.appliedTo = null;
    this.tiles = null;
    this.drawAbove = null;
    this.isGroundOld = true;
    this.frame = 0;
    this.panZoom = new PanZoom(element, { onChange: () => this.redraw(true) });
    this.observer = new ResizeObserver(() => this.#resize());
    this.observer.observe(element);
    this.#resize();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.observer.disconnect();
    this.panZoom.close();
  }

  /** @param {import("./grey_image.js").GreyImage | null} image @param {number} width of the field it stands for */
  setImage(image, width, height, tileSource) {
    if (this.image === image && this.tileAddress === tileSource?.address) return;
    this.image = image;
    this.appliedTo = null;
    this.size = { width, height };
    if (this.tileAddress !== tileSource?.address) {
      this.tileAddress = tileSource?.address;
      this.tiles = tileSource ? new Tiles({ ...tileSource, width, height }, () => this.redraw(true)) : null;
    }
    this.panZoom.setSize(width, height);
    this.redraw(true);
  }

  /** @param {Uint32Array} table of shown greys */
  setTable(table) {
    if (this.table === table) return;
    this.table = table;
    this.redraw(true);
  }

  /** Draw in the next frame; the image itself only if it has changed. */
  redraw(isGroundOld = false) {
    this.isGroundOld ||= isGroundOld;
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #resize() {
    const ratio = devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.element;
    for (const canvas of [this.ground, this.above]) {
      canvas.width = Math.max(1, Math.round(clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    }
    this.panZoom.resized();
  }

  #clear(canvas) {
    const ratio = devicePixelRatio || 1;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    return context;
  }

  #draw() {
    const { view } = this.panZoom;
    if (this.isGroundOld) {
      this.isGroundOld = false;
      this.#drawGround(this.#clear(this.ground), view);
    }
    this.drawAbove?.(this.#clear(this.above), view);
  }

  #drawGround(context, view) {
    const { image, table } = this;
    if (!image || !table) return;
    if (this.appliedTo !== table) {
      applyContrast(image, table);
      this.appliedTo = table;
    }
    const { width, height } = this.size;
    const ratio = devicePixelRatio || 1;
    context.imageSmoothingEnabled = view.scale * ratio < SQUARE_PIXELS;
    context.imageSmoothingQuality = "high";
    context.drawImage(image.canvas, view.x - view.scale / 2, view.y - view.scale / 2, width * view.scale, height * view.scale);
    const isBlurred = (width * view.scale * ratio) / image.width > 1.35;
    if (this.tiles && isBlurred) this.tiles.draw(context, view, table, this.element.clientWidth, this.element.clientHeight);
  }
}

/**
 * @param {{label: string, image: import("./grey_image.js").GreyImage | null, width: number, height: number,
 *   table: Uint32Array, tool: import("./pan_zoom.js").Tool, tileSource?: {address: string, size: number, levels: number} | null,
 *   drawAbove: (context: CanvasRenderingContext2D, view: import("./view_box.js").ViewBox) => void,
 *   painterRef: {current: Painter | null}, cursor?: string, children?: any}} props
 */
export function CanvasView({ label, image, width, height, table, tool, tileSource, drawAbove, painterRef, cursor, children }) {
  const element = useRef(null);
  const ground = useRef(null);
  const above = useRef(null);
  useLayoutEffect(() => {
    painterRef.current = new Painter(element.current, ground.current, above.current);
    return () => { painterRef.current.close(); painterRef.current = null; };
  }, []);
  useEffect(() => { painterRef.current.setImage(image, width, height, tileSource); }, [image, width, height, tileSource?.address]);
  useEffect(() => { painterRef.current.setTable(table); }, [table]);
  useEffect(() => {
    painterRef.current.drawAbove = drawAbove;
    painterRef.current.redraw();
  }, [drawAbove]);
  // With the cursor that shows it: a click may come at once.
  useLayoutEffect(() => { painterRef.current.panZoom.tool = tool; }, [tool]);
  return html`<div class="stage">
    <div ref=${element} class="canvas-view" tabindex="0" role="img" aria-label=${label} style=${{ cursor: cursor ?? "grab" }}>
      <canvas ref=${ground}></canvas><canvas ref=${above}></canvas>
    </div>
    ${children}
  </div>`;
}
