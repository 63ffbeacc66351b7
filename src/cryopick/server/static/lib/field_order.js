/** How fields are sorted and filtered: the same in the table, in the gallery and for the keys that go on. */
import { createKeptStore } from "./store.js";

export const fieldOrder = createKeptStore("fields", { sort: "number", isDescending: false, state: "", search: "" });

/** @param {{sort: string, isDescending: boolean, state: string, search: string}} order @returns {Record<string, unknown>} for the server */
export function orderQuery({ sort, isDescending, state, search }) {
  return { sort, descending: isDescending ? 1 : null, state, search };
}
