/** What the server says, fetched again when it changes; the old value stays until the new is there. */
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { getJson } from "./api.js";
import { useEvents } from "./events.js";

/**
 * @template T
 * @typedef {{value: T | null, error: Error | null, isLoading: boolean, reload: () => void, setValue: (value: T) => void}} Remote
 */

/**
 * @template T
 * @param {string | null} key what is loaded; null loads nothing
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {string[]} [events] that make it load again, besides "reset"
 * @returns {Remote<T>}
 */
export function useRemote(key, load, events = []) {
  const [state, setState] = useState({ key: null, value: null, error: null, isLoading: key !== null });
  const latest = useRef(load);
  latest.current = load;
  const control = useRef(/** @type {AbortController | null} */ (null));

  const reload = useCallback(() => {
    control.current?.abort();
    if (key === null) {
      setState({ key, value: null, error: null, isLoading: false });
      return;
    }
    const mine = (control.current = new AbortController());
    setState((now) => ({ ...now, isLoading: true }));
    latest.current(mine.signal).then(
      (value) => mine.signal.aborted || setState({ key, value, error: null, isLoading: false }),
      (error) => mine.signal.aborted || setState((now) => ({ ...now, key, value: error.status ? null : now.value, error, isLoading: false })),
    );
  }, [key]);

  useEffect(() => {
    reload();
    return () => control.current?.abort();
  }, [reload]);
  useEvents(["reset", ...events], reload);
  const setValue = useCallback((value) => setState((now) => ({ ...now, value })), []);
  return { ...state, reload, setValue };
}

/**
 * @param {string | null} path
 * @param {string[]} [events]
 * @returns {Remote<any>}
 */
export function useJson(path, events = []) {
  return useRemote(path, (signal) => getJson(path, signal), events);
}
