/** One quantity of all fields over their number or time, with two limits that are dragged. */
import uPlot from "../vendor/uplot.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { themeColour } from "../lib/colours.js";
import { measure } from "../lib/format.js";

const HEIGHT = 150;
/** Series that uPlot scales the axes by; their points are drawn here. */
const HIDDEN = { paths: () => null, points: { show: false } };

/** Accepted fields as points, the others as crosses: one path each. */
function drawPoints(u, side) {
  const ratio = devicePixelRatio || 1;
  const half = (side * ratio) / 2;
  const { ctx } = u;
  const isFew = u.data[0].length <= 2000;
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left - half, u.bbox.top - half, u.bbox.width + 2 * half, u.bbox.height + 2 * half);
  ctx.clip();
  const each = (values, add) => {
    ctx.beginPath();
    values.forEach((value, i) => value != null && add(u.valToPos(u.data[0][i], "x", true), u.valToPos(value, "y", true)));
  };
  ctx.fillStyle = themeColour("--accent");
  ctx.globalAlpha = isFew ? 1 : 0.45;
  each(u.data[1], (x, y) => { if (isFew) { ctx.moveTo(x + half, y); ctx.arc(x, y, half, 0, 2 * Math.PI); } else ctx.rect(x - half, y - half, 2 * half, 2 * half); });
  ctx.fill();
  ctx.strokeStyle = themeColour("--bad");
  ctx.lineWidth = 1.5 * ratio;
  each(u.data[2], (x, y) => { ctx.moveTo(x - half, y - half); ctx.lineTo(x + half, y + half); ctx.moveTo(x + half, y - half); ctx.lineTo(x - half, y + half); });
  ctx.stroke();
  ctx.restore();
}

/** Shade what the limits leave out. */
function drawLimits(u, limits) {
  const { left, top, width, height } = u.bbox;
  u.ctx.save();
  u.ctx.fillStyle = themeColour("--ground");
  u.ctx.globalAlpha = 0.8;
  const [low, high] = limits;
  if (high != null) {
    const y = Math.min(Math.max(u.valToPos(high, "y", true), top), top + height);
    u.ctx.fillRect(left, top, width, y - top);
  }
  if (low != null) {
    const y = Math.min(Math.max(u.valToPos(low, "y", true), top), top + height);
    u.ctx.fillRect(left, y, width, top + height - y);
  }
  u.ctx.restore();
}

function makePlot(element, { x, column, isTime, limits, side }) {
  const ink = themeColour("--ink-2");
  const line = themeColour("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  return new uPlot({
    width: Math.max(element.clientWidth, 120),
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 6, 0, 0],
    scales: { x: { time: isTime }, y: { range: (_, low, high) => spread(low, high, limits.current) } },
    axes: [{ ...axis, size: 26, space: 60 }, { ...axis, size: 52, space: 28, values: (_, ticks) => ticks.map((tick) => measure(tick)) }],
    series: [{}, HIDDEN, HIDDEN],
    hooks: { drawClear: [(u) => drawLimits(u, limits.current)], draw: [(u) => drawPoints(u, side)] },
  }, [x, column, column], element);
}

/** The range of the values with some room, and limits in it. */
function spread(low, high, limits) {
  if (low == null) return [0, 1];
  const known = limits.filter((limit) => limit != null);
  const least = Math.min(low, ...known);
  const most = Math.max(high, ...known);
  const room = (most - least || Math.abs(most) || 1) * 0.08;
  return [least - room, most + room];
}

/** Values of accepted and of other fields, as two series. */
function bySide(values, states, limits) {
  const isIn = (value, i) => states[i] !== "rejected" && (limits[0] == null || value >= limits[0]) && (limits[1] == null || value <= limits[1]);
  return [values.map((value, i) => (value != null && isIn(value, i) ? value : null)), values.map((value, i) => (value != null && !isIn(value, i) ? value : null))];
}

