/** Grey images in memory: decoded once, shown through a table of 256 greys, so contrast is instant. */

/** @typedef {{width: number, height: number, grey: Uint8Array, canvas: OffscreenCanvas, pixels: ImageData, words: Uint32Array}} GreyImage */

/**
 * Decode an 8-bit image. Blobs are not shown by address: the page's rules forbid that.
 * @param {Blob} blob
 * @returns {Promise<GreyImage>}
 */
export async function decodeGrey(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height);
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i += 1) grey[i] = pixels.data[4 * i];
  return { width, height, grey, canvas, pixels, words: new Uint32Array(pixels.data.buffer) };
}

/** @param {Uint8Array} grey @returns {Uint32Array} (256,) pixels of each grey */
export function greyHistogram(grey) {
  const counts = new Uint32Array(256);
  for (let i = 0; i < grey.length; i += 1) counts[grey[i]] += 1;
  return counts;
}

/**
 * Greys below which given shares of the pixels lie.
 * @param {Uint32Array} counts (256,)
 * @param {number} low percentile @param {number} high percentile
 * @returns {[number, number]}
 */
export function percentileLimits(counts, low, high) {
  const total = counts.reduce((sum, n) => sum + n, 0);
  let sum = 0;
  let first = 0;
  let last = 255;
  for (let value = 0; value < 256; value += 1) {
    if (sum <= (low / 100) * total) first = value;
    sum += counts[value];
    if (sum >= (high / 100) * total) {
      last = value;
      break;
    }
  }
  return [first, Math.max(last, first + 1)];
}

/**
 * Shown pixel for each stored grey.
 * @param {number} low stored grey shown black @param {number} high stored grey shown white
 * @param {boolean} inverted
 * @returns {Uint32Array} (256,) opaque pixels
 */
export function contrastTable(low, high, inverted) {
  const table = new Uint32Array(256);
  const width = Math.max(high - low, 1);
  for (let value = 0; value < 256; value += 1) {
    const share = Math.min(1, Math.max(0, (value - low) / width));
    const shown = Math.round(255 * (inverted ? 1 - share : share));
    table[value] = 0xff000000 | (shown << 16) | (shown << 8) | shown;
  }
  return table;
}

/**
 * Draw the image through a table into its own canvas.
 * @param {GreyImage} image
 * @param {Uint32Array} table (256,)
 */
export function applyContrast(image, table) {
  const { grey, words } = image;
  for (let i = 0; i < grey.length; i += 1) words[i] = table[grey[i]];
  image.canvas.getContext("2d").putImageData(image.pixels, 0, 0);
}
