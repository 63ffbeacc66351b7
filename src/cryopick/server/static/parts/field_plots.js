/** Plots of what is known of the fields, with the limits that accept and reject them. */
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { ask as askServer, send, withQuery } from "../lib/api.js";
import { tell } from "../lib/events.js";
import { count } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { useCanWrite } from "../lib/session.js";
import { createKeptStore, useStore } from "../lib/store.js";
import { LimitPlot } from "./limit_plot.js";
import { LimitsMenu } from "./limits_menu.js";
import { say, sayError } from "./messages.js";

/** Plotted where the project has them, in this order. */
const PLOTTED = ["defocus", "ctf_resolution", "picks", "mean_score", "background", "astigmatism", "yield", "ctf_fom", "phase_shift"];
const FIRST_SHOWN = 6;
const settings = createKeptStore("plots", { x: "number", isAll: false });

export function FieldPlots({ columns }) {
  const { x, isAll } = useStore(settings);
  const canWrite = useCanWrite();
  const known = PLOTTED.map((name) => columns.find((column) => column.name === name)).filter((column) => column && column.n_known > 0);
  const shown = isAll ? known : known.slice(0, FIRST_SHOWN);
  const hasTime = columns.some((column) => column.name === "time" && column.n_known > 0);
  const names = ["number", "state", ...(hasTime ? ["time"] : []), ...shown.map((column) => column.name)];
  const series = useJson(withQuery("api/fields/series", { columns: names.join(",") }), ["fields", "limits"]);
  const limits = useJson("api/limits", ["limits", "fields"]);
  const [preview, setPreview] = useState(null);
  const asked = useRef({ timer: 0, control: null });
  useEffect(() => () => clearTimeout(asked.current.timer), []);

  // uPlot wants ascending places; times of files need not be in the order of numbers.
  const sorted = useMemo(() => series.value && inOrder(series.value.columns, x === "time" && hasTime ? "time" : "number"), [series.value, x]);
  if (!known.length) return null;
  const now = limits.value?.limits ?? {};
  const ask = (name) => (pair) => {
    clearTimeout(asked.current.timer);
    asked.current.timer = setTimeout(async () => {
      asked.current.control?.abort();
      asked.current.control = new AbortController();
      try {
        setPreview(await askServer("api/limits/preview", { limits: { ...now, [name]: pair } }, asked.current.control.signal));
      } catch (error) {
        sayError(error);
      }
    }, 40);
  };
  const change = async (body) => {
    clearTimeout(asked.current.timer);
    asked.current.control?.abort();
    try {
      limits.setValue({ ...limits.value, ...(await send("PUT", "api/limits", body)) });
      tell("limits", {});
    } catch (error) {
      sayError(error);
      limits.reload();
    }
    setPreview(null);
  };
  const changeOne = (name) => (pair) => {
    const { [name]: _, ...others } = now;
    return change({ limits: pair[0] == null && pair[1] == null ? others : { ...others, [name]: pair } });
  };
  const said = preview ?? limits.value;
  return html`<section aria-label="Micrographs over time">
    <div class="page-head">
      <h2>Micrographs</h2>
      <span class="small" aria-live="polite"><b data-testid="limits-accepted">${count(said?.n_accepted)}</b> accepted, <b data-testid="limits-rejected">${count(said?.n_rejected)}</b> rejected</span>
      ${Object.entries(said?.by_column ?? {}).filter(([, n]) => n).map(([name, n]) => html`<span class="chip bad" key=${name}>${columns.find((column) => column.name === name)?.title ?? name}: ${count(n)}</span>`)}
      <div class="aside">
        ${canWrite && html`<${LimitsMenu} said=${limits.value} columns=${columns} onUse=${change} onSave=${async (name) => { await change({ limits: now, name }); say(`Saved as ${name}.`); }} />
          <button disabled=${!Object.keys(now).length} title="Take all limits away" onClick=${() => change({ limits: {} })}>Clear limits</button>`}
        <span class="segments" role="radiogroup" aria-label="Horizontal axis">
          ${[["number", "by number"], ...(hasTime ? [["time", "by time"]] : [])].map(([name, words]) => html`<button key=${name} role="radio" aria-checked=${x === name ? "true" : "false"} onClick=${() => settings.set((old) => ({ ...old, x: name }))}>${words}</button>`)}
        </span>
        ${known.length > FIRST_SHOWN && html`<button aria-pressed=${isAll ? "true" : "false"} onClick=${() => settings.set((old) => ({ ...old, isAll: !isAll }))}>all ${known.length} plots</button>`}
      </div>
    </div>
    ${sorted && html`<div class="grid-plots">
      ${shown.map((column) => sorted[column.name] && html`<${LimitPlot} key=${column.name} name=${column.name} title=${column.title} unit=${column.unit} about=${column.about}
        x=${sorted.x} isTime=${x === "time" && hasTime} values=${sorted[column.name]} states=${sorted.state} limits=${now[column.name] ?? NO_LIMITS}
        isLocked=${!canWrite} onPreview=${ask(column.name)} onChange=${changeOne(column.name)} />`)}
    </div>`}
    ${canWrite && html`<p class="muted small hint">Drag a line from the upper or lower edge of a plot to limit what is accepted; drag it back to the edge, or press Delete on it, to take the limit away.</p>`}
  </section>`;
}

/** @type {[null, null]} */
const NO_LIMITS = [null, null];

/** Columns in the order of one of them, without fields where it is unknown. */
function inOrder(columns, by) {
  const order = columns[by].map((value, i) => [value, i]).filter(([value]) => value != null).sort((a, b) => a[0] - b[0]).map(([, i]) => i);
  const taken = Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, order.map((i) => values[i])]));
  return { ...taken, x: taken[by] };
}
