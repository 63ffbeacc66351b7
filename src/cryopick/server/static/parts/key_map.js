/** The map of keys, made from what is bound at the moment. */
import { html } from "../lib/html.js";
import { bindings } from "../lib/keyboard.js";
import { useStore } from "../lib/store.js";
import { Dialog } from "./dialog.js";

const SIGNS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", ctrl: "Ctrl", shift: "Shift", alt: "Alt" };

const readable = (name) => (name === "+" ? ["+"] : name.split("+").map((part) => SIGNS[part] ?? part));

export function KeyMap({ onClose }) {
  const list = useStore(bindings);
  const groups = [...new Set(list.map((binding) => binding.group))];
  return html`<${Dialog} title="Keys" onClose=${onClose}>
    <div class="key-map">
      ${groups.map((group) => html`<section key=${group}>
        <h3>${group}</h3>
        <dl>${list.filter((binding) => binding.group === group).map((binding) => html`
          <dt>${binding.keys.split(" ").map((keys, i) => html`${i > 0 && " "}${readable(keys).map((part) => html`<kbd>${part}</kbd>`)}`)}</dt>
          <dd>${binding.label}</dd>`)}
        </dl>
      </section>`)}
      <section><h3>Image</h3><dl>
        <dt><kbd>Wheel</kbd></dt><dd>zoom</dd>
        <dt><kbd>Drag</kbd></dt><dd>move, or draw with the tool</dd>
      </dl></section>
    </div>
  </${Dialog}>`;
}
