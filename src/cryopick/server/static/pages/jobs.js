/** Jobs: what was done and is being done, its log, new jobs, and what a change would do again. */
import { html } from "../lib/html.js";
import { count, duration, moment } from "../lib/format.js";
import { useKeys } from "../lib/keyboard.js";
import { useJson } from "../lib/remote.js";
import { goTo, linkTo, place } from "../lib/router.js";
import { useCanWrite } from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { JOB_STATES, JobDetail } from "../parts/job_detail.js";
import { Empty, Loading } from "../parts/messages.js";
import { NewJob } from "../parts/new_job.js";
import { Plan } from "../parts/plan.js";

export default function Jobs() {
  const { parts } = useStore(place);
  const canWrite = useCanWrite();
  const list = useJson("api/jobs", ["jobs", "overview"]);
  const jobs = [...(list.value?.jobs ?? [])].reverse();
  const [chosen, command] = parts;
  const at = jobs.findIndex((job) => job.id === chosen);
  const go = (i) => jobs[i] && goTo("jobs", [jobs[i].id]);
  useKeys("Jobs", [
    ["ArrowDown", "next job", () => go(at + 1)], ["ArrowUp", "previous job", () => go(Math.max(0, at - 1))],
    ...(canWrite ? [["n", "new job", () => goTo("jobs", ["new"])], ["c", "what a change would do again", () => goTo("jobs", ["plan"])]] : []),
  ]);
  return html`<main id="page" class="fills" tabindex="-1">
    <div class="page-head"><h1>Jobs</h1><span class="muted small clip">${list.value?.holder}</span>
      <div class="aside">${canWrite && html`<a class="button" href=${linkTo("jobs", ["plan"])} aria-current=${chosen === "plan" ? "page" : null}>What would change …</a>
        <a class="button" href=${linkTo("jobs", ["new"])} aria-current=${chosen === "new" ? "page" : null}>New job …</a>`}</div></div>
    <${Loading} remote=${list} what="jobs" />
    ${list.value && html`<div class="columns list-left jobs">
      <nav class="panel flush scroll" aria-label="Jobs"><ol class="job-list">${jobs.map((job) => html`<${Line} key=${job.id} job=${job} isChosen=${job.id === chosen} />`)}</ol>
        ${!jobs.length && html`<p class="empty">No job yet.</p>`}</nav>
      <div class="scroll stack">
        ${chosen === "new" ? html`<${NewJob} command=${command ?? null} />` : chosen === "plan" ? html`<${Plan} />`
    : chosen ? html`<${JobDetail} key=${chosen} id=${chosen} canWrite=${canWrite} />` : html`<${Empty} title="Choose a job">Its parameters, log and results are shown here.</${Empty}>`}
      </div>
    </div>`}
  </main>`;
}

function Line({ job, isChosen }) {
  const [tone, words] = JOB_STATES[job.state] ?? ["none", job.state];
  return html`<li><a href=${linkTo("jobs", [job.id])} aria-current=${isChosen ? "true" : null}>
    <span class="row spread nowrap"><b class="clip"><span class="muted">${job.number ?? job.id}</span> ${job.title}</b><span class=${`chip ${tone}`}>${words}</span></span>
    <span class="row spread nowrap small muted"><span class="clip">${job.aliases?.join(", ") || job.step}${job.outdated ? " · outdated" : ""}</span><span>${[job.n_done ? `${count(job.n_done)} done` : "", job.n_failed ? `${count(job.n_failed)} failed` : "", job.seconds != null ? duration(job.seconds) : moment(job.started)].filter(Boolean).join(" · ")}</span></span>
  </a></li>`;
}
