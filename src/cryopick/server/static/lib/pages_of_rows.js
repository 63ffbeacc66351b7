/** Rows of a long table on the server, fetched page by page as they come into view. */
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { getJson, withQuery } from "./api.js";
import { useEvents } from "./events.js";

const KEPT_PAGES = 40;
/** Requests under way: what was scrolled past while they ran is never asked for. */
const AT_ONCE = 2;

/** Rows of a page, made into objects when they are first shown. */
function makePage(answer) {
  const made = [];
  const rowAt = (i) => {
    if (!answer.rows[i]) return null;
    made[i] ??= Object.fromEntries(answer.columns.map((name, c) => [name, answer.rows[i][c]]));
    return made[i];
  };
  return { answer, rowAt };
}

/**
 * @param {string} path of a table with `offset` and `limit`
 * @param {Record<string, unknown>} query sort and filters; another query is another table
 * @param {string[]} events after which pages are fetched again
 * @param {number} [size] rows of a page
 */
export function usePagesOfRows(path, query, events, size = 100) {
  const key = withQuery(path, query);
  const [state, setState] = useState({ n: 0, nAll: 0, version: 0, error: null, isReady: false });
  const table = useRef({ pages: new Map(), nUnderWay: 0, turn: 0, n: Infinity });
  const inView = useRef([0, 1]);

  const fetchPage = useCallback(async (page) => {
    const mine = table.current;
    const { turn } = mine;
    mine.pages.set(page, { ...mine.pages.get(page), isFresh: true });
    mine.nUnderWay += 1;
    try {
      const answer = await getJson(withQuery(key, { offset: page * size, limit: size }));
      if (table.current !== mine) return;
      mine.pages.delete(page); // set anew: the last is the one used last
      mine.pages.set(page, { ...makePage(answer), isFresh: turn === mine.turn });
      mine.n = answer.n;
      if (mine.pages.size > KEPT_PAGES) mine.pages.delete(mine.pages.keys().next().value);
      const isSeen = page * size < inView.current[1] && (page + 1) * size > inView.current[0];
      setState((now) => {
        const isSame = now.isReady && now.n === answer.n && now.nAll === answer.n_all && !now.error;
        return isSame && !isSeen ? now : { n: answer.n, nAll: answer.n_all, version: now.version + 1, error: null, isReady: true };
      });
      mine.nUnderWay -= 1;
      fetchSeen();
    } catch (error) {
      mine.nUnderWay -= 1;
      mine.pages.delete(page);
      if (table.current === mine) setState((now) => ({ ...now, error }));
    }
  }, [key]);

  /** Fetch what is in view now, and then what is next to it. */
  const fetchSeen = useCallback(() => {
    const [first, last] = inView.current;
    const low = Math.floor(first / size);
    const high = Math.floor(Math.max(last - 1, 0) / size);
    const near = [Math.floor(Math.max(first - size / 4, 0) / size), Math.floor((last + size / 4) / size)];
    const wanted = [];
    for (let page = low; page <= high; page += 1) wanted.push(page);
    for (const page of [...wanted, ...near.filter((one) => one * size < table.current.n)]) {
      if (table.current.nUnderWay >= AT_ONCE) return;
      if (!table.current.pages.get(page)?.isFresh) fetchPage(page);
    }
  }, [fetchPage]);

  const need = useCallback((first, last) => {
    inView.current = [first, Math.max(last, first + 1)];
    fetchSeen();
  }, [fetchSeen]);

  useEffect(() => {
    table.current = { pages: new Map(), nUnderWay: 0, turn: 0, n: Infinity };
    setState((now) => ({ ...now, version: now.version + 1 }));
    need(0, 1);
  }, [key]);
  const reload = useCallback(() => {
    table.current.turn += 1;
    for (const page of table.current.pages.values()) page.isFresh = false;
    fetchSeen();
  }, [fetchSeen]);
  useEvents(["reset", ...events], reload);

  const rowAt = useCallback((i) => table.current.pages.get(Math.floor(i / size))?.rowAt?.(i % size) ?? null, [state.version]);
  const pageOf = useCallback((i) => table.current.pages.get(Math.floor(i / size))?.answer ?? null, [state.version]);
  return { ...state, rowAt, pageOf, need, reload };
}
