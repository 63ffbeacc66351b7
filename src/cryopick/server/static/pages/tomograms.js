/** Tomograms: three slices through one point, with segmentation and picks by kind. */
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { CATEGORIES } from "../lib/colours.js";
import { count, measure, plural } from "../lib/format.js";
import { useKeys } from "../lib/keyboard.js";
import { useJson } from "../lib/remote.js";
import { goTo, place } from "../lib/router.js";
import { createKeptStore, useStore } from "../lib/store.js";
import { contrastTable } from "../viewer/grey_image.js";
import { SliceView } from "../viewer/slice_view.js";
import { Empty, Loading } from "../parts/messages.js";

/** px between slices */
const GAP = 6;
const settings = createKeptStore("tomograms", { low: 0, high: 255, inverted: false, hasSegmentation: false, hasPicks: true });

export default function Tomograms() {
  const { parts } = useStore(place);
  const list = useJson("api/tomograms", ["jobs"]);
  const all = list.value?.tomograms ?? [];
  const chosen = all.find((one) => one.id === parts[0]) ?? all[0] ?? null;
  return html`<main id="page" class="fills" tabindex="-1">
    <${Loading} remote=${list} what="tomograms" />
    ${list.value && !chosen && html`<${Empty} title="No tomograms in this project">They are shown here after <code>cryopick tomo pick TOMOGRAM --out PROJECT/tomo_picks</code>, or <code>tomo segment</code> with a folder in the project.</${Empty}>`}
    ${chosen && html`<${Viewer} key=${chosen.id} all=${all} id=${chosen.id} />`}
  </main>`;
}

/** Columns and rows of the grid: all slices at one scale, as large as there is room. */
function tracks([z, y, x], [width, height]) {
  const scale = Math.max(0.1, Math.min((width - GAP) / (x + z), (height - GAP) / (y + z)));
  return { gridTemplateColumns: `${x * scale}px ${z * scale}px`, gridTemplateRows: `${y * scale}px ${z * scale}px` };
}

