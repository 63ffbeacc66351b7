/** Circles of picks on a canvas: one path for each colour, so thousands are drawn within a frame. */
import { toScreen } from "./view_box.js";

/**
 * @typedef {{
 *   x: Float32Array, y: Float32Array, radius: number,
 *   isShown: (i: number) => boolean, group: (i: number) => number,
 *   colours: string[], lineWidth?: number, dash?: number[], shape?: "circle" | "square" | "cross",
 * }} Marks positions and radius in pixels of the image
 */

/**
 * Draw the marks that lie on the screen.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./view_box.js").ViewBox} view
 * @param {Marks} marks
 * @returns {number} how many were drawn
 */
export function drawMarks(context, view, marks) {
  const { width, height } = context.canvas;
  const ratio = devicePixelRatio || 1;
  const radius = Math.max(3, marks.radius * view.scale);
  const add = SHAPES[marks.shape ?? "circle"];
  /** @type {Map<number, Path2D>} */
  const paths = new Map();
  let drawn = 0;
  for (let i = 0; i < marks.x.length; i += 1) {
    if (!marks.isShown(i)) continue;
    const [x, y] = toScreen(view, marks.x[i], marks.y[i]);
    if (x < -radius || y < -radius || x > width / ratio + radius || y > height / ratio + radius) continue;
    const group = marks.group(i);
    let path = paths.get(group);
    if (!path) paths.set(group, (path = new Path2D()));
    add(path, x, y, radius);
    drawn += 1;
  }
  context.lineWidth = marks.lineWidth ?? 1.5;
  context.setLineDash(marks.dash ?? []);
  for (const [group, path] of paths) {
    context.strokeStyle = marks.colours[group % marks.colours.length];
    context.stroke(path);
  }
  context.setLineDash([]);
  return drawn;
}

const SHAPES = {
  circle(path, x, y, radius) {
    path.moveTo(x + radius, y);
    path.arc(x, y, radius, 0, 2 * Math.PI);
  },
  square(path, x, y, radius) {
    path.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  },
  cross(path, x, y, radius) {
    const arm = radius * 0.7;
    path.moveTo(x - arm, y - arm);
    path.lineTo(x + arm, y + arm);
    path.moveTo(x + arm, y - arm);
    path.lineTo(x - arm, y + arm);
  },
};

/**
 * The mark nearest to a point.
 * @param {{x: ArrayLike<number>, y: ArrayLike<number>}} marks
 * @param {number} x @param {number} y
 * @param {number} reach in pixels of the image
 * @param {(i: number) => boolean} isShown
 * @returns {number} index, or -1
 */
export function nearestMark(marks, x, y, reach, isShown) {
  let best = -1;
  let least = reach * reach;
  for (let i = 0; i < marks.x.length; i += 1) {
    const distance = (marks.x[i] - x) ** 2 + (marks.y[i] - y) ** 2;
    if (distance <= least && isShown(i)) {
      least = distance;
      best = i;
    }
  }
  return best;
}

/** @param {[number, number][]} outline @returns {boolean} whether a point lies inside (even-odd rule) */
export function isInside(outline, x, y) {
  let inside = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i, i += 1) {
    const [xi, yi] = outline[i];
    const [xj, yj] = outline[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
