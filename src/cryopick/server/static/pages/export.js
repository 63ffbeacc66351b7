/** Export to other programs, tables as files, the report, and a link for those who may look. */
import { html, useState } from "../lib/html.js";
import { send } from "../lib/api.js";
import { count, moment } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { goTo } from "../lib/router.js";
import { useCanWrite } from "../lib/session.js";
import { copyText } from "../parts/command_bar.js";
import { say, sayError } from "../parts/messages.js";

const LAYOUTS = [
  ["relion", "RELION", "A project that RELION opens, with jobs and pipeline."],
  ["scipion", "Scipion and Xmipp", "particles.xmd, and a .pos file of each micrograph."],
  ["cryosparc", "cryoSPARC", "The particles as a .cs file, with poses and CTF."],
];

export default function Export() {
  const canWrite = useCanWrite();
  return html`<main id="page" tabindex="-1">
    <h1 class="visually-hidden">Export</h1>
    <div class="cards">
      ${canWrite && html`<${ExportForm} />`}
      <${Downloads} canWrite=${canWrite} />
      <${Report} canWrite=${canWrite} />
      ${canWrite && html`<${Share} />`}
    </div>
  </main>`;
}

function ExportForm() {
  const [layout, setLayout] = useState("relion");
  const [isBusy, setBusy] = useState(false);
  const [answer, setAnswer] = useState(null);
  const start = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    try {
      setAnswer(await send("POST", "api/export", { layout, name: form.get("name"), copy: form.has("copy") }));
    } catch (error) {
      sayError(error);
    }
    setBusy(false);
  };
  return html`<section class="panel" aria-label="Export">
    <header><h2>For another program</h2></header>
    <form class="stack" onSubmit=${start}>
      <div class="stack tight" role="radiogroup" aria-label="Program">${LAYOUTS.map(([name, title, about]) => html`<label key=${name} class="choice"><input type="radio" name="layout" value=${name} checked=${layout === name} onChange=${() => setLayout(name)} /><span><b>${title}</b><br /><span class="muted small">${about}</span></span></label>`)}</div>
      <label class="field">Folder<input key=${layout} name="name" required pattern="[A-Za-z0-9_\\-]{1,64}" defaultValue=${`for_${layout}`} /></label>
      ${layout === "relion" && html`<label><input type="checkbox" name="copy" /> copy images instead of linking them</label>`}
      <button class="primary" disabled=${isBusy}>${isBusy ? "Writing …" : "Export"}</button>
    </form>
    ${answer && html`<div class="notice" role="status"><p>Written to <code>${answer.path}</code></p><ul class="plain-list small">${(answer.notes ?? []).map((note) => html`<li key=${note}>${note}</li>`)}</ul></div>`}
  </section>`;
}

/** The accepted fields are written first, as they are now. */
async function saveFields(event) {
  const { href } = event.currentTarget;
  event.preventDefault();
  try {
    await send("POST", "api/fields/save");
    location.assign(href);
  } catch (error) {
    sayError(error);
  }
}

function Downloads({ canWrite }) {
  const sets = useJson("api/sets", ["jobs", "edits"]);
  const particles = useJson("api/particles", ["jobs", "selections"]);
  const selections = useJson("api/selections", ["selections", "jobs"]);
  const groups = [
    ["Micrographs", [["fields", "selected", "accepted micrographs", null]]],
    ["Picks", (sets.value?.sets ?? []).map((set) => ["picks", set.id, set.name, set.n_picks])],
    ["Particles", (particles.value?.tables ?? []).map((table) => ["particles", table.id, table.name, table.n])],
    ["Selections", (selections.value?.selections ?? []).filter((one) => one.kind === "saved").map((one) => ["selection", one.name, one.name, one.n_particles])],
  ];
  return html`<section class="panel" aria-label="Tables"><header><h2>Tables as files</h2></header>
    ${groups.filter(([, list]) => list.length).map(([title, list]) => html`<h3 class="section-head" key=${title}>${title}</h3><ul class="plain-list">${list.map(([kind, id, name, n]) => html`<li key=${id} class="row spread nowrap"><a class="clip" href=${`api/downloads/${kind}/${encodeURIComponent(id)}`} download onClick=${kind === "fields" && canWrite ? saveFields : null}>${name}</a><span class="small muted">${n == null ? "" : count(n)}</span></li>`)}</ul>`)}
  </section>`;
}

function Report({ canWrite }) {
  const overview = useJson("api/overview", ["jobs"]);
  const [version, setVersion] = useState(0);
  const make = async () => {
    try {
      const answer = await send("POST", "api/report");
      say("The report is being made.", answer.job ? { action: { label: "Show the job", run: () => goTo("jobs", [answer.job]) } } : {});
      setVersion((now) => now + 1);
    } catch (error) {
      sayError(error);
    }
  };
  const has = overview.value?.has_report;
  return html`<section class="panel report" aria-label="Report"><header><h2>Report</h2><span class="aside row">
      ${has && html`<a href="api/report" target="_blank" rel="noopener">open</a> <a href="api/report" download="report.html">save as one file</a>`}
      ${canWrite && html`<button onClick=${make}>Make it anew</button>`}</span></header>
    ${has ? html`<iframe key=${version} src="api/report" title="Report of the run" sandbox="" loading="lazy"></iframe>` : html`<p class="empty">There is no report yet: a run writes it when its first step is done.</p>`}
  </section>`;
}

function Share() {
  const [hours, setHours] = useState(24);
  const [link, setLink] = useState(null);
  const make = async (event) => {
    event.preventDefault();
    try {
      const answer = await send("POST", "api/share", { hours });
      setLink({ url: new URL(answer.url, document.baseURI).href, expires: answer.expires });
    } catch (error) {
      sayError(error);
    }
  };
  return html`<section class="panel" aria-label="Share"><header><h2>A link to look, not to touch</h2></header>
    <form class="row" onSubmit=${make}><label>valid for <select value=${String(hours)} onChange=${(event) => setHours(Number(event.currentTarget.value))}>${[[1, "1 hour"], [8, "8 hours"], [24, "1 day"], [72, "3 days"], [168, "1 week"], [720, "30 days"]].map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}</select></label>
      <button class="primary">Make a link</button></form>
    ${link && html`<div class="stack tight share-link"><input readonly aria-label="Link" data-testid="share-link" value=${link.url} onFocus=${(event) => event.currentTarget.select()} /><div class="row spread"><span class="small muted">until ${moment(link.expires)}</span><button onClick=${() => copyText(link.url)}>Copy</button></div></div>`}
    <p class="small muted hint">Who has the link sees everything and changes nothing.</p>
  </section>`;
}