/** A handle of a limit: a slider for pointer and keys. */
function Handle({ side, value, bounds, title, at, onDrag, onDrop, isLocked }) {
  const step = (bounds[1] - bounds[0]) / 100 || 1;
  const shown = value ?? bounds[side === "low" ? 0 : 1];
  const keys = (event) => {
    const move = { ArrowUp: step, ArrowDown: -step, PageUp: 10 * step, PageDown: -10 * step }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") onDrop(null);
    else if (move) onDrop(Math.min(bounds[1] + step, Math.max(bounds[0] - step, shown + move)));
    else return;
    event.preventDefault();
  };
  const drag = (event) => {
    if (isLocked || event.button > 0) return;
    event.preventDefault();
    event.currentTarget.focus();
    event.currentTarget.setPointerCapture(event.pointerId);
    const element = event.currentTarget;
    const move = (moved) => onDrag(moved.clientY);
    element.addEventListener("pointermove", move);
    element.addEventListener("pointerup", (up) => { element.removeEventListener("pointermove", move); onDrop(undefined, up.clientY); }, { once: true });
  };
  return html`<div class=${`limit-handle ${side} ${value == null ? "unset" : ""}`} role="slider" tabindex=${isLocked ? -1 : 0} data-own-keys
    aria-orientation="vertical" aria-label=${`${side === "low" ? "Least" : "Greatest"} ${title} accepted`} aria-disabled=${isLocked ? "true" : null}
    aria-valuemin=${bounds[0]} aria-valuemax=${bounds[1]} aria-valuenow=${shown} aria-valuetext=${value == null ? "no limit" : measure(value)}
    style=${{ top: `${at}px` }} onKeyDown=${keys} onPointerDown=${drag}><span>${value == null ? "" : measure(value)}</span></div>`;
}

/**
 * @param {{title: string, unit: string, about: string, name: string, x: number[], isTime: boolean, values: (number | null)[],
 *   states: string[], limits: [number | null, number | null], isLocked: boolean,
 *   onPreview: (limits: [number | null, number | null]) => void, onChange: (limits: [number | null, number | null]) => void}} props
 */
export function LimitPlot(props) {
  const { title, unit, about, x, isTime, values, states, limits, isLocked, onPreview, onChange } = props;
  const element = useRef(null);
  const plot = useRef(null);
  const shown = useRef(limits);
  const [draft, setDraft] = useState(limits);
  const [, redraw] = useState(0);
  shown.current = draft;
  useEffect(() => setDraft(limits), [limits[0], limits[1]]);

  useLayoutEffect(() => {
    plot.current = makePlot(element.current, { x, column: values, isTime, limits: shown, side: x.length > 2000 ? 2 : x.length > 200 ? 3.5 : 5 });
    const resize = () => { if (!element.current) return; plot.current.setSize({ width: element.current.clientWidth, height: HEIGHT }); redraw((n) => n + 1); };
    const observer = new ResizeObserver(resize);
    observer.observe(element.current);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    const recolour = () => redraw((n) => n + 1);
    theme.addEventListener("change", recolour);
    return () => { observer.disconnect(); theme.removeEventListener("change", recolour); plot.current.destroy(); };
  }, [isTime]);
  useLayoutEffect(() => {
    plot.current.setData([x, ...bySide(values, states, draft)]);
    redraw((n) => n + 1);
  }, [x, values, states, draft, isTime]);

  const valueAt = (clientY) => {
    const box = plot.current.over.getBoundingClientRect();
    return plot.current.posToVal(Math.min(Math.max(clientY - box.top, 0), box.height), "y");
  };
  const atEdge = (clientY, side) => {
    const box = plot.current.over.getBoundingClientRect();
    return side === 0 ? clientY >= box.bottom - 2 : clientY <= box.top + 2;
  };
  const changed = (side, value) => (side === 0 ? [value, draft[1]] : [draft[0], value]);
  const drag = (side) => (clientY) => { const next = changed(side, valueAt(clientY)); setDraft(next); onPreview(next); };
  const drop = (side) => (value, clientY) => {
    const next = changed(side, value === undefined ? (atEdge(clientY, side) ? null : valueAt(clientY)) : value);
    setDraft(next);
    onChange(next);
  };
  const known = values.filter((value) => value != null);
  const bounds = known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : [0, 1];
  const top = plot.current ? plot.current.over.offsetTop : 8;
  const height = plot.current ? plot.current.over.clientHeight : HEIGHT - 34;
  const at = (value, edge) => top + (value == null || !plot.current ? edge : Math.min(Math.max(plot.current.valToPos(value, "y"), 0), height));
  return html`<figure class="panel limit-plot" aria-label=${title}>
    <header><h2 title=${about}>${title}</h2><span class="muted small">${unit}</span>
      <span class="aside small">${(draft[0] != null || draft[1] != null) && html`<button class="plain" title="Take the limits of this quantity away" disabled=${isLocked} onClick=${() => onChange([null, null])}>clear</button>`}</span></header>
    <div class="limit-area">
      <div ref=${element} aria-hidden="true"></div>
      <${Handle} side="high" value=${draft[1]} bounds=${bounds} title=${title} at=${at(draft[1], 0)} onDrag=${drag(1)} onDrop=${drop(1)} isLocked=${isLocked} />
      <${Handle} side="low" value=${draft[0]} bounds=${bounds} title=${title} at=${at(draft[0], height)} onDrag=${drag(0)} onDrop=${drop(0)} isLocked=${isLocked} />
    </div>
  </figure>`;
}
