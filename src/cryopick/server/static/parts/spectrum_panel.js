/** Power spectrum with the fitted CTF: the picture, and both averaged along the rings. */
import uPlot from "../vendor/uplot.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { themeColour } from "../lib/colours.js";
import { count, measure } from "../lib/format.js";
import { useJson } from "../lib/remote.js";

const HEIGHT = 150;
const PASSED_BY = 400; // ms

function draw(element, { frequency, measured, fitted, max_resolution: end }) {
  const ink = themeColour("--ink-2");
  const line = themeColour("--line");
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, size: 4, width: 1 }, font: "11px system-ui, sans-serif" };
  return new uPlot({
    width: element.clientWidth, height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [8, 8, 0, 0],
    scales: { x: { time: false }, y: { range: [-0.25, 1.4] } },
    axes: [{ ...axis, size: 26, space: 50, values: (_, ticks) => ticks.map((tick) => (tick > 0 ? `${measure(1 / tick, 2)} Å` : "∞")) }, { show: false }],
    series: [{}, { stroke: themeColour("--ink-2"), width: 1 }, { stroke: themeColour("--accent"), width: 1.5 }],
    hooks: {
      drawAxes: [(u) => {
        if (!end) return;
        const x = u.valToPos(1 / end, "x", true);
        u.ctx.save();
        u.ctx.strokeStyle = themeColour("--warn");
        u.ctx.setLineDash([5, 4]);
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
        u.ctx.restore();
      }],
    },
  }, [frequency, measured, fitted], element);
}

/** A micrograph that somebody stays at, not one that is passed by: its spectrum takes a second of computing. */
function useSettled(id) {
  const [settled, setSettled] = useState(null);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(id), PASSED_BY);
    return () => clearTimeout(timer);
  }, [id]);
  return settled;
}

export function SpectrumPanel({ id }) {
  const settled = useSettled(id);
  const spectrum = useJson(settled && `api/fields/${settled}/spectrum`);
  const seen = spectrum.value;
  const isOld = settled !== id || spectrum.isLoading || (!seen && !spectrum.error);
  const element = useRef(null);
  useEffect(() => {
    if (!seen || !element.current) return undefined;
    let plot = draw(element.current, seen);
    const again = () => { plot.destroy(); plot = draw(element.current, seen); };
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", again);
    const observer = new ResizeObserver(() => element.current && plot.setSize({ width: element.current.clientWidth, height: HEIGHT }));
    observer.observe(element.current);
    return () => { theme.removeEventListener("change", again); observer.disconnect(); plot.destroy(); };
  }, [seen]);
  if (spectrum.error && !isOld) return null;
  return html`<section class="panel" aria-label="Spectrum" aria-busy=${isOld ? "true" : null}>
    <header><h2>Spectrum and CTF</h2>${isOld ? html`<span class="muted small">computing …</span>` : html`<span class=${`chip ${seen.is_trusted ? "good" : "warn"}`} title=${seen.is_trusted ? "Rings are there without doubt" : "No rings were found without doubt: do not rely on these numbers"}>${seen.is_trusted ? "trusted" : "not trusted"}</span>`}</header>
    ${seen && html`<div class=${isOld ? "stale" : ""}><img class="spectrum" src=${seen.image} alt="Left: measured power spectrum. Right: fitted CTF." loading="lazy" />
      <div ref=${element} aria-hidden="true"></div>
      <p class="small muted legend"><span class="key measured"></span>measured <span class="key fitted"></span>fitted <span class="key limit"></span>${measure(seen.max_resolution)} Å</p>
      <dl class="facts"><dt>Defocus</dt><dd>${count(seen.defocus_u)} / ${count(seen.defocus_v)} Å</dd><dt>Direction</dt><dd>${measure(seen.defocus_angle)}°</dd>
        ${seen.phase_shift ? html`<dt>Phase shift</dt><dd>${measure(seen.phase_shift)}°</dd>` : null}<dt>Fit (correlation)</dt><dd>${measure(seen.fom)}</dd></dl></div>`}
  </section>`;
}
