/** How micrographs are shown; kept in this browser. */
import { createKeptStore, createStore } from "./store.js";

export const viewSettings = createKeptStore("view", {
  view: "raw", low: 1, high: 99, inverted: false, lowPass: 20, map: "viridis", colourBy: "score", hasMarks: true, set: "",
});

/** @param {Partial<ReturnType<typeof viewSettings.get>>} changes */
export const changeView = (changes) => viewSettings.set((now) => ({ ...now, ...changes }));

/** Threshold of each set that somebody has moved; without one the job's own holds. */
export const thresholds = createStore(/** @type {Record<string, number>} */ ({}));

/** @param {string} set @param {number | null} value */
export function setThreshold(set, value) {
  thresholds.set(({ [set]: _, ...others }) => (value == null ? others : { ...others, [set]: value }));
}
