/** 2D classes: gallery, selection, members of a class, and what to do with a selection. */
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { withQuery } from "../lib/api.js";
import { count, measure, plural } from "../lib/format.js";
import { useKeys } from "../lib/keyboard.js";
import { useJson } from "../lib/remote.js";
import { goTo, place, setQuery } from "../lib/router.js";
import { inverted, toggled, withRange } from "../lib/selection.js";
import { useCanWrite } from "../lib/session.js";
import { createKeptStore, useStore } from "../lib/store.js";
import { AtlasTile } from "../parts/atlas_tile.js";
import { ClassPanel } from "../parts/class_panel.js";
import { Empty, Loading } from "../parts/messages.js";
import { SelectionPanel } from "../parts/selection_panel.js";
import { VirtualGrid } from "../parts/virtual_grid.js";

const settings = createKeptStore("classes", { sort: "count", isDescending: true, size: 128 });
const NO_CLASSES = new Set();
/** px of a picture below which there is no room for words */
const WORDS = 108;

/** Class numbers in the order of a column; those without a value last. */
function orderOf(table, sort, isDescending) {
  const values = table[sort] ?? table.number;
  const places = table.number.map((_, i) => i);
  places.sort((a, b) => {
    if (values[a] == null || values[b] == null) return (values[a] == null) - (values[b] == null) || a - b;
    return (isDescending ? values[b] - values[a] : values[a] - values[b]) || a - b;
  });
  return places.map((i) => table.number[i]);
}

export default function Classes() {
  const { parts, query } = useStore(place);
  const list = useJson("api/classifications", ["classes", "jobs"]);
  const all = list.value?.classifications ?? [];
  const chosen = all.find((one) => one.id === parts[0]) ?? all.find((one) => one.aliases?.includes("classes")) ?? all.at(-1) ?? null;
  return html`<main id="page" class="fills" tabindex="-1">
    <${Loading} remote=${list} what="classifications" />
    ${list.value && !chosen && html`<${Empty} title="No classes yet">They are shown here when a 2D classification has made its first averages.</${Empty}>`}
    ${chosen && html`<${Gallery} key=${chosen.id} all=${all} chosen=${chosen} iteration=${query.iteration ?? null} />`}
  </main>`;
}

