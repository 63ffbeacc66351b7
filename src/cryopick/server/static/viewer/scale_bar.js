/** A bar of a round length at the lower left of a picture, with its length in words. */

const LONGEST = 130; // px of the screen
const MARGIN = 14;
const ROUND = [5, 2, 1];

/**
 * The longest round length that fits.
 * @param {number} nmPerPx of the screen
 * @returns {number} nm
 */
export function roundLength(nmPerPx) {
  const most = LONGEST * nmPerPx;
  const power = 10 ** Math.floor(Math.log10(most));
  return ROUND.find((step) => step * power <= most) * power;
}

/** @param {number} nm @returns {string} */
export const lengthInWords = (nm) => (nm >= 1000 ? `${nm / 1000} µm` : nm >= 1 ? `${nm} nm` : `${Math.round(nm * 10)} Å`);

/**
 * @param {CanvasRenderingContext2D} context in CSS pixels
 * @param {import("./view_box.js").ViewBox} view
 * @param {number} pixelSize Å/px of the image
 */
export function drawScaleBar(context, view, pixelSize) {
  const nmPerPx = pixelSize / 10 / view.scale;
  if (!(nmPerPx > 0) || !Number.isFinite(nmPerPx)) return;
  const nm = roundLength(nmPerPx);
  const width = nm / nmPerPx;
  const bottom = context.canvas.clientHeight - MARGIN;
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(MARGIN - 8, bottom - 22, width + 16, 30);
  context.fillStyle = "#fff";
  context.fillRect(MARGIN, bottom - 3, width, 3);
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillText(lengthInWords(nm), MARGIN + width / 2, bottom - 8);
}
