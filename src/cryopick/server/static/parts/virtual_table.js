/** A table of any length: only the rows on the screen exist. One tab stop; arrows move the active row. */
import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";

const ROW = 26;
const HEAD = 54; // room for three lines
const SPARE = 8;

/**
 * @typedef {{name: string, title: string, unit?: string, about?: string, isText?: boolean, width?: string, cell?: (row: any) => any}} Column
 */

/** A row on the screen: drawn again only when it shows something else. */
class Row extends Component {
  shouldComponentUpdate(next) {
    return ["i", "row", "isActive", "columns", "tone"].some((name) => next[name] !== this.props[name]);
  }

  render({ i, row, isActive, columns, tone, onActive, onOpen }) {
    return html`<div id=${`row-${i}`} role="row" aria-rowindex=${i + 2} aria-selected=${isActive ? "true" : "false"}
        class=${`${isActive ? "active" : ""} ${tone}`} style=${{ transform: `translateY(${i * ROW}px)` }}
        onClick=${() => onActive(i)} onDblClick=${() => row && onOpen(row)}>
      ${columns.map((column) => html`<div role="gridcell" class=${column.isText ? "text" : ""}>${row ? (column.cell ? column.cell(row) : row[column.name]) : ""}</div>`)}
    </div>`;
  }
}

/** Words that do not fit are told when somebody points at them. */
function tellWhole({ target }) {
  const cell = target instanceof Element && target.closest("[role=gridcell]");
  if (cell) cell.title = cell.scrollWidth > cell.clientWidth ? cell.textContent : "";
}

/**
 * @param {{
 *   columns: Column[], n: number, label: string, sort: string, isDescending: boolean,
 *   rowAt: (i: number) => any | null, onRange: (first: number, last: number) => void,
 *   onSort: (name: string) => void, onOpen: (row: any) => void,
 *   onKey?: (name: string, row: any) => boolean, rowClass?: (row: any) => string,
 * }} props `rowAt` gives null for rows that are not there yet, and the same object for the same row
 */
export function VirtualTable(props) {
  const { columns, n, label, sort, isDescending, rowAt, onRange, onSort, onOpen, onKey, rowClass } = props;
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [range, setRange] = useState([0, 40]);
  const [active, setActive] = useState(0);

  const look = () => {
    if (!box.current) return;
    const { scrollTop, clientHeight } = box.current;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - SPARE);
    const last = first + Math.ceil(clientHeight / ROW) + 2 * SPARE + 1;
    setRange((now) => (now[0] === first && now[1] === last ? now : [first, last]));
    onRange(first, Math.min(n, last));
  };
  useLayoutEffect(look, [n, rowAt]);
  useEffect(() => {
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [n, rowAt]);
  useEffect(() => { box.current.scrollTop = 0; setActive(0); }, [sort, isDescending]);

  const moveTo = (next) => {
    const kept = Math.max(0, Math.min(n - 1, next));
    setActive(kept);
    const { scrollTop, clientHeight } = box.current;
    if (kept * ROW < scrollTop) box.current.scrollTop = kept * ROW;
    else if ((kept + 1) * ROW + HEAD > scrollTop + clientHeight) box.current.scrollTop = (kept + 1) * ROW + HEAD - clientHeight;
  };

  const keys = (event) => {
    const jumps = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + 15, PageUp: active - 15, Home: 0, End: n - 1 };
    const row = rowAt(active);
    if (event.key in jumps && event.target === box.current) moveTo(jumps[event.key]);
    else if (event.key === "Enter" && event.target === box.current && row) onOpen(row);
    else if (!row || event.ctrlKey || event.metaKey || !onKey?.(event.key, row)) return;
    event.preventDefault();
    event.stopPropagation();
  };

  // A row that leaves on one side gives its elements to the one that comes in on the other.
  const [first, last] = range;
  const rows = [];
  for (let slot = 0; slot < last - first; slot += 1) {
    const i = first + ((slot - (first % (last - first)) + last - first) % (last - first));
    if (i >= n) continue;
    const row = rowAt(i);
    rows.push(html`<${Row} key=${slot} i=${i} row=${row} isActive=${i === active} columns=${columns} tone=${row ? rowClass?.(row) ?? "" : "absent"} onActive=${setActive} onOpen=${onOpen} />`);
  }
  const widths = columns.map((column) => column.width ?? "minmax(5.5rem, 1fr)");
  const least = widths.reduce((sum, width) => sum + Number.parseFloat(/[\d.]+(?=rem)/.exec(width)?.[0] ?? "0"), 0);
  return html`<div ref=${box} class="table" role="grid" tabindex="0" data-own-keys aria-label=${label} aria-rowcount=${n + 1} aria-colcount=${columns.length}
      aria-activedescendant=${n ? `row-${active}` : null} style=${{ "--template": widths.join(" "), "--least": `${least}rem` }} onScroll=${look} onKeyDown=${keys} onMouseOver=${tellWhole}>
    <div class="table-head" role="row">
      ${columns.map((column) => html`<div role="columnheader" key=${column.name} class=${column.isText ? "text" : ""}
          aria-sort=${sort === column.name ? (isDescending ? "descending" : "ascending") : "none"}>
        ${column.cell && column.width && !column.title ? null : html`<button class="plain" tabindex="-1" onClick=${() => onSort(column.name)} title=${[column.about, `Sort by ${column.title}${column.unit ? ` (${column.unit})` : ""}`].filter(Boolean).join("\n")}>
          ${column.title}${column.unit && html` <span class="unit">${column.unit}</span>`}${sort === column.name ? (isDescending ? " ↓" : " ↑") : ""}</button>`}
      </div>`)}
    </div>
    <div class="table-body" role="rowgroup" style=${{ height: `${n * ROW}px` }}>${rows}</div>
  </div>`;
}
