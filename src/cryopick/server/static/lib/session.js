/** Who is asking, and what they may do. */
import { createStore, useStore } from "./store.js";

/** @type {import("./store.js").Store<any>} answer of api/me */
export const me = createStore(null);

/** @returns {boolean} whether this person may change something */
export function useCanWrite() {
  return useStore(me)?.can_write ?? false;
}
