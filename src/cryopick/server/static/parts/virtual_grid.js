/** A grid of any number of cards: only those on the screen exist. Arrows move the active card. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";

/**
 * @param {{n: number, cardWidth: number, cardHeight: number, label: string, card: (i: number, isActive: boolean) => any,
 *   onRange?: (first: number, last: number) => void, onKey?: (key: string, i: number, event: KeyboardEvent) => boolean,
 *   isMultiple?: boolean, version?: unknown, active: number, onActive: (i: number) => void}} props
 */
export function VirtualGrid({ n, cardWidth, cardHeight, label, card, onRange, onKey, isMultiple, version, active, onActive }) {
  const box = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [shape, setShape] = useState({ columns: 1, first: 0, last: 0, width: cardWidth, height: cardHeight });
  const look = () => {
    if (!box.current) return;
    const { clientWidth, clientHeight, scrollTop } = box.current;
    const columns = Math.max(1, Math.floor(clientWidth / cardWidth));
    const width = clientWidth / columns;
    const height = cardHeight + Math.max(0, Math.floor(width - cardWidth)); // pictures grow with the cell
    const row = Math.max(0, Math.floor(scrollTop / height) - 1);
    const rows = Math.ceil(clientHeight / height) + 3;
    const next = { columns, first: row * columns, last: Math.min(n, (row + rows) * columns), width, height };
    setShape((now) => (Object.keys(next).every((key) => now[key] === next[key]) ? now : next));
    onRange?.(next.first, next.last);
  };
  useLayoutEffect(look, [n, cardWidth, cardHeight, version]);
  useEffect(() => {
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    return () => observer.disconnect();
  }, [n, cardWidth, cardHeight]);

  const moveTo = (i) => {
    const kept = Math.max(0, Math.min(n - 1, i));
    onActive(kept);
    const top = Math.floor(kept / shape.columns) * shape.height;
    const { scrollTop, clientHeight } = box.current;
    if (top < scrollTop) box.current.scrollTop = top;
    else if (top + shape.height > scrollTop + clientHeight) box.current.scrollTop = top + shape.height - clientHeight;
  };
  const keys = (event) => {
    const page = shape.columns * Math.max(1, Math.floor(box.current.clientHeight / shape.height));
    const jumps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: shape.columns, ArrowUp: -shape.columns, PageDown: page, PageUp: -page, Home: -n, End: n };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in jumps) moveTo(active + jumps[event.key]);
    else if (!onKey?.(event.key, active, event)) return;
    event.preventDefault();
    event.stopPropagation();
  };
  const cards = [];
  for (let i = shape.first; i < Math.min(shape.last, n); i += 1) {
    const place = { left: `${(i % shape.columns) * shape.width}px`, top: `${Math.floor(i / shape.columns) * shape.height}px`, width: `${shape.width}px`, height: `${shape.height}px` };
    cards.push(html`<div key=${i} class="grid-cell" style=${place}>${card(i, i === active)}</div>`);
  }
  return html`<div ref=${box} class="virtual-grid" role="listbox" tabindex="0" data-own-keys aria-label=${label} aria-multiselectable=${isMultiple ? "true" : null}
      aria-activedescendant=${n ? `card-${active}` : null} onScroll=${look} onKeyDown=${keys}>
    <div class="grid-room" role="presentation" style=${{ height: `${Math.ceil(n / shape.columns) * shape.height}px` }}>${cards}</div>
  </div>`;
}
