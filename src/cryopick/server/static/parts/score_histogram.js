/** Histogram of the scores of all stored peaks, with the threshold as a line that is dragged. */
import { html, useEffect, useLayoutEffect, useMemo, useRef } from "../lib/html.js";
import { themeColour } from "../lib/colours.js";

const BINS = 96;
const HEIGHT = 84;

/** @param {ArrayLike<number>} scores @param {number} low @param {number} high @returns {Uint32Array} (BINS,) */
export function countScores(scores, low, high) {
  const counts = new Uint32Array(BINS);
  const scale = BINS / (high - low || 1);
  for (let i = 0; i < scores.length; i += 1) {
    const bin = Math.floor((scores[i] - low) * scale);
    if (bin >= 0 && bin <= BINS) counts[Math.min(bin, BINS - 1)] += 1;
  }
  return counts;
}

function draw(canvas, counts, all, share) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const step = width / BINS;
  const top = Math.max(...counts, 1);
  // Square roots: few good picks stay visible beside many weak peaks.
  const tall = (n, most) => Math.sqrt(n / most) * (HEIGHT - 6);
  for (const [from, to, colour] of [[0, share, "--line-strong"], [share, 1, "--accent"]]) {
    context.save();
    context.beginPath();
    context.rect(from * width, 0, (to - from) * width, HEIGHT);
    context.clip();
    context.fillStyle = themeColour(colour);
    counts.forEach((n, i) => n && context.fillRect(i * step, HEIGHT - tall(n, top), Math.max(step - 0.5, 0.5), tall(n, top)));
    context.restore();
  }
  if (all) {
    const most = Math.max(...all, 1);
    context.beginPath();
    all.forEach((n, i) => { context.lineTo(i * (width / all.length), HEIGHT - tall(n, most)); context.lineTo((i + 1) * (width / all.length), HEIGHT - tall(n, most)); });
    context.strokeStyle = themeColour("--ink-2");
    context.lineWidth = 1;
    context.stroke();
  }
  context.fillStyle = themeColour("--ink");
  context.fillRect(Math.round(share * width) - 1, 0, 2, HEIGHT);
}

/**
 * @param {{scores: ArrayLike<number>, range: [number, number], all: {edges: number[], peaks: number[]} | null,
 *   threshold: number, onInput: (value: number) => void, onChange: (value: number) => void}} props
 */
export function ScoreHistogram({ scores, range, all, threshold, onInput, onChange }) {
  const canvas = useRef(null);
  const [low, high] = range;
  const counts = useMemo(() => countScores(scores, low, high), [scores, low, high]);
  const allCounts = useMemo(() => all && rebinned(all, low, high), [all, low, high]);
  const share = Math.min(1, Math.max(0, (threshold - low) / (high - low || 1)));
  const show = () => canvas.current && draw(canvas.current, counts, allCounts, share);
  useLayoutEffect(show, [counts, allCounts, share]);
  useEffect(() => {
    const observer = new ResizeObserver(show);
    observer.observe(canvas.current);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", show);
    return () => { observer.disconnect(); theme.removeEventListener("change", show); };
  }, [counts, allCounts, share]);

  const valueAt = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return low + (high - low) * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const down = (event) => {
    canvas.current.setPointerCapture(event.pointerId);
    onInput(valueAt(event));
  };
  const step = (high - low) / 1000 || 0.001;
  return html`<div class="score-histogram">
    <canvas ref=${canvas} height=${HEIGHT} aria-hidden="true" onPointerDown=${down}
      onPointerMove=${(event) => event.buttons && onInput(valueAt(event))} onPointerUp=${(event) => onChange(valueAt(event))}></canvas>
    <input type="range" aria-label="Threshold" min=${low} max=${high} step=${step} value=${threshold}
      onInput=${(event) => onInput(event.currentTarget.valueAsNumber)} onChange=${(event) => onChange(event.currentTarget.valueAsNumber)} />
  </div>`;
}

/** The histogram of all fields within the range of the slider. */
function rebinned({ edges, peaks }, low, high) {
  const counts = new Float64Array(BINS);
  peaks.forEach((n, i) => {
    const bin = Math.floor((((edges[i] + edges[i + 1]) / 2 - low) / (high - low || 1)) * BINS);
    if (bin >= 0 && bin < BINS) counts[bin] += n;
  });
  return counts;
}
