/** The server's events. A broken stream is taken up again where it broke; a new server says "reset". */
import { createStore } from "./store.js";
import { useEffect, useRef } from "./html.js";

/** "live", "waiting" (for the server to come back), or "refused" (the link has ended). */
export const connection = createStore(/** @type {"live" | "waiting" | "refused"} */ ("waiting"));

const NAMES = ["reset", "fields", "jobs", "overview", "limits", "edits", "selections", "classes", "session", "gone"];
const RETRY_MS = 1500;

/** @type {Map<string, Set<(data: any) => void>>} */
const listeners = new Map();

/** Tell what the server will say in a moment, or has said. @param {string} name @param {any} data */
export function tell(name, data) {
  for (const listener of [...(listeners.get(name) ?? [])]) listener(data);
}

/** @param {string} name @param {(data: any) => void} listener @returns {() => void} to stop */
export function onEvent(name, listener) {
  if (!listeners.has(name)) listeners.set(name, new Set());
  listeners.get(name).add(listener);
  return () => listeners.get(name).delete(listener);
}

let lastRevision = "";
let source = null;

/** Open the stream; called once. */
export function listenForEvents() {
  source = new EventSource("api/events");
  source.addEventListener("hello", (event) => {
    const { revision } = JSON.parse(event.data);
    // A stream that was opened anew has no memory of what came before: fetch again.
    const isNew = lastRevision !== "" && connection.get() !== "live";
    lastRevision = revision;
    connection.set("live");
    if (isNew) tell("reset", { revision });
  });
  for (const name of NAMES) {
    source.addEventListener(name, (event) => tell(name, JSON.parse(event.data)));
  }
  source.onerror = () => {
    connection.set("waiting");
    if (source.readyState === EventSource.CLOSED) setTimeout(askAgain, RETRY_MS);
  };
  addEventListener("pagehide", () => source.close());
}

async function askAgain() {
  try {
    const answer = await fetch("api/me", { credentials: "same-origin" });
    if (answer.status === 401 || answer.status === 403) {
      connection.set("refused");
      return;
    }
    if (answer.ok) {
      listenForEvents();
      return;
    }
  } catch {
    // The server is not there yet.
  }
  setTimeout(askAgain, RETRY_MS);
}

/**
 * Call a function when one of some events comes; many within a moment count as one.
 * @param {string[]} names
 * @param {(data: any, name: string) => void} run
 * @param {number} [pause] ms
 */
export function useEvents(names, run, pause = 250) {
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => {
    let timer = 0;
    const stops = names.map((name) => onEvent(name, (data) => {
      clearTimeout(timer);
      timer = setTimeout(() => latest.current(data, name), pause);
    }));
    return () => {
      clearTimeout(timer);
      for (const stop of stops) stop();
    };
  }, [names.join(), pause]);
}
