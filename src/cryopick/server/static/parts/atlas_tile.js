/** One picture out of an atlas of many, without a request of its own. */
import { html } from "../lib/html.js";

/**
 * @param {{atlas: {url: string, tile: number, columns: number, rows: number}, index: number, size: number | string, label?: string}} props
 *   `size` is the side on the screen, px, or "fill" for the width of the parent
 */
export function AtlasTile({ atlas, index, size, label }) {
  const column = index % atlas.columns;
  const row = Math.floor(index / atlas.columns);
  const share = (i, n) => (n > 1 ? (100 * i) / (n - 1) : 0);
  const side = size === "fill" ? {} : { width: `${size}px`, height: `${size}px` };
  return html`<span class="atlas-tile" role=${label ? "img" : null} aria-label=${label} aria-hidden=${label ? null : "true"} style=${{
    ...side,
    backgroundImage: `url("${new URL(atlas.url, document.baseURI).href}")`,
    backgroundSize: `${atlas.columns * 100}% ${atlas.rows * 100}%`,
    backgroundPosition: `${share(column, atlas.columns)}% ${share(row, atlas.rows)}%`,
  }}></span>`;
}
