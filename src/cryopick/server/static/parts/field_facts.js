/** What is known of one field, and what a person says of it. */
import { html } from "../lib/html.js";
import { count, measure, moment } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { DraftInput } from "./draft_input.js";
import { NO_REASON, ReasonList } from "./reason_dialog.js";

const HIDDEN = new Set(["number", "name", "state", "reason", "tick", "error"]);

export function FieldFacts({ field, onTick, onReason, why }) {
  const columns = useJson("api/fields/columns");
  const known = (columns.value?.columns ?? []).filter(({ name }) => !HIDDEN.has(name) && field.values[name] != null);
  const shown = (column) => {
    const value = field.values[column.name];
    if (column.name === "time") return moment(value);
    if (column.name === "ctf_trusted") return value ? "yes" : "no";
    if (column.kind !== "number") return value;
    return `${column.digits === 0 ? count(value) : measure(value)}${column.unit === "°" ? "" : " "}${column.unit ?? ""}`;
  };
  return html`<section class="panel" aria-label="This micrograph">
    ${onTick && html`<div class="row spread ticking"><span class="segments" role="group" aria-label="Tick">
      <button aria-pressed=${field.tick === "accepted" ? "true" : "false"} title="Accept whatever the limits say (a)" onClick=${() => onTick("accepted")}>✓ Accept</button>
      <button aria-pressed=${field.tick === "rejected" ? "true" : "false"} title="Reject whatever the limits say (x)" onClick=${() => onTick("rejected")}>✕ Reject</button></span></div>
      ${field.tick === "rejected" && html`<label class="field why">Why<${DraftInput} inputRef=${why} maxlength="500" list="reasons" placeholder="in your words" value=${field.reason === NO_REASON ? "" : field.reason} onCommit=${(text) => onReason(text.trim())} /></label><${ReasonList} />`}`}
    ${field.reason && !(onTick && field.tick === "rejected") && html`<p class="small">${field.reason}</p>`}
    <dl class="facts">
      ${field.width && html`<dt>Size</dt><dd>${field.width} × ${field.height} px</dd><dt>Pixel size</dt><dd>${measure(field.pixel_size)} Å/px</dd>`}
      ${known.map((column) => html`<dt key=${column.name} title=${column.about}>${column.title}</dt><dd>${shown(column)}</dd>`)}
    </dl>
    ${field.values.error && html`<p class="notice bad">${field.values.error}</p>`}
  </section>`;
}
