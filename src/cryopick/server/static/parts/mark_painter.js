/** Draws picks of the chosen set and of those it is compared with. */
import { CATEGORIES, STEPS, stepOf } from "../lib/colours.js";
import { drawMarks } from "../viewer/pick_marks.js";
import { LARGEST, RingRaster } from "../viewer/ring_raster.js";
import { toScreen } from "../viewer/view_box.js";

const ADDED = "#ffffff";
const UNKNOWN = STEPS;
const SHAPES = /** @type {const} */ (["square", "cross", "square", "cross"]);

/**
 * Which of the colours each pick has.
 * @param {ArrayLike<number | null> | null} values
 * @param {number} n
 * @param {{low: number, high: number, isCategory: boolean}} range
 * @returns {Uint8Array} (n,) step, or STEPS where the value is not known
 */
export function colourGroups(values, n, { low, high, isCategory }) {
  const groups = new Uint8Array(n).fill(values ? UNKNOWN : STEPS - 1);
  if (!values) return groups;
  for (let i = 0; i < n; i += 1) {
    const value = values[i];
    if (value == null || Number.isNaN(value)) continue;
    groups[i] = isCategory ? Math.abs(Math.round(value)) % CATEGORIES.length : stepOf(value, low, high);
  }
  return groups;
}

/**
 * @param {{picks: import("../lib/api.js").Picks | null, radius: number, isShown: (i: number) => boolean,
 *   colours: {groups: Uint8Array, colours: string[]}, compared: {x: ArrayLike<number>, y: ArrayLike<number>, radius: number, colour: string}[], isHidden: boolean}} what
 * @returns {(context: CanvasRenderingContext2D, view: import("../viewer/view_box.js").ViewBox, shape: any) => void}
 */
export function markPainter({ picks, radius, isShown, colours, compared, isHidden }) {
  const raster = new RingRaster();
  return (context, view, shape) => {
    if (isHidden) return;
    const ratio = devicePixelRatio || 1;
    const isRaster = radius * view.scale * ratio <= LARGEST;
    const taken = shape?.taken;
    const isAdded = (i) => picks.origin?.[i] === 1;
    const found = picks && {
      x: picks.columns.x, y: picks.columns.y, radius, colours: colours.colours, group: (i) => colours.groups[i],
      isShown: (i) => !isAdded(i) && !taken?.has(i) && isShown(i),
    };
    if (found && isRaster) {
      raster.clear(context.canvas.width, context.canvas.height);
      raster.draw(view, found, ratio);
      context.putImageData(raster.image, 0, 0);
    }
    compared.forEach((layer, i) => drawMarks(context, view, {
      x: layer.x, y: layer.y, radius: layer.radius * 0.9, isShown: () => true, group: layer.group ?? (() => 0),
      colours: layer.colours ?? [layer.colour], shape: layer.colours ? "circle" : SHAPES[i % SHAPES.length], lineWidth: 1.5,
    }));
    if (!picks) return;
    const { x, y } = picks.columns;
    if (!isRaster) {
      drawMarks(context, view, found);
      drawCentres(context, view, picks, isShown);
    }
    drawMarks(context, view, { x, y, radius, colours: [ADDED], group: () => 0, lineWidth: 2, dash: [6, 3], isShown: (i) => isAdded(i) && !taken?.has(i) });
  };
}

/** A point in the middle of large circles tells how well a pick is centred. */
function drawCentres(context, view, picks, isShown) {
  const { x, y } = picks.columns;
  context.fillStyle = "rgb(255 255 255 / 85%)";
  for (let i = 0; i < x.length; i += 1) {
    if (!isShown(i)) continue;
    const [left, top] = toScreen(view, x[i], y[i]);
    context.fillRect(left - 1, top - 1, 2, 2);
  }
}
