/** Overview: how the project stands, its fields over time with limits, and the table of all fields. */
import { html } from "../lib/html.js";
import { useJson } from "../lib/remote.js";
import { useKeys } from "../lib/keyboard.js";
import { goTo, linkTo } from "../lib/router.js";
import { Loading } from "../parts/messages.js";
import { Counts, Failures, Steps } from "../parts/standing.js";
import { FieldPlots } from "../parts/field_plots.js";
import { FieldTable } from "../parts/field_table.js";
import { FirstSteps } from "../parts/first_steps.js";
import { SessionPanel } from "../parts/session_panel.js";

export default function Overview() {
  const overview = useJson("api/overview", ["overview", "fields", "jobs", "limits", "session", "gone"]);
  const columns = useJson("api/fields/columns", ["fields"]);
  useKeys("Overview", [["o", "open the first micrograph", () => goTo("micrograph", ["first"])]]);
  const seen = overview.value;
  const isFresh = seen?.counts.fields === 0 && seen.state === "empty" && !seen.session;
  return html`<main id="page" tabindex="-1">
    <h1 class="visually-hidden">Overview</h1>
    <${Loading} remote=${overview} what="the project" />
    ${seen && html`<div class="stack">
      ${seen.halted && html`<p class="notice bad" role="alert"><b>${seen.halted.title} has stopped.</b> ${seen.halted.error} <a href=${linkTo("jobs", [seen.halted.job])}>Show the job</a></p>`}
      <${Counts} overview=${seen} />
      ${isFresh && html`<${FirstSteps} />`}
      <div class="standing">
        ${seen.steps.length > 0 && html`<${Steps} overview=${seen} />`}
        ${seen.session && html`<${SessionPanel} session=${seen.session} now=${seen.now} />`}
        <${Failures} overview=${seen} />
      </div>
      ${columns.value && seen.counts.fields > 0 && html`<${FieldPlots} columns=${columns.value.columns} />
        <${FieldTable} columns=${columns.value.columns} />`}
    </div>`}
  </main>`;
}
