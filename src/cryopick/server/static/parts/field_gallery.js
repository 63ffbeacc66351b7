/** All micrographs as small pictures, in the order of the table. */
import { html, useState } from "../lib/html.js";
import { baseName, count, measure, plural } from "../lib/format.js";
import { fieldOrder, orderQuery } from "../lib/field_order.js";
import { usePagesOfRows } from "../lib/pages_of_rows.js";
import { useJson } from "../lib/remote.js";
import { goTo } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { Empty } from "./messages.js";
import { VirtualGrid } from "./virtual_grid.js";

const SORTS = ["number", "name", "picks", "ctf_resolution", "defocus", "mean_score", "background", "selected", "yield"];
const SIGNS = { accepted: "✓", rejected: "✕", failed: "!" };
const CARD = 176;

export function FieldGallery() {
  const order = useStore(fieldOrder);
  const columns = useJson("api/fields/columns", ["fields"]);
  const known = (columns.value?.columns ?? []).filter((column) => SORTS.includes(column.name) && column.n_known !== 0);
  const wanted = ["reason", ...known.map((column) => column.name).filter((name) => ["picks", "ctf_resolution"].includes(name))];
  const rows = usePagesOfRows("api/fields", { ...orderQuery(order), columns: ["number", "name", "state", ...wanted].join(",") }, ["fields", "limits"], 200);
  const [active, setActive] = useState(0);
  const set = (changes) => fieldOrder.set((now) => ({ ...now, ...changes }));
  const open = (row) => row && goTo("micrograph", [row.id]);
  const card = (i, isActive) => {
    const row = rows.rowAt(i);
    return html`<div id=${`card-${i}`} role="option" aria-selected=${isActive ? "true" : "false"} class=${`thumb ${row?.state ?? ""} ${isActive ? "active" : ""}`} onClick=${() => { setActive(i); open(row); }}>
      ${row?.state === "failed" ? html`<span class="thumb-empty thumb-reason small">${row.reason}</span><span class="thumb-name clip" title=${row.name}><span class="state-sign">!</span> ${baseName(row.name)}</span><span class="small muted">failed</span>`
    : row ? html`<img src=${`api/fields/${row.id}/image?view=low_pass&size=256`} alt="" decoding="async" loading="lazy" />
        <span class="thumb-name clip" title=${row.name}><span class="state-sign" title=${row.state}>${SIGNS[row.state] ?? ""}</span> ${baseName(row.name)}</span>
        <span class="small muted">${row.picks == null ? "" : plural(row.picks, "pick")}${row.ctf_resolution == null ? "" : ` · ${measure(row.ctf_resolution, 2)} Å`}</span>` : html`<span class="thumb-empty"></span>`}
    </div>`;
  };
  return html`<main id="page" class="fills" tabindex="-1">
    <div class="page-head"><h1>Micrographs</h1><span class="muted">${rows.n === rows.nAll ? plural(rows.n, "micrograph") : `${count(rows.n)} of ${count(rows.nAll)}`}</span>
      <div class="aside">
        <input type="search" aria-label="Name contains" placeholder="Name contains …" value=${order.search} onInput=${(event) => set({ search: event.currentTarget.value })} />
        <select aria-label="State" value=${order.state} onChange=${(event) => set({ state: event.currentTarget.value })}>${[["", "all states"], ["accepted", "accepted"], ["rejected", "rejected"], ["failed", "failed"]].map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}</select>
        <select aria-label="Sort by" value=${order.sort} onChange=${(event) => set({ sort: event.currentTarget.value })}>${known.map((column) => html`<option key=${column.name} value=${column.name}>${column.title}</option>`)}</select>
        <button aria-pressed=${order.isDescending ? "true" : "false"} onClick=${() => set({ isDescending: !order.isDescending })} title=${order.isDescending ? "Greatest first" : "Least first"}>${order.isDescending ? "↓" : "↑"}<span class="visually-hidden">greatest first</span></button>
      </div></div>
    ${rows.error && html`<p class="notice bad" role="alert">${rows.error.message}</p>`}
    ${rows.isReady && rows.nAll === 0 && html`<${Empty} title="No micrographs yet">The overview says how to begin.</${Empty}>`}
    ${rows.isReady && rows.n === 0 && rows.nAll > 0 && html`<p class="empty">No micrograph matches.</p>`}
    <${VirtualGrid} label="Micrographs. Enter opens." n=${rows.n} cardWidth=${CARD} cardHeight=${CARD + 36} card=${card} version=${rows.version} active=${active} onActive=${setActive}
      onRange=${rows.need} onKey=${(key, i) => { if (key !== "Enter") return false; open(rows.rowAt(i)); return true; }} />
  </main>`;
}
