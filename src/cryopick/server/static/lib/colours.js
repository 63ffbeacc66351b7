/** Colour maps and categorical colours that people with any colour vision tell apart. */

/** Okabe and Ito (2008), without black. Each state has a shape as well, see marks(). */
export const CATEGORIES = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];

/** Stops of the maps, evenly spaced: cividis (Nunez et al. 2018) and viridis (van der Walt and Smith 2015). */
const STOPS = {
  viridis: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"],
  cividis: ["#00224e", "#213b6e", "#4c556c", "#6c6e72", "#8e8978", "#b2a570", "#d9c55c", "#fee838"],
  "blue–red": ["#2166ac", "#67a9cf", "#d1e5f0", "#f7f7f7", "#fddbc7", "#ef8a62", "#b2182b"],
};
export const MAP_NAMES = Object.keys(STOPS);

/** Steps of a colour map: markers of one step are drawn in one go. */
export const STEPS = 32;

/** @param {string} hex @returns {[number, number, number]} */
function parse(hex) {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/**
 * The colours of a map in STEPS steps, the first for the lowest value.
 * @param {string} name
 * @returns {string[]}
 */
export function colourSteps(name) {
  const stops = (STOPS[name] ?? STOPS.viridis).map(parse);
  return Array.from({ length: STEPS }, (_, i) => {
    // The darkest tenth of a map cannot be seen on a micrograph.
    const from = name === "blue–red" ? 0 : 0.16;
    const place = (from + (1 - from) * (i / (STEPS - 1))) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[low].map((channel, c) => Math.round(channel + (stops[low + 1][c] - channel) * (place - low)));
    return `rgb(${mixed.join(" ")})`;
  });
}

/**
 * Step of a value between two limits.
 * @param {number} value @param {number} low @param {number} high
 * @returns {number} 0 to STEPS - 1
 */
export function stepOf(value, low, high) {
  if (!(high > low)) return STEPS - 1;
  const step = Math.floor(((value - low) / (high - low)) * STEPS);
  return Math.min(STEPS - 1, Math.max(0, step));
}

/** @param {string} name of a custom property @returns {string} its colour now, dark or light */
export function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
