/** Panels beside the picture: contrast, and the tools for picks. */
import { html, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { thresholds, changeView } from "../lib/view_settings.js";
import { TOOLS } from "../viewer/edit_tools.js";
import { Dialog } from "./dialog.js";
import { say, sayError } from "./messages.js";

const VIEWS = [["raw", "Raw"], ["low_pass", "Low-pass"], ["denoised", "Denoised"]];

export function ContrastPanel({ settings, pixelSize }) {
  const slide = (name) => (event) => changeView({ [name]: event.currentTarget.valueAsNumber });
  return html`<section class="panel" aria-label="Image">
    <div class="row spread">
      <span class="segments" role="radiogroup" aria-label="View">${VIEWS.map(([name, words]) => html`<button key=${name} role="radio" aria-checked=${settings.view === name ? "true" : "false"} onClick=${() => changeView({ view: name })}>${words}</button>`)}</span>
      <button aria-pressed=${settings.inverted ? "true" : "false"} title="Invert contrast (i)" onClick=${() => changeView({ inverted: !settings.inverted })}>Invert</button>
    </div>
    <div class="slider-grid">
      <label for="black">Black</label><input id="black" type="range" min="0" max="40" step="0.1" value=${settings.low} onInput=${slide("low")} /><output>${settings.low.toFixed(1)} %</output>
      <label for="white">White</label><input id="white" type="range" min="60" max="100" step="0.1" value=${settings.high} onInput=${slide("high")} /><output>${settings.high.toFixed(1)} %</output>
      ${settings.view === "low_pass" && html`<label for="low-pass">Filter</label><input id="low-pass" type="range" min=${Math.ceil(2 * pixelSize)} max="60" step="1" value=${settings.lowPass} onChange=${slide("lowPass")} /><output>${settings.lowPass} Å</output>`}
    </div>
  </section>`;
}

export function EditPanel({ set, toolName, onTool, onUndo, onRedo }) {
  const [isSaving, setSaving] = useState(false);
  return html`<section class="panel" aria-label="Edit picks">
    <div class="row spread">
      <span class="segments" role="radiogroup" aria-label="Tool">${TOOLS.map(([name, key, title, words]) => html`<button key=${name} role="radio" aria-checked=${toolName === name ? "true" : "false"} title=${`${words} (${key})`} onClick=${() => onTool(name)}>${title}</button>`)}</span>
      <span class="segments"><button aria-label="Undo" title="Undo (Ctrl+Z)" onClick=${onUndo}>↶</button><button aria-label="Redo" title="Redo (Ctrl+Shift+Z)" onClick=${onRedo}>↷</button></span>
    </div>
    <div class="row spread tools-note">
      <span class="small muted">${TOOLS.find(([name]) => name === toolName)[3]}</span>
      <button onClick=${() => setSaving(true)}>Save picks …</button>
    </div>
    ${isSaving && html`<${SavePicks} set=${set} onClose=${() => setSaving(false)} />`}
  </section>`;
}

/** Picks with the threshold and the edits of people, as every command takes them. */
function SavePicks({ set, onClose }) {
  const [isBusy, setBusy] = useState(false);
  const threshold = thresholds.get()[set.id] ?? null;
  const save = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    try {
      const answer = await send("POST", `api/sets/${set.id}/save`, {
        name: form.get("name"), ...(threshold == null ? {} : { threshold }), only_edited: form.has("only_edited"), only_accepted: form.has("only_accepted"),
      });
      say(`${plural(answer.n_picks, "pick")} of ${plural(answer.n_fields, "micrograph")} in ${answer.path}.`);
      onClose();
    } catch (error) {
      sayError(error);
      setBusy(false);
    }
  };
  return html`<${Dialog} title="Save picks" onClose=${onClose}>
    <form class="stack" onSubmit=${save}>
      <p class="muted">Picks of “${set.name}” ${threshold == null ? "above the threshold of the job" : `with a score of at least ${Number(threshold.toPrecision(4))}`}, with all edits. Extraction and training take the folder as it is.</p>
      <label class="field">Name<input name="name" required pattern="[A-Za-z0-9_\\-]{1,64}" defaultValue="by_hand" autofocus /></label>
      <label><input type="checkbox" name="only_accepted" defaultChecked /> of accepted micrographs only</label>
      <label><input type="checkbox" name="only_edited" /> of edited micrographs only, to train with</label>
      <footer><button type="button" onClick=${onClose}>Cancel</button><button class="primary" disabled=${isBusy}>Save</button></footer>
    </form>
  </${Dialog}>`;
}
