/** A session beside the microscope: where it stands, how quick it is, and what it is told to do. */
import { html, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { tell } from "../lib/events.js";
import { baseName, count, duration, measure, plural } from "../lib/format.js";
import { linkTo } from "../lib/router.js";
import { useCanWrite } from "../lib/session.js";
import { say, sayError } from "./messages.js";

const STATES = {
  watching: ["now", "watching"], paused: ["warn", "paused"], closing: ["now", "last pass"],
  stopped: ["none", "stopped"], finished: ["good", "finished"], failed: ["bad", "failed"], lost: ["bad", "not at work"],
};
/** Without a word for so long a session is gone, s; it says something every 5 s. */
const SILENCE = 30;
const LISTED = 5;

const ACTS = {
  pause: ["Pause", "Begin no new work; new micrographs are still taken", "It pauses after what is in hand."],
  resume: ["Resume", "Go on with what waits", "It goes on."],
  retry: ["Try failed again", "Work once more on micrographs that were refused, and steps that broke", "What failed is tried again."],
  finish: ["Finish", "Do what waits and the last pass, as run does, then end", "It does what waits, then the last pass."],
  stop: ["Stop", "End now; what is finished is kept, and it can be started again", "It ends; what is finished is kept."],
  start: ["Start again", "Watch for micrographs again, with the same parameters", "It is being started."],
};
const OFFERED = { watching: ["pause", "finish", "stop"], paused: ["resume", "finish", "stop"], closing: ["stop"] };

/** @param {any} session what status.json says @param {string} now time of the server */
export function sessionState(session, now) {
  const isOver = ["stopped", "failed"].includes(session.state);
  if (!isOver && Date.parse(now) / 1000 - session.written > SILENCE) return "lost";
  return session.state === "stopped" && session.is_finished ? "finished" : session.state;
}

function pickerOf({ picker, picker_job: job, training }) {
  if (picker === "trained") return html`trained on this project${job == null ? "" : html` (<a href=${linkTo("jobs", [job])}>job ${job}</a>)`}`;
  const words = { waiting: `; it learns from the first ${count(training?.subset)} micrographs`, running: "; it is learning now", failed: `; learning failed: ${training?.error}` };
  return `${picker ?? "–"} model${words[training?.state] ?? ""}`;
}

function factsOf(session) {
  const { source = {}, counts = {}, rates = {}, latency = {}, eta, classes } = session;
  const hours = (rates.window ?? 0) / 3600;
  return [
    ["Watches", (source.inputs ?? []).join(", ") || "what is added by hand"],
    source.settling ? ["Being written", plural(source.settling, "file")] : null,
    ["Waiting", counts.waiting ? plural(counts.waiting, "micrograph") : "nothing"],
    rates.picked ? ["Speed", `${count(rates.picked)} micrographs / h in the last ${hours < 1 ? duration(rates.window) : `${measure(hours)} h`}`] : null,
    counts.waiting && eta?.seconds ? ["Time left", `${duration(eta.seconds)}${eta.low == null ? "" : ` (${duration(eta.low)} to ${duration(eta.high)})`}`] : null,
    latency.n ? ["From file to picks", `${measure(latency.median)} s, nine of ten within ${measure(latency.p90)} s`] : null,
    ["Picker", pickerOf(session)],
    ["Live classes", classes ? html`<a href=${linkTo("classes", classes.job == null ? [] : [classes.job])}>${plural(classes.n_classes, "class", "classes")} of ${plural(classes.n_particles, "particle")}</a>${classes.n_good == null ? "" : `, ${count(classes.n_good)} good`}, round ${classes.round}` : "not yet"],
  ].filter(Boolean);
}

/** @param {{session: any, now: string}} props */
export function SessionPanel({ session, now }) {
  const canWrite = useCanWrite();
  const [isBusy, setBusy] = useState(false);
  const state = sessionState(session, now);
  const [tone, words] = STATES[state] ?? ["none", state];
  const isAtWork = state in OFFERED;
  const acts = [...(isAtWork && session.counts?.failed ? ["retry"] : []), ...(OFFERED[state] ?? ["start"])];
  const act = async (what) => {
    setBusy(true);
    try {
      await send("POST", "api/session", { do: what });
      say(ACTS[what][2]);
      tell("session", null);
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  return html`<section class="panel session" aria-label="Session">
    <header><h2>Session</h2><span class=${`chip ${tone}`} data-testid="session-state">${words}</span>
      ${canWrite && html`<span class="aside row" role="group" aria-label="Tell the session">${acts.map((what) => html`<button key=${what} disabled=${isBusy} title=${ACTS[what][1]} onClick=${() => act(what)}>${ACTS[what][0]}</button>`)}</span>`}</header>
    <p>${state === "lost" ? "It was killed, or its machine is gone: nothing has been said for a while. Nothing that was finished is lost." : session.sentence}</p>
    ${session.error && html`<p class="notice bad" role="alert">${session.error}</p>`}
    ${session.source?.trouble && html`<p class="notice warn">${session.source.trouble}</p>`}
    <dl class="facts left">${factsOf(session).map(([name, value]) => html`<dt key=${name}>${name}</dt><dd>${value}</dd>`)}</dl>
    ${isAtWork && session.waits?.length > 0 && html`<h3 class="section-head">Waiting</h3><ul class="plain-list small">${session.waits.slice(0, LISTED).map((one) => html`<li key=${one.name}><span title=${one.name}>${baseName(one.name)}</span> <span class="muted">${one.why}</span></li>`)}
      ${session.waits.length > LISTED && html`<li class="muted">and ${count(session.waits.length - LISTED)} more</li>`}</ul>`}
  </section>`;
}
