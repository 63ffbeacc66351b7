/** One job: state, parameters, log, failures, pictures; stopped and tried again from here. */
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { getJson, send, withQuery } from "../lib/api.js";
import { useEvents } from "../lib/events.js";
import { count, duration, measure, moment, shownUnit } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { goTo, linkTo } from "../lib/router.js";
import { copyText } from "./command_bar.js";
import { Loading, say, sayError } from "./messages.js";

export const JOB_STATES = { running: ["now", "running"], done: ["good", "done"], failed: ["bad", "failed"], stopped: ["warn", "stopped"] };

export function JobDetail({ id, canWrite }) {
  const seen = useJson(`api/jobs/${encodeURIComponent(id)}`, ["jobs", "overview"]);
  const [isBusy, setBusy] = useState(false);
  const job = seen.value;
  const act = async (what, words) => {
    setBusy(true);
    try {
      const answer = await send("POST", `api/jobs/${encodeURIComponent(id)}/${what}`);
      say(words);
      if (answer.job && answer.job !== id) goTo("jobs", [answer.job]);
      seen.reload();
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  if (!job) return html`<${Loading} remote=${seen} what="the job" />`;
  const [tone, words] = JOB_STATES[job.state] ?? ["none", job.state];
  return html`
    <section class="panel stack tight" aria-label="Job">
      <div class="row"><h2>${job.number ?? job.id} ${job.title}</h2><span class=${`chip ${tone}`} data-testid="job-state">${words}</span>${job.aliases?.map((alias) => html`<span class="chip name" key=${alias} title=${`Commands find this job as ${alias} in the folder of the project`}>${alias}</span>`)}
        ${canWrite && html`<span class="aside row push"><button title=${job.can_stop ? "Ask it to end; what is finished is kept" : "Only a job that was started here and is at work can be stopped from here"} disabled=${isBusy || !job.can_stop} onClick=${() => act("stop", "Asked to end; finished work is kept.")}>Stop</button>
          <button title="Start it again: it goes on where it was, and tries again what failed" disabled=${isBusy || !job.can_retry} onClick=${() => act("retry", "Started again.")}>Retry</button></span>`}</div>
      ${job.outdated && html`<p class="notice warn">Outdated: ${job.outdated}</p>`}
      ${job.error && html`<p class="notice bad" role="alert">${job.error}</p>`}
      <div class="row nowrap"><code class="command clip grow" title=${job.command}>${job.command?.replace(/^\S*\/(?=cryopick )/, "")}</code><button class="plain" onClick=${() => copyText(job.command)}>Copy</button></div>
      <p class="small muted">${[job.started && `begun ${moment(job.started)}`, job.seconds != null && `at work ${duration(job.seconds)}`, job.n_done != null && `${count(job.n_done)} done`, job.n_failed ? `${count(job.n_failed)} failed` : "", job.path].filter(Boolean).join(" · ")}</p>
      ${Object.keys(job.upstream ?? {}).length > 0 && html`<p class="small">Made from ${Object.entries(job.upstream).map(([name, number], i) => html`${i > 0 && ", "}<a href=${linkTo("jobs", [number])}>${name} (${number})</a>`)}</p>`}
    </section>
    ${job.pictures?.length > 0 && html`<section class="panel" aria-label="Pictures"><div class="pictures">${job.pictures.map((picture) => html`<a key=${picture.name} href=${picture.url} target="_blank" rel="noopener"><img src=${picture.url} alt=${picture.name} loading="lazy" /><span class="small">${picture.name}</span></a>`)}</div></section>`}
    ${job.failures?.length > 0 && html`<section class="panel" aria-label="Failed"><header><h2>Failed</h2></header><ul class="failures">${job.failures.map((failure) => html`<li key=${failure.name}><b>${failure.field ? html`<a href=${linkTo("micrograph", [failure.field])}>${failure.name}</a>` : failure.name}</b><span class="muted">${failure.reason}</span></li>`)}</ul></section>`}
    <div class="two">
      <${Table} title="Parameters" values=${job.parameters} units=${job.units} /><${Table} title="Result" values=${job.result?.facts ?? job.result} />
    </div>
    <${Log} id=${id} isRunning=${job.state === "running"} />`;
}

/** Of parameters that jobs of a run have, whatever their command. */
const LENS_UNITS = { voltage: "kV", spherical_aberration: "mm", pixel_size: "A/px", diameter: "A" };

/** A name as people say it: "n_picks" is the number of picks. */
const spoken = (name) => name.replace(/^n_/, "number of ").replaceAll("_", " ");

function Table({ title, values, units = {} }) {
  const entries = Object.entries(values ?? {}).filter(([, value]) => value !== null && JSON.stringify(value).length > 2 && !(typeof value === "object" && JSON.stringify(value).length > 200));
  if (!entries.length) return null;
  const words = (value) => (typeof value === "boolean" ? (value ? "yes" : "no") : typeof value === "number" ? (Number.isInteger(value) ? count(value) : measure(value, 6)) : typeof value === "object" ? JSON.stringify(value) : String(value));
  return html`<section class="panel" aria-label=${title}><header><h2>${title}</h2></header><dl class="facts">${entries.map(([name, value]) => html`<dt key=${name}>${spoken(name)}</dt><dd>${words(value)} ${shownUnit(units[name] ?? LENS_UNITS[name])}</dd>`)}</dl></section>`;
}

/** The log from its beginning, and what is added while somebody looks. */
function Log({ id, isRunning }) {
  const [text, setText] = useState("");
  const state = useRef({ next: 0, isBusy: false, isOver: false });
  const box = useRef(null);
  const more = async () => {
    if (state.current.isBusy || state.current.isOver) return;
    state.current.isBusy = true;
    try {
      const answer = await getJson(withQuery(`api/jobs/${encodeURIComponent(id)}/log`, { after: state.current.next }));
      if (answer.text) setText((now) => (now + answer.text).slice(-200000));
      const isMore = answer.next > state.current.next;
      state.current.next = answer.next;
      state.current.isBusy = false;
      if (isMore && !answer.is_whole) more();
    } catch (error) {
      state.current.isBusy = false;
      if (error.status === 404) state.current.isOver = true;
    }
  };
  useEffect(() => { more(); return () => { state.current.isOver = true; }; }, []);
  useEvents(["jobs", "overview", "reset"], more);
  useEffect(() => {
    if (!isRunning) { more(); return undefined; }
    const timer = setInterval(more, 2000);
    return () => clearInterval(timer);
  }, [isRunning]);
  useEffect(() => { if (box.current) box.current.scrollTop = box.current.scrollHeight; }, [text]);
  if (!text) return null;
  return html`<section class="panel" aria-label="Log"><header><h2>Log</h2></header><pre ref=${box} class="log" tabindex="0">${text}</pre></section>`;
}
