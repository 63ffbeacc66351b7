/** The table of all fields: sorted and filtered on the server, ticked by hand here. */
import { html, useMemo, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { tell } from "../lib/events.js";
import { baseName, count, measure, moment, plural } from "../lib/format.js";
import { fieldOrder, orderQuery } from "../lib/field_order.js";
import { usePagesOfRows } from "../lib/pages_of_rows.js";
import { goTo, linkTo } from "../lib/router.js";
import { useCanWrite } from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { say, sayError } from "./messages.js";
import { ReasonDialog } from "./reason_dialog.js";
import { VirtualTable } from "./virtual_table.js";

const SHOWN = ["number", "name", "state", "defocus", "ctf_resolution", "picks", "mean_score", "background", "particles", "selected", "yield", "reason"];
const NARROW = ["name", "state", "picks", "ctf_resolution"];
const STATES = { accepted: ["good", "accepted"], rejected: ["warn", "rejected"], failed: ["bad", "failed"] };

function cellOf(column) {
  const { name, kind, digits } = column;
  if (name === "state") return (row) => { const [tone, words] = STATES[row.state] ?? ["none", row.state]; return html`<span class=${`chip ${tone}`}>${words}${row.tick ? " ✎" : ""}</span>`; };
  if (name === "name") return (row) => html`<a tabindex="-1" title=${row.name} href=${linkTo("micrograph", [row.id])}>${baseName(row.name)}</a>`;
  if (name === "time") return (row) => moment(row.time);
  if (kind === "text") return (row) => row[name] ?? "";
  if (name === "number") return (row) => row.number;
  return (row) => (row[name] == null ? "–" : digits === 0 ? count(row[name]) : Number.isInteger(digits) ? row[name].toFixed(digits) : measure(row[name]));
}

export function FieldTable({ columns }) {
  const order = useStore(fieldOrder);
  const canWrite = useCanWrite();
  const isNarrow = matchMedia("(max-width: 44rem)").matches;
  const names = (isNarrow ? NARROW : SHOWN).filter((name) => columns.some((column) => column.name === name && (name === "reason" || column.n_known !== 0)));
  const query = { ...orderQuery(order), columns: [...new Set([...names, "tick", "name"])].join(",") };
  const rows = usePagesOfRows("api/fields", query, ["fields", "limits"], 200);
  const [isBusy, setBusy] = useState(false);
  const [asking, setAsking] = useState(/** @type {null | {rows: any[] | null}} null: all listed */ (null));

  const change = async (path, method, body, words, options = {}) => {
    setBusy(true);
    try {
      const answer = await send(method, path, body);
      say(words(answer), options);
      tell("limits", {});
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  const tick = (row, value, reason = "") => {
    const next = row.tick === value && !reason ? "" : value;
    const action = next === "rejected" && !reason ? { action: { label: "Say why", run: () => setAsking({ rows: [row] }) } } : {};
    return change("api/ticks", "PUT", { fields: [row.id], tick: next, reason }, () => `${baseName(row.name)}: ${next || "not ticked any more"}.`, action);
  };
  const tickAll = (value, reason = "") => change("api/ticks", "PUT", { where: { state: order.state, search: order.search }, tick: value, reason },
    (answer) => `${plural(answer.n_changed, "micrograph")} ${value || "not ticked any more"}.`);

  const shown = useMemo(() => [
    ...(canWrite ? [{ name: "tick", title: "", width: "4.25rem", cell: (row) => html`<span class="ticks">
      ${[["accepted", "✓", "accept"], ["rejected", "✕", "reject"]].map(([value, sign, word]) => html`<button key=${value} class="plain" tabindex="-1" aria-pressed=${row.tick === value ? "true" : "false"}
        aria-label=${word} title=${word} onClick=${(event) => { event.stopPropagation(); tick(row, value); }}>${sign}</button>`)}</span>` }] : []),
    ...names.map((name) => {
      const column = columns.find((one) => one.name === name);
      const width = { number: "5.25rem", name: "minmax(9rem, 2.5fr)", state: "7.25rem", reason: "minmax(6rem, 2fr)" }[name];
      return { name, title: column.title, unit: column.unit, about: column.about, isText: column.kind !== "number", width, cell: cellOf(column) };
    }),
  ], [names.join(), canWrite, columns]);

  const set = (changes) => fieldOrder.set((now) => ({ ...now, ...changes }));
  const keyed = (key, row) => {
    if (!canWrite || !["a", "x", "X"].includes(key)) return false;
    if (key === "X") setAsking({ rows: [row] });
    else tick(row, key === "a" ? "accepted" : "rejected");
    return true;
  };
  const open = (row) => goTo("micrograph", [row.id]);
  return html`<section class="panel flush" aria-label="Table of micrographs">
    <div class="table-bar">
      <input type="search" aria-label="Name contains" placeholder="Name contains …" value=${order.search} onInput=${(event) => set({ search: event.currentTarget.value })} />
      <select aria-label="State" value=${order.state} onChange=${(event) => set({ state: event.currentTarget.value })}>
        ${[["", "all states"], ["accepted", "accepted"], ["rejected", "rejected"], ["failed", "failed"]].map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}
      </select>
      <span class="muted small" data-testid="n-listed">${rows.n === rows.nAll ? plural(rows.n, "micrograph") : `${count(rows.n)} of ${plural(rows.nAll, "micrograph")}`}</span>
      ${canWrite && html`<span class="aside row">
        <button class="wide-only" disabled=${isBusy} onClick=${() => tickAll("accepted")} title="Accept all that the filters leave, whatever the limits say">Accept all listed</button>
        <button class="wide-only" disabled=${isBusy} onClick=${() => setAsking({ rows: null })} title="Reject all that the filters leave, whatever the limits say">Reject all listed …</button>
        <button class="wide-only" disabled=${isBusy} onClick=${() => tickAll("")} title="Leave all that are listed to the limits again">Untick all listed</button>
        <button class="primary" disabled=${isBusy} onClick=${() => change("api/fields/save", "POST", {}, (answer) => `${plural(answer.n, "micrograph")} in ${answer.path}.`)} title="Write micrographs_selected.star, which every command takes">Save accepted</button></span>`}
    </div>
    ${rows.error && html`<p class="notice bad">${rows.error.message}</p>`}
    <${VirtualTable} label="Micrographs. Enter opens, a accepts, x rejects." columns=${shown} n=${rows.n} rowAt=${rows.rowAt} onRange=${rows.need}
      sort=${order.sort} isDescending=${order.isDescending} onOpen=${open}
      onSort=${(name) => set({ sort: name, isDescending: order.sort === name ? !order.isDescending : false })}
      onKey=${keyed}
      rowClass=${(row) => row.state ?? ""} />
    ${asking && html`<${ReasonDialog} title=${asking.rows ? `Reject ${baseName(asking.rows[0].name)}` : `Reject ${plural(rows.n, "micrograph")}`} about=${asking.rows ? "" : "All that are listed, whatever the limits say; Untick gives them back to the limits."}
      onClose=${() => setAsking(null)} onSay=${(reason) => (asking.rows ? tick(asking.rows[0], "rejected", reason) : tickAll("rejected", reason))} />`}
  </section>`;
}
