/** One class: its average, what is known of it, and where its members lie. */
import { html } from "../lib/html.js";
import { baseName, count, measure, plural } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { linkTo } from "../lib/router.js";
import { AtlasTile } from "./atlas_tile.js";

const SHOWN = 12;

function shownValue(column, value) {
  if (value == null) return "–";
  if (column.name === "share") return `${measure(100 * value, 2)} %`;
  return `${column.digits === 0 ? count(value) : measure(value)}${column.unit === "°" ? "" : " "}${column.unit ?? ""}`;
}

export function ClassPanel({ classification, data, number, at, columns }) {
  const members = useJson(`api/classifications/${classification.id}/classes/${number}`);
  const tables = useJson("api/particles", ["jobs"]);
  const particles = (tables.value?.tables ?? []).find((one) => one.kind === "classes" && one.id.split(":").pop() === classification.id.split(":").pop()) ?? (tables.value?.tables ?? []).find((one) => one.kind === "classes");
  const why = data.classes.reasons?.[at];
  return html`<section class="panel" aria-label=${`Class ${number}`}>
    <header><h2>Class ${number}</h2><span class="aside">${particles && html`<a href=${linkTo("particles", [particles.id], { class: number })}>particles</a>`}</span></header>
    <div class="class-detail"><${AtlasTile} atlas=${data.atlas} index=${number - 1} size=${100} label=${`Average of class ${number}`} />
      <dl class="facts">${columns.filter(({ name }) => name !== "number").slice(0, 8).map((column) => html`<dt key=${column.name} title=${column.about}>${column.title}</dt><dd>${shownValue(column, data.classes[column.name][at])}</dd>`)}</dl></div>
    ${why && html`<p class="small reasons" title="What was found of the class; in brackets what that did to its score, the strongest first"><b>Score:</b> ${why}</p>`}
    ${members.value && html`<h3 class="section-head">${members.value.n_fields ? `Where its members lie: ${plural(members.value.n_fields, "micrograph")}` : "The table does not say in which micrographs its members lie."}</h3>
      <ul class="bars">${members.value.fields.slice(0, SHOWN).map((field) => html`<li key=${field.field}>
        <a class="clip" title=${field.name} href=${linkTo("micrograph", [field.field], { classification: classification.id, classes: number })}>${baseName(field.name)}</a>
        <meter min="0" max=${members.value.fields[0].n} value=${field.n} aria-label=${`members in ${field.name}`}></meter><span>${count(field.n)}</span></li>`)}</ul>
      ${members.value.n_fields > SHOWN && html`<p class="small muted">and ${count(members.value.n_fields - SHOWN)} more</p>`}`}
  </section>`;
}
