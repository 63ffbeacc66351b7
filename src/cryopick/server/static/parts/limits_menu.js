/** Limits that somebody saved under a name, and those of before, to be taken up again. */
import { html, useState } from "../lib/html.js";
import { measure, moment } from "../lib/format.js";
import { Dialog } from "./dialog.js";

const EARLIER = 8;

/** Limits in words: "CTF resolution to 6 Å, Picks from 20". */
function inWords(limits, columns) {
  const parts = Object.entries(limits).map(([name, [low, high]]) => {
    const column = columns.find((one) => one.name === name);
    const ends = [low == null ? "" : `from ${measure(low)}`, high == null ? "" : `to ${measure(high)}`].filter(Boolean).join(" ");
    return `${column?.title ?? name} ${ends} ${column?.unit ?? ""}`.trim();
  });
  return parts.join(", ") || "no limits";
}

/** Settings of before, the last first, each once and without the one that holds. */
function earlier(history, now) {
  const seen = new Set([JSON.stringify(now)]);
  return [...history].reverse().filter(({ limits }) => {
    const text = JSON.stringify(limits);
    return !seen.has(text) && seen.add(text);
  }).slice(0, EARLIER);
}

/**
 * @param {{said: any, columns: any[], onUse: (body: object) => void, onSave: (name: string) => Promise<void>}} props
 *   `said` is the answer of api/limits
 */
export function LimitsMenu({ said, columns, onUse, onSave }) {
  const [isSaving, setSaving] = useState(false);
  const now = said?.limits ?? {};
  const named = said?.named ?? [];
  const before = earlier(said?.history ?? [], now);
  const taken = named.find((one) => JSON.stringify(one.limits) === JSON.stringify(now));
  const choose = (event) => {
    const [kind, value] = event.currentTarget.value.split(/:(.*)/s);
    if (kind === "named") onUse({ use: value });
    else if (kind === "before") onUse({ limits: before[Number(value)].limits });
  };
  return html`
    ${(named.length > 0 || before.length > 0) && html`<select class="limits-menu" aria-label="Saved and earlier limits" title="Take up limits that were saved, or those of before" value=${taken ? `named:${taken.name}` : ""} onChange=${choose}>
      <option value="">${Object.keys(now).length ? "limits as they are" : "no limits"}</option>
      ${named.length > 0 && html`<optgroup label="Saved">${named.map((one) => html`<option key=${one.name} value=${`named:${one.name}`}>${one.name}: ${inWords(one.limits, columns)}</option>`)}</optgroup>`}
      ${before.length > 0 && html`<optgroup label="Before">${before.map((one, i) => html`<option key=${one.when} value=${`before:${i}`}>${moment(one.when)}: ${inWords(one.limits, columns)}</option>`)}</optgroup>`}
    </select>`}
    <button disabled=${!Object.keys(now).length} title="Keep these limits under a name, for this project" onClick=${() => setSaving(true)}>Save limits …</button>
    ${isSaving && html`<${SaveLimits} words=${inWords(now, columns)} names=${named.map((one) => one.name)} onSave=${onSave} onClose=${() => setSaving(false)} />`}`;
}

function SaveLimits({ words, names, onSave, onClose }) {
  const [name, setName] = useState("");
  const save = async (event) => {
    event.preventDefault();
    await onSave(name);
    onClose();
  };
  return html`<${Dialog} title="Save limits" onClose=${onClose}><form class="stack" onSubmit=${save}>
    <p class="muted">${words}.</p>
    <label class="field">Name<input name="name" required pattern="[A-Za-z0-9_][A-Za-z0-9_\\-]{0,63}" title="Letters, digits, _ and -" autofocus value=${name} onInput=${(event) => setName(event.currentTarget.value)} /></label>
    ${names.includes(name) && html`<p class="small">There are limits of this name; these take their place.</p>`}
    <footer><button type="button" onClick=${onClose}>Cancel</button><button class="primary">Save</button></footer>
  </form></${Dialog}>`;
}
