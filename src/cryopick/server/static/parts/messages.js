/** What the page says in passing, and what it says where something is missing. */
import { html } from "../lib/html.js";
import { createStore, useStore } from "../lib/store.js";

/** @typedef {{id: number, text: string, isBad: boolean, action?: {label: string, run: () => void}}} Message */
const messages = createStore(/** @type {Message[]} */ ([]));
let last = 0;

/**
 * Say something for some seconds; errors stay longer.
 * @param {string} text
 * @param {{isBad?: boolean, action?: {label: string, run: () => void}}} [options]
 */
export function say(text, { isBad = false, action } = {}) {
  const id = (last += 1);
  messages.set((now) => [...now.slice(-2), { id, text, isBad, action }]);
  setTimeout(() => dismiss(id), isBad ? 12000 : 5000);
}

/** @param {Error} error that a click led to */
export function sayError(error) {
  if (error.name !== "AbortError") say(error.message, { isBad: true });
}

function dismiss(id) {
  messages.set((now) => now.filter((message) => message.id !== id));
}

export function Messages() {
  const shown = useStore(messages);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map((message) => html`<div key=${message.id} class=${`toast fade-in ${message.isBad ? "bad" : ""}`}>
      <span>${message.text}</span>
      ${message.action && html`<button onClick=${() => { dismiss(message.id); message.action.run(); }}>${message.action.label}</button>`}
      <button onClick=${() => dismiss(message.id)}>Close</button>
    </div>`)}
  </div>`;
}

/** The state of something fetched: nothing while it is there. */
export function Loading({ remote, what }) {
  if (remote.error && !remote.value) return html`<p class="notice bad" role="alert">${remote.error.message}</p>`;
  if (!remote.value) return html`<p class="empty" aria-busy="true">Loading ${what} …</p>`;
  return null;
}

/** A place that will be filled later, and how. */
export function Empty({ title, children }) {
  return html`<div class="empty"><h2>${title}</h2><p>${children}</p></div>`;
}
