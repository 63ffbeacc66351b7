/** Tools for picks. A tool gathers points while the pointer is down and hands over one edit when it is up. */
import { isInside, nearestMark } from "./pick_marks.js";
import { toScreen } from "./view_box.js";

/** Name, key, what it does. */
export const TOOLS = [
  ["move", "v", "Move", "move the image"],
  ["pick", "p", "Pick", "click: add a pick; Shift or right button: remove"],
  ["erase", "d", "Brush", "remove picks under the brush"],
  ["lasso", "l", "Lasso", "remove picks inside an outline; Shift: those outside"],
];

/** Radius of the brush on the screen. */
export const BRUSH = 22;

/**
 * @typedef {{
 *   x: ArrayLike<number>, y: ArrayLike<number>, radius: number,
 *   isShown: (i: number) => boolean, scale: () => number,
 *   onEdit: (edit: {add: [number, number][], remove: [number, number][]}) => void,
 *   onDraw: (shape: Shape | null) => void, width: number, height: number,
 * }} Context
 * @typedef {{kind: "outline", points: [number, number][]} | {kind: "brush", x: number, y: number, taken: Set<number>}} Shape
 */

/** @param {string} name @param {Context} context @returns {import("./pan_zoom.js").Tool} */
export function makeTool(name, context) {
  if (name === "pick") return pickTool(context);
  if (name === "erase") return brushTool(context);
  if (name === "lasso") return lassoTool(context);
  return {};
}

const isRemoving = (event) => event.shiftKey || event.button === 2;
const isWithin = ({ x, y }, { width, height }) => x >= -0.5 && y >= -0.5 && x < width - 0.5 && y < height - 0.5;

function pickTool(context) {
  return {
    onDown(point) {
      const { x, y, event } = point;
      const reach = Math.max(context.radius, 8 / context.scale());
      const nearest = nearestMark(context, x, y, reach, context.isShown);
      if (isRemoving(event)) {
        if (nearest >= 0) context.onEdit({ add: [], remove: [[context.x[nearest], context.y[nearest]]] });
        return true;
      }
      // As in RELION, a click inside of a circle adds no second pick.
      if (nearest < 0 && isWithin(point, context)) context.onEdit({ add: [[x, y]], remove: [] });
      return true;
    },
  };
}

function brushTool(context) {
  const taken = new Set();
  const sweep = ({ x, y }) => {
    const reach = (BRUSH / context.scale()) ** 2;
    for (let i = 0; i < context.x.length; i += 1) {
      if ((context.x[i] - x) ** 2 + (context.y[i] - y) ** 2 <= reach && context.isShown(i)) taken.add(i);
    }
    context.onDraw({ kind: "brush", x, y, taken });
  };
  return {
    onDown(point) {
      taken.clear();
      sweep(point);
      return true;
    },
    onMove: sweep,
    onUp() {
      const remove = [...taken].map((i) => /** @type {[number, number]} */ ([context.x[i], context.y[i]]));
      taken.clear();
      context.onDraw(null);
      if (remove.length) context.onEdit({ add: [], remove });
    },
    onHover(point) {
      context.onDraw(point && { kind: "brush", x: point.x, y: point.y, taken });
    },
  };
}

function lassoTool(context) {
  /** @type {[number, number][]} */
  let points = [];
  return {
    onDown({ x, y }) {
      points = [[x, y]];
      return true;
    },
    onMove({ x, y }) {
      points = [...points, [x, y]];
      context.onDraw({ kind: "outline", points });
    },
    onUp({ event }) {
      context.onDraw(null);
      if (points.length < 3) return;
      const remove = [];
      for (let i = 0; i < context.x.length; i += 1) {
        if (context.isShown(i) && isInside(points, context.x[i], context.y[i]) !== event.shiftKey) remove.push([context.x[i], context.y[i]]);
      }
      if (remove.length) context.onEdit({ add: [], remove });
    },
  };
}

/**
 * The shape of the tool at work.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./view_box.js").ViewBox} view
 * @param {Shape} shape
 */
export function drawShape(context, view, shape) {
  const path = new Path2D();
  if (shape.kind === "brush") path.arc(...toScreen(view, shape.x, shape.y), BRUSH, 0, 2 * Math.PI);
  else {
    shape.points.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](...toScreen(view, x, y)));
    path.closePath();
  }
  context.fillStyle = "rgb(255 255 255 / 12%)";
  context.fill(path);
  for (const [colour, dash] of [["#000", []], ["#fff", [5, 4]]]) {
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = 1.25;
    context.stroke(path);
  }
  context.setLineDash([]);
}