function Gallery({ all, chosen, iteration }) {
  const seen = useJson(withQuery(`api/classifications/${chosen.id}`, { iteration }), ["classes", "jobs"]);
  const { sort, isDescending, size } = useStore(settings);
  const canWrite = useCanWrite();
  const [marked, setMarked] = useState(NO_CLASSES);
  const [active, setActive] = useState(0);
  const [anchor, setAnchor] = useState(0);
  const [isTouched, setTouched] = useState(false);
  const data = seen.value;
  const table = data?.classes;
  useEffect(() => {
    if (table?.is_selected && !isTouched) setMarked(new Set(table.number.filter((_, i) => table.is_selected[i])));
  }, [data]);
  const order = useMemo(() => (table ? orderOf(table, sort, isDescending) : []), [table, sort, isDescending]);
  const placeOf = useMemo(() => new Map((table?.number ?? []).map((number, i) => [number, i])), [table]);

  const mark = (next) => { setTouched(true); setMarked(next); };
  const press = (i, isRange) => {
    mark(isRange ? withRange(marked, order, anchor, i) : toggled(marked, order[i]));
    setActive(i);
    if (!isRange) setAnchor(i);
  };
  useKeys("Classes", [
    ["ctrl+a", "select all", () => mark(new Set(order))],
    ["ctrl+i", "invert the selection", () => mark(inverted(marked, order))],
    ["Escape", "select none", () => mark(NO_CLASSES)],
    ["ctrl+ArrowUp", "select all above the active class", () => mark(withRange(NO_CLASSES, order, 0, active))],
    ["ctrl+ArrowDown", "select all below the active class", () => mark(withRange(NO_CLASSES, order, active, order.length - 1))],
  ]);
  const change = (changes) => settings.set((now) => ({ ...now, ...changes }));
  const nMarked = [...marked].reduce((sum, number) => sum + (table?.count?.[placeOf.get(number)] ?? 0), 0);
  const columns = (data?.columns ?? []).filter((column) => column.name !== "reasons" && table?.[column.name]?.some((value) => typeof value === "number"));

  const inWords = (number, at) => [`Class ${number}`, `${count(table.count?.[at])} particles`, table.resolution?.[at] == null ? "" : `resolution ${measure(table.resolution[at], 2)} Å`,
    table.score?.[at] == null ? "" : `score ${table.score[at].toFixed(2)} of 1`, table.why?.[at] ?? ""].filter(Boolean).join(", ");
  const card = (i, isActive) => {
    const number = order[i];
    const at = placeOf.get(number);
    const isMarked = marked.has(number);
    return html`<div id=${`card-${i}`} role="option" aria-selected=${isMarked ? "true" : "false"} class=${`class-card ${isMarked ? "marked" : ""} ${isActive ? "active" : ""}`} title=${inWords(number, at)} onClick=${(event) => press(i, event.shiftKey)}>
      <${AtlasTile} atlas=${data.atlas} index=${number - 1} size="fill" />
      <span class="class-mark" aria-hidden="true">${isMarked ? "✓" : ""}</span>
      <span class="class-line"><b><span class="visually-hidden">Class </span>${number}</b> <span>${count(table.count?.[at])}<span class=${size < WORDS ? "visually-hidden" : "muted"}> particles</span></span></span>
      <span class="class-line muted"><span>${table.resolution?.[at] == null ? "" : `${measure(table.resolution[at], 2)} Å`}</span><span>${table.score?.[at] == null ? "" : html`<span class=${size < WORDS ? "visually-hidden" : ""}>score </span>${table.score[at].toFixed(2)}`}</span></span>
    </div>`;
  };
  const number = order[active];
  return html`
    <div class="page-head">
      <h1 class="visually-hidden">2D classes</h1>
      <select aria-label="Classification" value=${chosen.id} onChange=${(event) => goTo("classes", [event.currentTarget.value])}>${all.map((one) => html`<option key=${one.id} value=${one.id}>${one.name} (${plural(one.n_classes, "class", "classes")})</option>`)}</select>
      ${chosen.iterations?.length > 1 && html`<select aria-label="Round" value=${iteration ?? chosen.iteration} onChange=${(event) => setQuery({ iteration: event.currentTarget.value })}>${chosen.iterations.map((one) => html`<option key=${one} value=${one}>round ${one}</option>`)}</select>`}
      <span class="muted small wide-only">${data && `${count(data.n_particles)} particles in classes; averages of ${data.box_size} px, ${measure(data.box_size * data.pixel_size)} Å`}</span>
      <div class="aside">
        <label>Sort <select value=${sort} onChange=${(event) => change({ sort: event.currentTarget.value, isDescending: ["count", "share", "score", "stability"].includes(event.currentTarget.value) })}>${columns.map((column) => html`<option key=${column.name} value=${column.name}>${column.title}</option>`)}</select></label>
        <button aria-pressed=${isDescending ? "true" : "false"} aria-label="Greatest first" title="Greatest first" onClick=${() => change({ isDescending: !isDescending })}>${isDescending ? "↓" : "↑"}</button>
        <label class="wide-only">Size <input class="size-slider" type="range" min="72" max="256" step="4" value=${size} onInput=${(event) => change({ size: event.currentTarget.valueAsNumber })} /></label>
      </div>
    </div>
    <${Loading} remote=${seen} what="classes" />
    ${data && html`<div class="columns viewer">
      <section class="panel flush gallery" aria-label="Gallery">
        <div class="table-bar">
          <b data-testid="n-marked">${plural(marked.size, "class", "classes")}</b><span class="muted" data-testid="n-marked-particles">${count(nMarked)} particles selected</span>
          <span class="aside row">
            <button title="Select all (Ctrl+A)" onClick=${() => mark(new Set(order))}>All</button><button title="Select none (Esc)" onClick=${() => mark(NO_CLASSES)}>None</button><button title="Select the others (Ctrl+I)" onClick=${() => mark(inverted(marked, order))}>Invert</button>
            <button title="All before the active class in this order, and it" onClick=${() => mark(withRange(NO_CLASSES, order, 0, active))}>Above</button>
            <button title="The active class and all after it in this order" onClick=${() => mark(withRange(NO_CLASSES, order, active, order.length - 1))}>Below</button>
          </span>
        </div>
        <${VirtualGrid} label="Classes. Space selects, Shift selects a range." isMultiple n=${order.length} cardWidth=${size + 14} cardHeight=${size + 54} card=${card} version=${data} active=${active} onActive=${setActive}
          onKey=${(key, i, event) => { if (key !== " " && key !== "Enter") return false; press(i, event.shiftKey); return true; }} />
      </section>
      <div class="side">
        <${SelectionPanel} classification=${chosen} iteration=${data.iteration} marked=${marked} canWrite=${canWrite} onLoad=${(numbers) => mark(new Set(numbers))} />
        ${number != null && html`<${ClassPanel} key=${number} classification=${chosen} data=${data} number=${number} at=${placeOf.get(number)} columns=${columns} />`}
      </div>
    </div>`}`;
}
