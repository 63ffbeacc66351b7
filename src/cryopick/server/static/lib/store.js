/** Values that several components watch. */
import { useEffect, useState } from "./html.js";

/**
 * @template T
 * @typedef {{get: () => T, set: (next: T | ((now: T) => T)) => void, watch: (listener: (now: T) => void) => () => void}} Store
 */

/**
 * A value with listeners; these are called after each change, in the order they came.
 * @template T
 * @param {T} first
 * @returns {Store<T>}
 */
export function createStore(first) {
  let value = first;
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      const changed = typeof next === "function" ? next(value) : next;
      if (Object.is(changed, value)) return;
      value = changed;
      for (const listener of [...listeners]) listener(value);
    },
    watch(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/**
 * The value of a store, rendering again when it changes.
 * @template T
 * @param {Store<T>} store
 * @returns {T}
 */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(() => store.get());
    return store.watch((now) => setValue(() => now));
  }, [store]);
  return value;
}

/**
 * A store whose value is kept in this browser; what cannot be read counts as absent.
 * @template T
 * @param {string} name
 * @param {T} first
 * @returns {Store<T>}
 */
export function createKeptStore(name, first) {
  const key = `cryopick.${name}`;
  let kept = first;
  try {
    const text = localStorage.getItem(key);
    if (text !== null) kept = { ...first, ...JSON.parse(text) };
  } catch {
    kept = first;
  }
  const store = createStore(kept);
  store.watch((value) => {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch {
      // A full or forbidden storage loses a preference, nothing else.
    }
  });
  return store;
}
