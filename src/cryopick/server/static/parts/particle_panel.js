/** Average and deviation of particles, and saving some of them. */
import { html, useState } from "../lib/html.js";
import { ask, send } from "../lib/api.js";
import { count, plural } from "../lib/format.js";
import { say, sayError } from "./messages.js";

export function ParticlePanel({ table, listed, nMarked, ofClass, canWrite }) {
  const [made, setMade] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const [isAligned, setAligned] = useState(true);
  const path = `api/particles/${encodeURIComponent(table.id)}`;
  const average = async (rows) => {
    setBusy(true);
    try {
      setMade(await ask(`${path}/average`, { rows, aligned: isAligned, ...(ofClass == null || rows === listed ? {} : { class: ofClass }) }));
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  const save = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    try {
      const rows = form.get("rows") === "selected" ? listed : form.get("rows");
      const answer = await send("POST", `${path}/save`, { name: form.get("name"), rows, xmd: form.has("xmd"), overwrite: form.has("overwrite") });
      say(`${plural(answer.n, "particle")} in ${answer.path}: ${answer.files.join(", ")}.`);
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  return html`
    <section class="panel stack tight" aria-label="Average">
      <header><h2>Average and deviation</h2></header>
      <div class="row"><button disabled=${isBusy || !nMarked} onClick=${() => average(listed)}>of ${nMarked ? count(nMarked) : "the"} selected</button>
        <button disabled=${isBusy} onClick=${() => average("enabled")}>${isBusy ? "reading …" : "of all enabled"}${ofClass == null ? "" : ` in class ${ofClass}`}</button></div>
      <label><input type="checkbox" checked=${isAligned} onChange=${(event) => setAligned(event.currentTarget.checked)} /> aligned by angle and shift</label>
      ${made && html`<div class="pair"><figure><img src=${made.mean} alt="Average" /><figcaption class="small muted">average</figcaption></figure><figure><img src=${made.deviation} alt="Standard deviation" /><figcaption class="small muted">standard deviation</figcaption></figure></div>
        <p class="small muted" data-testid="average-of">${plural(made.n, "particle")}${made.n_used !== made.n ? `, ${count(made.n_used)} of them read` : ""}</p>`}
    </section>
    ${canWrite && html`<section class="panel" aria-label="Save">
      <header><h2>Save a subset</h2></header>
      <form class="stack tight" onSubmit=${save}>
        <label class="field">Name<input name="name" required pattern="[A-Za-z0-9_\\-]{1,64}" defaultValue="subset" /></label>
        <label class="field">Particles<select name="rows"><option value="enabled">enabled</option><option value="disabled">disabled</option><option value="selected" disabled=${!nMarked}>selected</option></select></label>
        <label><input type="checkbox" name="xmd" /> also as .xmd, for Xmipp</label>
        <label><input type="checkbox" name="overwrite" /> replace one of this name</label>
        <button class="primary" disabled=${isBusy}>Save</button>
      </form></section>`}`;
}
