/** One table of keys: what is bound is what `?` shows. */
import { createStore } from "./store.js";
import { useLayoutEffect, useRef } from "./html.js";

/** @typedef {{keys: string, label: string, group: string, run: (event: KeyboardEvent) => void}} Binding */

/** @type {import("./store.js").Store<Binding[]>} */
export const bindings = createStore([]);

/** @param {KeyboardEvent} event @returns {string} such as "ctrl+z", "shift+ArrowLeft", "?" */
export function keyName(event) {
  const letter = event.key.length === 1;
  const key = event.key === " " ? "Space" : letter ? event.key.toLowerCase() : event.key;
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("ctrl");
  if (event.altKey) parts.push("alt");
  const isSign = letter && event.key.toLowerCase() === event.key.toUpperCase();
  if (event.shiftKey && !isSign) parts.push("shift");
  return [...parts, key].join("+");
}

/** Keys belong to a field while somebody types in it. */
function isTyping(target) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || target.tagName === "TEXTAREA" || target.tagName === "SELECT") return true;
  return target instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(target.type);
}

/** Keys that a focused control needs for itself. */
function isOwnKey(target, name) {
  if (target instanceof HTMLInputElement && target.type === "range") return /Arrow|Home|End|Page/.test(name);
  if (target instanceof HTMLElement && target.closest("[data-own-keys]")) return /Arrow|Home|End|Page|Space|Enter/.test(name);
  return target instanceof HTMLElement && ["BUTTON", "A", "SUMMARY", "INPUT"].includes(target.tagName) && ["Enter", "Space"].includes(name);
}

/** Listen for keys on the whole page; called once. */
export function listenForKeys() {
  addEventListener("keydown", (event) => {
    const name = keyName(event);
    if (event.defaultPrevented || isTyping(event.target) || isOwnKey(event.target, name)) return;
    if (document.querySelector("dialog[open]")) return;
    const found = bindings.get().findLast((binding) => binding.keys.split(" ").includes(name));
    if (!found) return;
    event.preventDefault();
    found.run(event);
  });
}

/**
 * Bind keys while a component is shown. `run` may change between renders.
 * @param {string} group heading in the key map
 * @param {[keys: string, label: string, run: (event: KeyboardEvent) => void][]} list
 */
export function useKeys(group, list) {
  const latest = useRef(list);
  latest.current = list;
  const shape = list.map(([keys, label]) => `${keys}:${label}`).join("|");
  useLayoutEffect(() => { // with what they act on: a key may come at once
    const mine = latest.current.map(([keys, label], i) => ({
      keys, label, group, run: (event) => latest.current[i]?.[2](event),
    }));
    bindings.set((now) => [...now, ...mine]);
    return () => bindings.set((now) => now.filter((binding) => !mine.includes(binding)));
  }, [group, shape]);
}
