/** Requests to the server: one origin, JSON or pictures, errors as the server's own sentences. */
import { createStore } from "./store.js";

/** Commands that did what the last clicks did, newest first. */
export const commands = createStore(/** @type {string[]} */ ([]));

/** What the server refused, in its words. */
export class ApiError extends Error {
  /** @param {string} sentence @param {number} status 0: the server did not answer */
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. This page goes on by itself when it does.", 0);
  }
  if (response.ok) return response;
  let sentence = `The server answered ${response.status}.`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch {
    // An answer without JSON, from a proxy in between: the number is all there is.
  }
  throw new ApiError(sentence, response.status);
}

/**
 * @param {string} path
 * @param {Record<string, unknown>} [query] values that are null or empty are left out
 * @returns {string}
 */
export function withQuery(path, query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value != null && value !== "");
  const search = new URLSearchParams(kept.map(([key, value]) => [key, String(value)])).toString();
  return search ? `${path}${path.includes("?") ? "&" : "?"}${search}` : path;
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function getJson(path, signal) {
  return (await request(path, { signal })).json();
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<Blob>} */
export async function getBlob(path, signal) {
  return (await request(path, { signal })).blob();
}

/** @param {string} command */
export function showCommand(command) {
  if (command) commands.set((now) => [command, ...now.filter((old) => old !== command)].slice(0, 50));
}

function sendBody(method, path, body, signal) {
  const headers = { "Content-Type": "application/json", "X-Cryopick": "1" };
  return request(path, { method, headers, body: JSON.stringify(body), signal });
}

/**
 * Change something. The command that does the same is shown below the page.
 * @param {"POST" | "PUT"} method
 * @param {string} path
 * @param {object} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function send(method, path, body = {}, signal) {
  const answer = await (await sendBody(method, path, body, signal)).json();
  showCommand(answer.command);
  return answer;
}

/**
 * Ask with a body what would be, without changing anything or showing a command.
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function ask(path, body, signal) {
  return (await sendBody("POST", path, body, signal)).json();
}

/**
 * @typedef {{n: number, threshold: number | null, source: string, columns: Record<string, Float64Array>,
 *   labels: Record<string, {title: string, unit: string, minimum: number, maximum: number}>, origin?: number[]}} Picks
 */

/**
 * Positions with their columns, in the binary form.
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<Picks>}
 */
export async function getPicks(path, signal) {
  const response = await request(path, { signal, headers: { Accept: "application/octet-stream" } });
  if (!(response.headers.get("content-type") ?? "").includes("octet-stream")) return response.json();
  return decodePicks(await response.arrayBuffer());
}

/** @param {ArrayBuffer} buffer @returns {Picks} */
export function decodePicks(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const columns = {};
  header.columns.forEach((name, i) => {
    columns[name] = new Float64Array(buffer, 4 + length + 8 * header.n * i, header.n);
  });
  return { ...header, columns };
}
