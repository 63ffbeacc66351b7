/** Selections of classes: saved under a name, taken up again, and used. */
import { html, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { count, plural } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { goTo } from "../lib/router.js";
import { asRanges } from "../lib/selection.js";
import { Dialog } from "./dialog.js";
import { say, sayError } from "./messages.js";

/** What people do with classes: words, the form of the command, and its input that they go to. */
const USES = [
  ["Train the picker with these", "pick-train", "labels", "A network learns from the particles of these classes"],
  ["Use as templates", "pick-template", "templates", "Micrographs are searched for these averages"],
  ["Extract these", "extract", "picks", "The particles of these classes are cut out again, in another box or at another scale"],
];

export function SelectionPanel({ classification, marked, canWrite, onLoad }) {
  const list = useJson("api/selections", ["selections", "jobs"]);
  const [isSaving, setSaving] = useState(/** @type {null | string[]} one of USES, or empty */ (null));
  const mine = (list.value?.selections ?? []).filter((one) => one.classification === classification.id);
  const classes = asRanges(marked);
  const saved = mine.find((one) => one.kind === "saved" && asRanges(one.classes) === classes);

  const use = ([, command, input], name) => goTo("jobs", ["new", command], { [input]: `s:${name}` });
  const start = (one) => (saved ? use(one, saved.name) : setSaving(one));
  return html`<section class="panel stack tight" aria-label="Selection">
    <header><h2>Selection</h2><span class="aside mono small clip" title=${classes}>${classes || "nothing selected"}</span></header>
    ${canWrite && html`<div class="stack tight">
      <button class="primary" disabled=${!marked.size} onClick=${() => setSaving([])}>Save selection …</button>
      ${USES.map((one) => html`<button key=${one[1]} disabled=${!marked.size} title=${one[3]} onClick=${() => start(one)}>${one[0]} …</button>`)}</div>`}
    ${mine.length > 0 && html`<details open><summary>Saved (${mine.length})</summary>
      <ul class="plain-list">${mine.map((one) => html`<li key=${`${one.kind}-${one.name}`} class="row spread nowrap">
        <button class="plain clip" title=${`Select classes ${asRanges(one.classes)}`} onClick=${() => onLoad(one.classes)}>${one.name}</button>
        <span class="small muted">${plural(one.classes.length, "class", "classes")}, ${count(one.n_particles)}</span></li>`)}</ul></details>`}
    ${isSaving !== null && html`<${SaveSelection} classification=${classification} classes=${[...marked].sort((a, b) => a - b)} onClose=${() => setSaving(null)}
      onSaved=${(name) => { list.reload(); if (isSaving.length) use(isSaving, name); }} words=${isSaving[0]} />`}
  </section>`;
}

function SaveSelection({ classification, classes, onClose, onSaved, words }) {
  const [isBusy, setBusy] = useState(false);
  const [isTaken, setTaken] = useState(false);
  const save = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    try {
      const name = String(form.get("name"));
      const answer = await send("PUT", `api/selections/${encodeURIComponent(name)}`, {
        classification: classification.id, classes, recenter: form.has("recenter"), overwrite: form.has("overwrite"),
      });
      say(`${plural(answer.n_classes, "class", "classes")} with ${plural(answer.n_particles, "particle")} in ${answer.path}.`);
      onClose();
      onSaved(name);
    } catch (error) {
      setTaken(error.status === 409);
      sayError(error);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${words ? `Save the selection: ${words.toLowerCase()}` : "Save selection"} onClose=${onClose}>
    <form class="stack" onSubmit=${save}>
      <p class="muted">${plural(classes.length, "class", "classes")} of “${classification.name}”. A table of exactly their particles is written into the project.</p>
      <label class="field">Name<input name="name" required pattern="[A-Za-z0-9_\\-]{1,64}" defaultValue="good" autofocus /></label>
      <label><input type="checkbox" name="recenter" /> centre the averages</label>
      ${isTaken && html`<label><input type="checkbox" name="overwrite" /> replace the selection of this name</label>`}
      <footer><button type="button" onClick=${onClose}>Cancel</button><button class="primary" disabled=${isBusy}>${isBusy ? "Saving …" : words ? "Save and go on" : "Save"}</button></footer>
    </form>
  </${Dialog}>`;
}
