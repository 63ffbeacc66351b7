/**
 * Thousands of equal circles, written pixel by pixel: only the pixels of the rings are touched, which
 * without a graphics card is some thirty times as fast as paths on a canvas.
 */

/** Above this radius on the screen few circles are seen, and paths are as fast and smoother. */
export const LARGEST = 120;

/** @typedef {{dx: Int16Array, dy: Int16Array, alpha: Uint8Array, reach: number}} Ring */

/** @type {Map<string, Ring>} */
const rings = new Map();

/**
 * Pixels of a circle about the middle of a pixel, and how much of each it covers.
 * @param {number} radius px @param {number} width of the line, px @param {boolean} hasCentre
 * @returns {Ring}
 */
export function ringOf(radius, width, hasCentre) {
  const key = `${radius.toFixed(1)}/${width}/${hasCentre}`;
  const known = rings.get(key);
  if (known) return known;
  const reach = Math.ceil(radius + width);
  const dx = [];
  const dy = [];
  const alpha = [];
  for (let y = -reach; y <= reach; y += 1) {
    for (let x = -reach; x <= reach; x += 1) {
      const isCentre = hasCentre && x >= -1 && x <= 0 && y >= -1 && y <= 0;
      const cover = isCentre ? 1 : Math.min(1, width / 2 + 0.5 - Math.abs(Math.hypot(x, y) - radius));
      if (cover <= 0.08) continue;
      dx.push(x);
      dy.push(y);
      alpha.push(Math.round(255 * cover));
    }
  }
  const ring = { dx: Int16Array.from(dx), dy: Int16Array.from(dy), alpha: Uint8Array.from(alpha), reach };
  if (rings.size > 32) rings.clear();
  rings.set(key, ring);
  return ring;
}

/** @type {Map<string, number>} */
const words = new Map();

/** @param {string} colour of CSS @returns {number} its pixel without alpha, in the order of ImageData */
function wordOf(colour) {
  let word = words.get(colour);
  if (word === undefined) {
    const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
    word = (blue << 16) | (green << 8) | red;
    words.set(colour, word);
  }
  return word;
}

export class RingRaster {
  constructor() {
    this.image = new ImageData(1, 1);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  /** Begin an empty picture of a size in pixels of the device. */
  clear(width, height) {
    if (this.image.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.words = new Uint32Array(this.image.data.buffer);
    } else this.words.fill(0);
  }

  /**
   * Draw a circle; where circles cross, the pixel that is covered more is seen.
   * @param {Ring} ring @param {number} x @param {number} y in pixels of the device @param {number} word colour
   */
  #ring(ring, x, y, word) {
    const { width, height } = this.image;
    const { dx, dy, alpha, reach } = ring;
    const pixels = this.words;
    const middle = y * width + x;
    const isInside = x >= reach && y >= reach && x + reach < width && y + reach < height;
    for (let i = 0; i < dx.length; i += 1) {
      if (!isInside && (x + dx[i] < 0 || y + dy[i] < 0 || x + dx[i] >= width || y + dy[i] >= height)) continue;
      const at = middle + dy[i] * width + dx[i];
      const cover = alpha[i] << 24;
      if (pixels[at] >>> 24 <= cover >>> 24) pixels[at] = cover | word;
    }
  }

  /**
   * Draw marks of the image's coordinates.
   * @param {import("./view_box.js").ViewBox} view
   * @param {import("./pick_marks.js").Marks} marks
   * @param {number} ratio pixels of the device in one of CSS
   */
  draw(view, marks, ratio) {
    const radius = Math.max(3, marks.radius * view.scale) * ratio;
    const ring = ringOf(radius, (marks.lineWidth ?? 1.5) * ratio, radius > 12 * ratio);
    const colours = marks.colours.map(wordOf);
    const { width, height } = this.image;
    const room = ring.reach;
    // The best come first in a set, and lie above the others.
    for (let i = marks.x.length - 1; i >= 0; i -= 1) {
      const x = Math.round((marks.x[i] * view.scale + view.x) * ratio);
      const y = Math.round((marks.y[i] * view.scale + view.y) * ratio);
      if (x < -room || y < -room || x >= width + room || y >= height + room || !marks.isShown(i)) continue;
      this.#ring(ring, x, y, colours[marks.group(i) % colours.length]);
    }
  }
}
