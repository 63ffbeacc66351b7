/** Finer tiles of an image, fetched while somebody looks closely. */
import { getBlob } from "../lib/api.js";
import { applyContrast, decodeGrey } from "./grey_image.js";
import { toImage } from "./view_box.js";

const KEPT = 96;

export class Tiles {
  /**
   * @param {{address: string, size: number, levels: number, width: number, height: number}} source
   *   address with {level}, {x} and {y}; level 0 has the image's own pixels
   * @param {() => void} onLoad
   */
  constructor(source, onLoad) {
    this.source = source;
    this.onLoad = onLoad;
    /** @type {Map<string, {image: import("./grey_image.js").GreyImage | null, table: Uint32Array | null}>} */
    this.tiles = new Map();
  }

  /** Level whose pixels are nearest to those of the screen, not coarser. */
  levelFor(scale) {
    const ratio = devicePixelRatio || 1;
    return Math.max(0, Math.min(this.source.levels - 1, Math.floor(Math.log2(1 / (scale * ratio)))));
  }

  /**
   * Draw what is there of the tiles on the screen, and fetch what is not.
   * @param {CanvasRenderingContext2D} context
   * @param {import("./view_box.js").ViewBox} view
   * @param {Uint32Array} table
   */
  draw(context, view, table, screenWidth, screenHeight) {
    const { size, width, height } = this.source;
    const level = this.levelFor(view.scale);
    const step = size * 2 ** level;
    const [left, top] = toImage(view, 0, 0);
    const [right, bottom] = toImage(view, screenWidth, screenHeight);
    for (let y = Math.max(0, Math.floor(top / step)); y * step < Math.min(height, bottom); y += 1) {
      for (let x = Math.max(0, Math.floor(left / step)); x * step < Math.min(width, right); x += 1) {
        const tile = this.#tile(level, x, y);
        if (!tile.image) continue;
        if (tile.table !== table) {
          applyContrast(tile.image, table);
          tile.table = table;
        }
        const side = 2 ** level * view.scale;
        context.drawImage(tile.image.canvas, view.x + (x * step - 0.5) * view.scale, view.y + (y * step - 0.5) * view.scale,
          tile.image.width * side, tile.image.height * side);
      }
    }
  }

  #tile(level, x, y) {
    const key = `${level}/${x}/${y}`;
    const known = this.tiles.get(key);
    if (known) return known;
    const tile = { image: null, table: null };
    this.tiles.set(key, tile);
    if (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
    const address = this.source.address.replace("{level}", String(level)).replace("{x}", String(x)).replace("{y}", String(y));
    getBlob(address).then(decodeGrey).then(
      (image) => { tile.image = image; this.onLoad(); },
      () => setTimeout(() => this.tiles.delete(key), 3000),
    );
    return tile;
  }
}
