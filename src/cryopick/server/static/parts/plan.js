/** What the run would do again if some of its parameters were changed. */
import { html, useEffect, useState } from "../lib/html.js";
import { ask, send } from "../lib/api.js";
import { plural } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { goTo, linkTo } from "../lib/router.js";
import { copyText } from "./command_bar.js";
import { Loading, say, sayError } from "./messages.js";
import { SchemaForm } from "./schema_form.js";

const FATES = { kept: ["good", "kept"], again: ["warn", "done again"], back: ["now", "taken up again"], new: ["none", "new"] };

export function Plan() {
  const form = useJson("api/forms/run");
  const [values, setValues] = useState({});
  const [only, setOnly] = useState("");
  const [plan, setPlan] = useState({ value: null, error: "" });
  useEffect(() => {
    const control = new AbortController();
    const timer = setTimeout(() => ask("api/plan", { parameters: values }, control.signal).then(
      (value) => setPlan({ value, error: "" }),
      (error) => error.name !== "AbortError" && setPlan((now) => ({ ...now, error: error.message })),
    ), 250);
    return () => { clearTimeout(timer); control.abort(); };
  }, [values]);
  const start = async () => {
    try {
      const answer = await send("POST", "api/jobs", { command: "run", inputs: {}, parameters: { ...form.value?.values, ...values } });
      say("Started.");
      goTo("jobs", [answer.job]);
    } catch (error) {
      sayError(error);
    }
  };
  const seen = plan.value;
  return html`<section class="panel stack tight" aria-label="What would change">
      <h2>What would be done again</h2>
      ${plan.error && html`<p class="notice bad" role="alert">${plan.error}</p>`}
      ${seen && html`<ol class="steps plan">${seen.steps.map((step) => { const [tone, words] = FATES[step.fate] ?? ["none", step.fate]; return html`<li key=${step.name}><span class=${`chip ${tone}`}>${words}</span><span class="what">${step.job ? html`<a href=${linkTo("jobs", [step.job])}>${step.title}</a>` : step.title}</span><span class="small muted">${step.why}</span><span></span></li>`; })}</ol>
        <p class="small muted">${plural(seen.n_fields ?? 0, "micrograph")}. Nothing that was made is removed: going back to earlier values finds its jobs again.</p>
        <div class="form-end"><code class="command grow clip" title=${seen.command}>${seen.command}</code><button class="plain" onClick=${() => copyText(seen.command)}>Copy</button><button class="primary" title=${seen.n_fields ? "Run this command now, on the machine of the server" : "The project has no micrographs yet: the overview says how to begin"} disabled=${!seen.n_fields} onClick=${start}>Run</button></div>`}
    </section>
    ${form.value ? html`<section class="panel stack" aria-label="Parameters of the run"><input type="search" aria-label="Find a parameter" placeholder="Find a parameter …" value=${only} onInput=${(event) => setOnly(event.currentTarget.value)} />
      <${SchemaForm} schema=${form.value.schema} current=${form.value.values ?? {}} values=${values} onChange=${setValues} only=${only} /></section>` : html`<${Loading} remote=${form} what="parameters" />`}`;
}
