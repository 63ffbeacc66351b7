/** Why a person rejects micrographs: in their own words, or in those that are used most. */
import { html, useState } from "../lib/html.js";
import { Dialog } from "./dialog.js";

/** What the server says of a tick without a reason. */
export const NO_REASON = "ticked off by hand";
const REASONS = ["crystalline ice", "thick ice", "carbon", "crack", "empty hole", "drift", "contamination", "aggregates", "out of focus"];

/** Reasons that a field for them offers, by the id of the list. */
export const ReasonList = () => html`<datalist id="reasons">${REASONS.map((words) => html`<option key=${words} value=${words}></option>`)}</datalist>`;

/** @param {{title: string, about?: string, onSay: (reason: string) => void, onClose: () => void}} props */
export function ReasonDialog({ title, about, onSay, onClose }) {
  const [reason, setReason] = useState("");
  const say = (event) => {
    event.preventDefault();
    onClose();
    onSay(reason.trim());
  };
  return html`<${Dialog} title=${title} onClose=${onClose}><form class="stack" onSubmit=${say}>
    ${about && html`<p class="muted">${about}</p>`}
    <label class="field">Why (may be left empty)<input name="reason" maxlength="500" list="reasons" autofocus value=${reason} onInput=${(event) => setReason(event.currentTarget.value)} /></label>
    <${ReasonList} />
    <footer><button type="button" onClick=${onClose}>Cancel</button><button class="primary">Reject</button></footer>
  </form></${Dialog}>`;
}
