/** Pages are parts of the address after "#", so links can be sent and the server knows one page only. */
import { createStore } from "./store.js";

/** @typedef {{page: string, parts: string[], query: Record<string, string>}} Place */

/** @param {string} hash @returns {Place} */
export function parsePlace(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...parts] = path.split("/").map(decodeURIComponent);
  return { page: page || "overview", parts, query: Object.fromEntries(new URLSearchParams(search)) };
}

export const place = createStore(parsePlace(location.hash));
addEventListener("hashchange", () => place.set(parsePlace(location.hash)));

/**
 * @param {string} page
 * @param {(string | number)[]} [parts]
 * @param {Record<string, string | number | null | undefined>} [query]
 * @returns {string} for href
 */
export function linkTo(page, parts = [], query = {}) {
  const path = [page, ...parts.map((part) => encodeURIComponent(String(part)))].join("/");
  const kept = Object.entries(query).filter(([, value]) => value != null && value !== "");
  const search = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

/** Go to a page; `replace` leaves no entry in the history. */
export function goTo(page, parts = [], query = {}, replace = false) {
  const link = linkTo(page, parts, query);
  if (link === location.hash) return;
  if (replace) history.replaceState(null, "", link);
  else history.pushState(null, "", link);
  place.set(parsePlace(link));
}

/** Change some values of the query of this page. */
export function setQuery(changes, replace = true) {
  const { page, parts, query } = place.get();
  goTo(page, parts, { ...query, ...changes }, replace);
}
