/** Fields, pictures and picks that were fetched lately or will be asked for next. */
import { getBlob, getJson, getPicks, withQuery } from "./api.js";
import { onEvent } from "./events.js";
import { decodeGrey, greyHistogram } from "../viewer/grey_image.js";

const KEPT = 24;

/** @type {Map<string, Promise<any>>} */
const kept = new Map();

/** A promise by name, made once; failures are not kept. */
function once(key, make) {
  let promise = kept.get(key);
  if (promise) kept.delete(key);
  else {
    promise = make();
    promise.catch(() => kept.delete(key));
  }
  kept.set(key, promise);
  if (kept.size > 3 * KEPT) kept.delete(kept.keys().next().value);
  return promise;
}

/** Forget what begins with a name. @param {string} start */
export function forget(start) {
  for (const key of [...kept.keys()]) if (key.startsWith(start)) kept.delete(key);
}
for (const name of ["fields", "limits", "reset", "jobs", "overview"]) onEvent(name, () => { forget("field:"); forget("order:"); });
for (const name of ["jobs", "reset", "edits"]) onEvent(name, () => forget("picks:"));

/** @param {string} id @returns {Promise<any>} answer of api/fields/{id} */
export const loadField = (id) => once(`field:${id}`, () => getJson(`api/fields/${id}`));

/** @param {string} id @param {Record<string, unknown>} query of the table @returns {Promise<{position: number | null, previous: string | null, next: string | null}>} */
export const loadNeighbours = (id, query) =>
  once(withQuery(`order:${id}`, query), () => getJson(withQuery("api/fields/position", { id, ...query })));

/**
 * @param {any} field answer of api/fields/{id}
 * @param {{view: string, lowPass: number}} settings
 * @param {number} size longer side in px
 * @returns {string} address of its picture
 */
export function pictureOf(field, { view, lowPass }, size) {
  const [path, search] = (field.image[view] ?? field.image.raw).split("?");
  const query = Object.fromEntries(new URLSearchParams(search));
  return withQuery(path, { ...query, size, low_pass: view === "low_pass" ? lowPass : null });
}

/**
 * @param {string} address
 * @returns {Promise<{image: import("../viewer/grey_image.js").GreyImage, counts: Uint32Array}>}
 */
export const loadPicture = (address) => once(`image:${address}`, async () => {
  const image = await decodeGrey(await getBlob(address));
  return { image, counts: greyHistogram(image.grey) };
});

/** All peaks of a field after the edits of people, with the threshold of the job. @param {string} set @param {string} id */
export const loadPicks = (set, id) => once(`picks:${set}/${id}`, async () => {
  const path = `api/sets/${set}/fields/${id}`;
  const [all, ofJob] = await Promise.all([getPicks(`${path}?source=edited&threshold=-1e9`), getPicks(`${path}?source=picks`)]);
  return { ...all, threshold: ofJob.threshold };
});

/** Fetch what showing a field will need; faults are told when it is shown. */
export async function prefetch(id, settings, size, set) {
  if (!id) return;
  try {
    const field = await loadField(id);
    await Promise.all([loadPicture(pictureOf(field, settings, size)), set && loadPicks(set, id)]);
  } catch {
    // Asked again, and told, when the field is opened.
  }
}
