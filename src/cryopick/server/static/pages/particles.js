/** Particles: a gallery of images in the order of any column; disable, average, save. */
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { send, withQuery } from "../lib/api.js";
import { colourSteps, stepOf } from "../lib/colours.js";
import { count, measure, plural, steady } from "../lib/format.js";
import { useKeys } from "../lib/keyboard.js";
import { usePagesOfRows } from "../lib/pages_of_rows.js";
import { useJson } from "../lib/remote.js";
import { goTo, place, setQuery } from "../lib/router.js";
import { toggled } from "../lib/selection.js";
import { useCanWrite } from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { AtlasTile } from "../parts/atlas_tile.js";
import { Empty, Loading, say, sayError } from "../parts/messages.js";
import { ParticlePanel } from "../parts/particle_panel.js";
import { VirtualGrid } from "../parts/virtual_grid.js";

const PAGE = 200;
const CARD = 88;
const NONE = new Set();
const FILTERS = [["", "unfiltered"], ["10", "to 10 Å"], ["15", "to 15 Å"], ["20", "to 20 Å"], ["30", "to 30 Å"], ["40", "to 40 Å"]];

export default function Particles() {
  const { parts } = useStore(place);
  const list = useJson("api/particles", ["jobs", "selections"]);
  const all = list.value?.tables ?? [];
  const chosen = all.find((one) => one.id === parts[0]) ?? all.findLast((one) => one.kind === "selection") ?? all.at(-1) ?? null;
  return html`<main id="page" class="fills" tabindex="-1">
    <${Loading} remote=${list} what="tables of particles" />
    ${list.value && !chosen && html`<${Empty} title="No particles yet">They are shown here when some have been extracted.</${Empty}>`}
    ${chosen && html`<${Gallery} key=${chosen.id} all=${all} chosen=${chosen} reloadTables=${list.reload} />`}
  </main>`;
}

