/** The command that does what the last click did. */
import { html, useState } from "../lib/html.js";
import { commands } from "../lib/api.js";
import { useStore } from "../lib/store.js";
import { Dialog } from "./dialog.js";
import { say } from "./messages.js";

/** @param {string} text */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    say("The browser does not allow copying here: mark the text and copy it by hand.", { isBad: true });
  }
}

export function CommandBar() {
  const list = useStore(commands);
  const [isOpen, setOpen] = useState(false);
  if (!list.length) return null;
  return html`<footer class="command-bar" aria-label="The same as a command">
    <code class="clip" data-testid="command" title=${list[0]}><b>$ </b>${list[0]}</code>
    <button class="plain" onClick=${() => copyText(list[0])}>Copy</button>
    <button class="plain" onClick=${() => setOpen(true)}>All (${list.length})</button>
    ${isOpen && html`<${Dialog} title="The same as commands, the last first" onClose=${() => setOpen(false)}>
      <ol class="command-list" tabindex="0" aria-label="Commands">${list.map((command) => html`<li key=${command}><code>${command}</code></li>`)}</ol>
      <footer><button onClick=${() => copyText([...list].reverse().join("\n"))}>Copy all, oldest first</button></footer>
    </${Dialog}>`}
  </footer>`;
}
