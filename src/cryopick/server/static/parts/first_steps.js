/** What to do with a project that has nothing in it yet. */
import { html } from "../lib/html.js";
import { me } from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { copyText } from "./command_bar.js";

const LENS = "--pixel-size 1.0 --voltage 300 --spherical-aberration 2.7";

/** A path as a shell takes it. */
const quoted = (path) => (/^[\w./~-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`);

export function FirstSteps() {
  const folder = quoted(useStore(me)?.project?.folder ?? "PROJECT");
  const ways = [
    ["Micrographs that are all there", "All steps, from the CTF to clean particles; this page shows them as they come.", `cryopick run MICROGRAPHS --out ${folder} ${LENS}`],
    ["While the microscope writes them", "Each micrograph is picked within seconds of its last byte.", `cryopick session start MICROGRAPHS --project ${folder} ${LENS} --background`],
  ];
  return html`<section class="panel stack first-steps" aria-label="First steps">
    <h2>There are no micrographs in this project yet</h2>
    <p class="muted">Start one of these in a terminal, with the folder of your motion-corrected micrographs for MICROGRAPHS and the values of your microscope (Å per px, kV, mm). A STAR table says them itself.</p>
    ${ways.map(([title, about, command]) => html`<div key=${title} class="stack tight"><h3>${title}</h3><p class="small muted">${about}</p>
      <div class="row nowrap"><code class="command grow">${command}</code><button class="plain" title="Copy this command" onClick=${() => copyText(command)}>Copy</button></div></div>`)}
  </section>`;
}