function Gallery({ all, chosen, reloadTables }) {
  const { query } = useStore(place);
  const canWrite = useCanWrite();
  const sort = query.sort ?? "";
  const isDescending = query.descending === "1";
  const colourBy = query.colour ?? "";
  const wanted = [...new Set(["class_number", colourBy, sort].filter((name) => name && chosen.columns.some((column) => column.name === name)))].join(",");
  const rows = usePagesOfRows(`api/particles/${encodeURIComponent(chosen.id)}`, {
    sort, descending: isDescending ? 1 : null, class: query.class, field: query.field, disabled: query.disabled, columns: wanted,
  }, ["jobs"], PAGE);
  const [marked, setMarked] = useState(NONE);
  const [active, setActive] = useState(0);
  const [anchor, setAnchor] = useState(0);
  useEffect(() => setMarked(NONE), [query.class, query.field]);
  const colours = useMemo(() => colourSteps("viridis"), []);
  const column = chosen.columns.find((one) => one.name === colourBy);
  const shownColumn = column ?? chosen.columns.find((one) => one.name === sort);

  const at = (i) => {
    const page = rows.pageOf(i);
    if (!page) return null;
    const inPage = i - page.offset;
    return { row: rows.rowAt(i), tile: inPage, atlas: { ...page.atlas, url: withQuery(page.atlas.url, { low_pass: query.low_pass }) }, isDisabled: page.disabled?.[inPage] === 1 };
  };
  const press = (i, isRange) => {
    const found = at(i);
    if (!found?.row) return;
    if (isRange) {
      const next = new Set(marked);
      for (let j = Math.min(anchor, i); j <= Math.max(anchor, i); j += 1) { const other = at(j); if (other?.row) next.add(other.row.row); }
      setMarked(next);
    } else {
      setMarked(toggled(marked, found.row.row));
      setAnchor(i);
    }
    setActive(i);
  };
  const disable = async (body, words) => {
    try {
      const answer = await send("PUT", `api/particles/${encodeURIComponent(chosen.id)}/disabled`, body);
      say(`${words} ${plural(answer.n_disabled, "particle")} disabled in all.`);
      setMarked(NONE);
      rows.reload();
      reloadTables();
    } catch (error) {
      sayError(error);
    }
  };
  const listed = [...marked].sort((a, b) => a - b).join(",");
  useKeys("Particles", [
    ["Escape", "select none", () => setMarked(NONE)],
    ...(canWrite ? [["d", "disable the selected", () => marked.size && disable({ rows: listed, disabled: true }, "Done.")], ["e", "enable the selected", () => marked.size && disable({ rows: listed, disabled: false }, "Done.")]] : []),
  ]);
  const card = (i, isActive) => {
    const found = at(i);
    if (!found?.row) return html`<div id=${`card-${i}`} role="option" aria-selected="false" class="particle"><span class="thumb-empty"></span></div>`;
    const { row, atlas, tile, isDisabled } = found;
    const isMarked = marked.has(row.row);
    const value = colourBy ? row[colourBy] : null;
    const colour = column && value != null ? colours[stepOf(value, column.minimum, column.maximum)] : "transparent";
    return html`<div id=${`card-${i}`} role="option" aria-selected=${isMarked ? "true" : "false"}
        class=${`particle ${isMarked ? "marked" : ""} ${isActive ? "active" : ""} ${isDisabled ? "disabled" : ""}`} style=${{ borderBottomColor: colour }} title=${`Particle ${row.row + 1}${shownColumn ? `: ${shownColumn.title} ${measure(row[shownColumn.name])} ${shownColumn.unit ?? ""}` : ""}`} onClick=${(event) => press(i, event.shiftKey)}>
      <${AtlasTile} atlas=${atlas} index=${tile} size="fill" />
      <span class="visually-hidden">${`Particle ${row.row + 1}${isDisabled ? ", disabled" : ""}`}</span>
      ${isDisabled && html`<span class="class-mark" aria-hidden="true">✕</span>`}
      ${(colourBy || sort) && html`<span class="particle-value">${steady(row[colourBy || sort])}</span>`}</div>`;
  };
  const option = (one) => html`<option key=${one.name} value=${one.name}>${one.title}${one.unit ? ` (${one.unit})` : ""}</option>`;
  return html`
    <div class="page-head">
      <h1 class="visually-hidden">Particles</h1>
      <select aria-label="Table of particles" value=${chosen.id} onChange=${(event) => goTo("particles", [event.currentTarget.value])}>${all.map((one) => html`<option key=${one.id} value=${one.id}>${one.name} (${count(one.n)})</option>`)}</select>
      <span class="muted small">${rows.isReady && (rows.n === rows.nAll ? plural(rows.n, "particle") : `${count(rows.n)} of ${plural(rows.nAll, "particle")}`)}${chosen.n_disabled ? `, ${count(chosen.n_disabled)} disabled` : ""}<span class="wide-only">; box ${chosen.box_size} px, ${measure(chosen.box_size * chosen.pixel_size)} Å</span></span>
      ${query.class && html`<span class="chip">class ${query.class} <button class="plain chip-close" aria-label="All classes" onClick=${() => setQuery({ class: null })}>✕</button></span>`}
      ${query.field && html`<span class="chip">one micrograph <button class="plain chip-close" aria-label="All micrographs" onClick=${() => setQuery({ field: null })}>✕</button></span>`}
      <div class="aside">
        <label>Sort <select value=${sort} onChange=${(event) => setQuery({ sort: event.currentTarget.value })}><option value="">as in the table</option>${chosen.columns.map(option)}</select></label>
        <button aria-pressed=${isDescending ? "true" : "false"} aria-label="Greatest first" title="Greatest first" onClick=${() => setQuery({ descending: isDescending ? null : 1 })}>${isDescending ? "↓" : "↑"}</button>
        <label>Colour <select value=${colourBy} onChange=${(event) => setQuery({ colour: event.currentTarget.value })}><option value="">none</option>${chosen.columns.filter((one) => one.minimum != null).map(option)}</select></label>
        <select aria-label="Low-pass filter" value=${query.low_pass ?? ""} onChange=${(event) => setQuery({ low_pass: event.currentTarget.value })}>${FILTERS.map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}</select>
        <select aria-label="Which particles" value=${query.disabled ?? ""} onChange=${(event) => setQuery({ disabled: event.currentTarget.value })}>${[["", "all"], ["0", "enabled"], ["1", "disabled"]].map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}</select>
      </div>
    </div>
    ${rows.error && html`<p class="notice bad" role="alert">${rows.error.message}</p>`}
    <div class="columns viewer">
      <section class="panel flush gallery" aria-label="Gallery">
        <div class="table-bar"><b data-testid="n-marked">${plural(marked.size, "particle")}</b><span class="muted">selected</span>
          ${canWrite && html`<span class="aside row">
            <button disabled=${!marked.size} title="Leave the selected out of what is saved (d); nothing is deleted" onClick=${() => disable({ rows: listed, disabled: true }, "Done.")}>Disable</button>
            <button disabled=${!marked.size} title="Take the selected back (e)" onClick=${() => disable({ rows: listed, disabled: false }, "Done.")}>Enable</button>
            <button title="Disable what is enabled, and enable what is disabled, in the whole table" onClick=${() => disable({ invert: true }, "Inverted.")}>Invert disabled</button></span>`}</div>
        <${VirtualGrid} label="Particles. Space selects, Shift selects a range." isMultiple n=${rows.n} cardWidth=${CARD} cardHeight=${CARD + (colourBy || sort ? 20 : 4)} card=${card} version=${rows.version} active=${active} onActive=${setActive}
          onRange=${rows.need} onKey=${(key, i, event) => { if (key !== " " && key !== "Enter") return false; press(i, event.shiftKey); return true; }} />
      </section>
      <div class="side"><${ParticlePanel} table=${chosen} listed=${listed} nMarked=${marked.size} ofClass=${query.class ? Number(query.class) : null} canWrite=${canWrite} /></div>
    </div>`;
}
