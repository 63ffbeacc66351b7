/** A command chosen from a list, its form, and its command line while it is filled in. */
import { html, useEffect, useLayoutEffect, useState } from "../lib/html.js";
import { ask, send } from "../lib/api.js";
import { useJson } from "../lib/remote.js";
import { goTo, place } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { copyText } from "./command_bar.js";
import { Loading, say, sayError } from "./messages.js";
import { SchemaForm } from "./schema_form.js";

export function NewJob({ command }) {
  const forms = useJson("api/forms");
  const list = (forms.value?.forms ?? []).filter((form) => form.starts !== false);
  const chosen = command?.replaceAll("-", " ") ?? "";
  const nameOf = (form) => form.command.replaceAll(" ", "-");
  return html`
    <section class="panel" aria-label="Command"><${Loading} remote=${forms} what="commands" />
      <ul class="command-cards">${list.map((form) => html`<li key=${form.command}><a class=${form.command === chosen || nameOf(form) === command ? "chosen" : ""} aria-current=${nameOf(form) === command ? "true" : null} href=${`#/jobs/new/${nameOf(form)}`}><b>${form.title ?? form.command}</b><span class="small muted">${form.about}</span></a></li>`)}</ul></section>
    ${command && html`<${Form} key=${command} command=${command} />`}`;
}

/** What the address names, if the project has it; else what the command must have, from what was made last. */
function chosenInput({ choices, required }, asked) {
  return choices.some((choice) => choice.value === asked) ? asked : required === false ? "" : choices[0].value;
}

function Form({ command }) {
  const form = useJson(`api/forms/${command}`);
  const [inputs, setInputs] = useState({});
  const [values, setValues] = useState({});
  const [only, setOnly] = useState("");
  const [preview, setPreview] = useState({ command: "", error: "" });
  const [isBusy, setBusy] = useState(false);
  const seen = form.value;
  const { query } = useStore(place);
  useLayoutEffect(() => { // before anybody can choose another
    if (seen) setInputs(Object.fromEntries((seen.inputs ?? []).filter((input) => input.choices?.length).map((input) => [input.name, chosenInput(input, query[input.name])])));
  }, [seen]);
  const body = seen && { command: seen.command, inputs, parameters: { ...seen.values, ...values } };
  useEffect(() => {
    if (!body) return undefined;
    const control = new AbortController();
    const timer = setTimeout(() => ask("api/jobs/preview", body, control.signal).then(
      setPreview,
      (error) => error.name !== "AbortError" && setPreview((now) => ({ ...now, error: error.message })),
    ), 250);
    return () => { clearTimeout(timer); control.abort(); };
  }, [seen, inputs, values]);
  const start = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const answer = await send("POST", "api/jobs", body);
      say("Started.");
      goTo("jobs", [answer.job]);
    } catch (error) {
      sayError(error);
      setBusy(false);
    }
  };
  if (!seen) return html`<${Loading} remote=${form} what="the form" />`;
  const nChanged = Object.keys(values).length;
  return html`<form class="panel stack" aria-label=${seen.title ?? seen.command} onSubmit=${start}>
    ${(seen.inputs ?? []).length > 0 && html`<fieldset class="form-group"><legend>Input</legend>${seen.inputs.map((input) => html`<div class="form-row" key=${input.name}><label for=${`i-${input.name}`}>${input.title ?? input.name}</label>
      <span class="control"><select id=${`i-${input.name}`} value=${inputs[input.name] ?? ""} onChange=${(event) => setInputs((now) => ({ ...now, [input.name]: event.currentTarget.value }))}>${input.required === false && html`<option value="">as shipped</option>`}${(input.choices ?? []).map((choice) => html`<option key=${choice.value} value=${choice.value}>${choice.title}</option>`)}</select></span><span class="muted small">${input.choices?.length ? "" : "Nothing in the project can be taken yet."}</span></div>`)}</fieldset>`}
    <div class="row"><input type="search" aria-label="Find a parameter" placeholder="Find a parameter …" value=${only} onInput=${(event) => setOnly(event.currentTarget.value)} /><span class="muted small">${nChanged ? `${nChanged} changed` : Object.keys(seen.values ?? {}).length ? "as in this project" : "all as shipped"}</span>${nChanged > 0 && html`<button type="button" class="plain" title="Take all changes back" onClick=${() => setValues({})}>undo changes</button>`}</div>
    <${SchemaForm} schema=${seen.schema} current=${seen.values ?? {}} values=${values} onChange=${setValues} only=${only} />
    <div class="form-end">
      ${preview.error ? html`<p class="notice bad grow" role="alert">${preview.error}</p>` : html`<code class="command grow clip" title=${preview.command}>${preview.command}</code><button type="button" class="plain" onClick=${() => copyText(preview.command)}>Copy</button>`}
      <button class="primary" title="Run this command now, on the machine of the server" disabled=${isBusy || Boolean(preview.error)}>Start</button>
    </div>
  </form>`;
}
