/** Counts, steps, what waits and what failed. */
import { html, useState } from "../lib/html.js";
import { count, duration, measure, plural } from "../lib/format.js";
import { linkTo } from "../lib/router.js";

const STATES = { running: ["now", "running"], idle: ["none", "idle"], halted: ["bad", "stopped"], empty: ["none", "empty"] };

/** @param {{label: string, value: any, note?: any}} props */
function Tile({ label, value, note }) {
  return html`<div class="tile"><dt>${label}</dt><dd>${value}</dd>${note && html`<dd class="note">${note}</dd>`}</div>`;
}

function rateNote(overview) {
  const { eta } = overview;
  if (!eta) return overview.state === "running" ? "no estimate yet" : "";
  const range = eta.low != null && eta.high != null ? ` (${duration(eta.low)} to ${duration(eta.high)})` : "";
  return `${duration(eta.seconds)} left${range}`;
}

export function Counts({ overview }) {
  const { counts, rate, state } = overview;
  const [tone, words] = STATES[state] ?? ["none", state];
  const share = counts.picks && counts.classes ? `${measure((100 * (counts.selected ?? 0)) / counts.picks, 2)} % of picks` : "";
  return html`<dl class="tiles" aria-label="Counts">
    <${Tile} label="State" value=${html`<span class=${`chip ${tone}`}>${words}</span>`} note=${rateNote(overview)} />
    <${Tile} label="Micrographs" value=${count(counts.fields)} note=${`${count(counts.with_ctf)} with CTF`} />
    <${Tile} label="Accepted" value=${html`<span data-testid="n-accepted">${count(counts.accepted)}</span>`} note=${`${count(counts.rejected)} rejected`} />
    <${Tile} label="Picks" value=${count(counts.picks)} note=${counts.picked ? `${measure(counts.picks / counts.picked, 3)} a micrograph` : ""} />
    <${Tile} label="Particles" value=${count(counts.particles)} note=${plural(counts.classes ?? 0, "class", "classes")} />
    <${Tile} label="Selected" value=${count(counts.selected)} note=${share} />
    <${Tile} label="Rate" value=${rate ? html`${count(rate.fields_per_hour)}<small> / h</small>` : "–"} note=${rate ? `over ${duration(rate.window_s)}` : "nothing is running"} />
    <${Tile} label="Failed" value=${count(counts.failed)} note=${counts.failed ? "reasons below" : "none"} />
  </dl>`;
}

const STEP_STATES = {
  done: ["good", "done"], running: ["now", "running"], failed: ["bad", "failed"], stopped: ["warn", "stopped"], waiting: ["none", "waiting"],
};

export function Steps({ overview }) {
  return html`<section class="panel" aria-label="Steps">
    <header><h2>Steps</h2><span class="aside small clip" title=${overview.holder}>${overview.holder}</span></header>
    <ol class="steps">
      ${overview.steps.map((step) => {
        const [tone, words] = STEP_STATES[step.state] ?? ["none", step.state];
        const waits = overview.waiting.find((sentence) => sentence.startsWith(`${step.title} waits `))?.slice(step.title.length + 1);
        const sentence = step.sentence || waits || "";
        const share = step.n_all ? Math.round((100 * step.n_done) / step.n_all) : null;
        return html`<li key=${step.name}>
          <span class=${`chip ${tone}`}>${words}</span>
          <span class="what">${step.job ? html`<a href=${linkTo("jobs", [step.job])}>${step.title}</a>` : step.title}
            ${step.outdated && html`<span class="chip warn" title=${step.outdated}>outdated</span>`}</span>
          <span class="small muted clip" title=${sentence}>${sentence}</span>
          <span class="small muted far">${step.state === "running" && share != null ? html`<progress max="100" value=${share} aria-label=${step.title}></progress> ${share} %` : step.seconds ? duration(step.seconds) : ""}</span>
        </li>`;
      })}
    </ol>
  </section>`;
}

export function Failures({ overview }) {
  const [isAll, setAll] = useState(false);
  // What stopped the run is told above.
  const failures = overview.failures.filter(({ field, job }) => field || job !== overview.halted?.job);
  const total = overview.n_failures - (overview.failures.length - failures.length);
  if (total <= 0) return null;
  const shown = [...failures].reverse().slice(0, isAll ? 500 : 6);
  return html`<section class="panel" aria-label="Failed">
    <header><h2>Failed</h2><span class="aside small">${count(total)}</span></header>
    <ul class="failures">${shown.map((failure) => html`<li key=${`${failure.job}-${failure.name}`}>
      <span class="chip bad">${failure.step}</span>
      <span>${failure.field ? html`<a href=${linkTo("micrograph", [failure.field])}>${failure.name}</a>` : failure.name}</span>
      <span class="muted">${failure.reason}</span></li>`)}</ul>
    ${total > shown.length && html`<button class="plain" onClick=${() => setAll(true)}>All ${count(Math.min(total, 500))}</button>`}
  </section>`;
}