function Viewer({ all, id }) {
  const seen = useJson(`api/tomograms/${id}`, ["jobs"]);
  const picks = useJson(`api/tomograms/${id}/picks`, ["jobs"]);
  const view = useStore(settings);
  const change = (changes) => settings.set((now) => ({ ...now, ...changes }));
  const tomogram = seen.value;
  const [at, setAt] = useState(/** @type {{x: number, y: number, z: number} | null} */ (null));
  const [hidden, setHidden] = useState(() => new Set());
  useEffect(() => {
    if (tomogram && !at) { const [z, y, x] = tomogram.shape; setAt({ x: Math.floor(x / 2), y: Math.floor(y / 2), z: Math.floor(z / 2) }); }
  }, [tomogram]);
  const box = useRef(null);
  const [room, setRoom] = useState([600, 600]);
  useEffect(() => {
    if (!box.current) return undefined;
    const observer = new ResizeObserver(() => box.current && setRoom([box.current.clientWidth, box.current.clientHeight]));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [tomogram, at === null]);
  const table = useMemo(() => contrastTable(view.low, view.high, view.inverted), [view.low, view.high, view.inverted]);
  const move = (changes) => setAt((now) => {
    const [z, y, x] = tomogram.shape;
    const next = { ...now, ...changes };
    const within = (value, n) => Math.max(0, Math.min(n - 1, Math.round(value)));
    return { x: within(next.x, x), y: within(next.y, y), z: within(next.z, z) };
  });
  const [nth, setNth] = useState(-1);
  const places = picks.value?.columns ?? {};
  const shownPicks = useMemo(() => Array.from({ length: picks.value?.n ?? 0 }, (_, i) => i).filter((i) => !hidden.has(places.kind?.[i] ?? 0)), [picks.value, hidden]);
  const goToPick = (by) => () => {
    if (!shownPicks.length) return;
    const next = (nth + by + shownPicks.length) % shownPicks.length;
    setNth(next);
    move({ x: places.x[shownPicks[next]], y: places.y[shownPicks[next]], z: places.z[shownPicks[next]] });
  };
  const step = (axis, by) => () => at && move({ [axis]: at[axis] + by });
  useKeys("Tomogram", [
    ["PageUp ]", "next slice in z", step("z", 1)], ["PageDown [", "previous slice in z", step("z", -1)],
    ["ArrowRight", "right (x)", step("x", 1)], ["ArrowLeft", "left (x)", step("x", -1)], ["ArrowDown", "down (y)", step("y", 1)], ["ArrowUp", "up (y)", step("y", -1)],
    ["n", "next pick", goToPick(1)], ["p", "previous pick", goToPick(-1)],
    ["s", "segmentation", () => change({ hasSegmentation: !view.hasSegmentation })], ["h", "hide or show picks", () => change({ hasPicks: !view.hasPicks })], ["i", "invert contrast", () => change({ inverted: !view.inverted })],
  ]);
  const kinds = tomogram?.kinds ?? [];
  const colourOf = (kind) => kinds.find((one) => one.number === kind)?.colour ?? CATEGORIES[Math.abs(Math.round(kind ?? 0)) % CATEGORIES.length];
  const shared = { tomogram, at, onMove: move, table, picks: view.hasPicks ? picks.value : null, hasSegmentation: view.hasSegmentation, hidden, colourOf };
  const slide = (name) => (event) => change({ [name]: event.currentTarget.valueAsNumber });
  return html`
    <div class="page-head"><h1 class="visually-hidden">Tomograms</h1>
      <select aria-label="Tomogram" value=${id} onChange=${(event) => goTo("tomograms", [event.currentTarget.value])}>${all.map((one) => html`<option key=${one.id} value=${one.id}>${one.name} (${plural(one.n_picks, "pick")})</option>`)}</select>
      ${tomogram && html`<span class="muted small">${[...tomogram.shape].reverse().join(" × ")} voxels of ${measure(tomogram.voxel_size)} Å</span>`}</div>
    <${Loading} remote=${seen} what="the tomogram" />
    ${tomogram && at && html`<div class="columns viewer">
      <div class="slices" ref=${box} style=${tracks(tomogram.shape, room)}>
        <${SliceView} axis="z" ...${shared} /><${SliceView} axis="x" ...${shared} /><${SliceView} axis="y" ...${shared} />
      </div>
      <div class="side">
        <section class="panel" aria-label="Image">
          <div class="row spread"><h2>Image</h2><button aria-pressed=${view.inverted ? "true" : "false"} onClick=${() => change({ inverted: !view.inverted })}>Invert</button></div>
          <div class="slider-grid">
            <label for="black">Black</label><input id="black" type="range" min="0" max="200" value=${view.low} onInput=${slide("low")} /><output>${view.low}</output>
            <label for="white">White</label><input id="white" type="range" min="55" max="255" value=${view.high} onInput=${slide("high")} /><output>${view.high}</output>
            ${["x", "y", "z"].map((axis, i) => html`<label key=${axis} for=${`at-${axis}`}>${axis}</label><input id=${`at-${axis}`} type="range" min="0" max=${tomogram.shape[2 - i] - 1} value=${at[axis]} onInput=${(event) => move({ [axis]: event.currentTarget.valueAsNumber })} /><output>${at[axis]}</output>`)}
          </div>
        </section>
        <section class="panel stack tight" aria-label="Overlay">
          <label><input type="checkbox" checked=${view.hasPicks} onChange=${() => change({ hasPicks: !view.hasPicks })} /> picks <span class="muted">${count(picks.value?.n)}</span></label>
          ${shownPicks.length > 0 && html`<div class="row"><span class="segments" role="group" aria-label="Picks"><button aria-label="Previous pick" onClick=${goToPick(-1)}>←</button><button aria-label="Next pick" onClick=${goToPick(1)}>→</button></span><span class="muted small">${nth < 0 ? "step through the picks (n, p)" : `pick ${nth + 1} of ${shownPicks.length}`}</span></div>`}
          <label><input type="checkbox" disabled=${!tomogram.has_segmentation} checked=${view.hasSegmentation && tomogram.has_segmentation} onChange=${() => change({ hasSegmentation: !view.hasSegmentation })} /> segmentation ${!tomogram.has_segmentation && html`<span class="muted">none was made</span>`}</label>
          ${kinds.length > 0 && html`<h3>Kinds</h3><ul class="plain-list">${kinds.map((kind) => html`<li key=${kind.number}><label><input type="checkbox" checked=${!hidden.has(kind.number)} onChange=${() => setHidden((now) => { const next = new Set(now); if (!next.delete(kind.number)) next.add(kind.number); return next; })} />
            <svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="4" fill="none" stroke-width="2" stroke=${colourOf(kind.number)} /></svg>${kind.name} <span class="muted small">${count(kind.n)}</span></label></li>`)}</ul>`}
        </section>
      </div>
    </div>`}`;
}
