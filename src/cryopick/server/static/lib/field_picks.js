/** Picks of one set in one field with the edits of a person: shown at once, then as the server has them. */
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { send } from "./api.js";
import { useEvents } from "./events.js";
import { forget, loadPicks } from "./field_cache.js";
import { sayError } from "../parts/messages.js";

/** @typedef {import("./api.js").Picks} Picks */

const keyOf = (x, y) => `${x.toFixed(2)},${y.toFixed(2)}`;

/**
 * Picks as they will be after an edit.
 * @param {Picks} picks
 * @param {{add: [number, number][], remove: [number, number][]}} edit
 * @returns {Picks}
 */
export function withEdit(picks, { add, remove }) {
  const gone = new Set(remove.map(([x, y]) => keyOf(x, y)));
  const { x, y } = picks.columns;
  const stay = Array.from(x.keys()).filter((i) => !gone.has(keyOf(x[i], y[i])));
  const columns = {};
  for (const [name, values] of Object.entries(picks.columns)) {
    const added = add.map((point) => (name === "x" ? point[0] : name === "y" ? point[1] : NaN));
    columns[name] = Float64Array.from([...stay.map((i) => values[i]), ...added]);
  }
  const origin = [...stay.map((i) => picks.origin?.[i] ?? 0), ...add.map(() => 1)];
  return { ...picks, columns, origin, n: origin.length };
}

/**
 * @param {string | null} set
 * @param {string | null} field
 * @returns {{picks: Picks | null, error: Error | null, edit: (edit: {add: [number, number][], remove: [number, number][]}) => void, undo: () => void, redo: () => void}}
 */
export function useFieldPicks(set, field) {
  const key = set && field ? `${set}/${field}` : null;
  const [state, setState] = useState({ key: null, picks: null, error: null });
  const current = useRef(key);
  const queue = useRef(Promise.resolve());
  const waiting = useRef(0);
  current.current = key;

  const reload = useCallback(() => {
    if (!key) {
      setState({ key, picks: null, error: null });
      return;
    }
    loadPicks(set, field).then(
      (picks) => current.current === key && !waiting.current && setState({ key, picks, error: null }),
      (error) => current.current === key && setState({ key, picks: null, error }),
    );
  }, [key]);
  useEffect(reload, [reload]);
  useEvents(["edits", "jobs", "reset"], () => { if (key) forget(`picks:${key}`); reload(); }, 120);

  /** Changes go to the server one after the other, in the order of the clicks. */
  const change = useCallback((path, body) => {
    waiting.current += 1;
    queue.current = queue.current.then(async () => {
      try {
        await send("POST", `api/sets/${set}/fields/${field}/${path}`, body);
      } catch (error) {
        sayError(error);
      }
      waiting.current -= 1;
      forget(`picks:${key}`);
      if (!waiting.current) reload();
    });
  }, [key, reload]);

  const edit = useCallback((changes) => {
    setState((now) => (now.picks ? { ...now, picks: withEdit(now.picks, changes) } : now));
    change("edits", changes);
  }, [change]);
  const undo = useCallback(() => change("undo", {}), [change]);
  const redo = useCallback(() => change("redo", {}), [change]);
  const isMine = state.key === key;
  return { picks: isMine ? state.picks : null, error: isMine ? state.error : null, edit, undo, redo };
}
