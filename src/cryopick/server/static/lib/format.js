/** Numbers, times and names as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** @param {number | null | undefined} value @returns {string} whole number with separators, or a dash */
export function count(value) {
  return value == null || !Number.isFinite(value) ? "–" : whole.format(value);
}

/**
 * A measured value with about three significant digits.
 * @param {number | null | undefined} value
 * @param {number} [digits]
 * @returns {string}
 */
export function measure(value, digits = 3) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 10 ** digits) return whole.format(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

/** A measured value with as many digits as its neighbours have. @param {number | null | undefined} value @returns {string} */
export function steady(value, digits = 3) {
  if (value == null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) || size >= 10 ** digits) return whole.format(value);
  return size >= 0.001 ? value.toFixed(Math.max(0, digits - 1 - Math.max(-1, Math.floor(Math.log10(size))))) : measure(value);
}

/** @param {number | null | undefined} seconds @returns {string} such as "2 h 05 min" */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** @param {string | number | null | undefined} when ISO text or seconds since 1970 @returns {string} */
export function moment(when) {
  if (when == null || when === "") return "–";
  const date = new Date(typeof when === "number" ? when * 1000 : when);
  if (Number.isNaN(date.getTime())) return String(when);
  const day = date.toDateString() === new Date().toDateString() ? "" : `${date.getDate()} ${date.toLocaleString("en", { month: "short" })} `;
  return `${day}${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
}

/** @param {string} path @returns {string} name of a file without folders */
export function baseName(path) {
  return String(path ?? "").split("/").pop() ?? "";
}

/** @param {number} number @param {string} one @param {string} [many] @returns {string} such as "3 classes" */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** Units as people write them; options on the command line keep to plain letters. */
const UNITS = { A: "Å", "A/px": "Å/px", "A^2": "Å²", "e/A^2": "e/Å²", deg: "°" };

/** @param {string | null | undefined} unit of a parameter @returns {string} */
export const shownUnit = (unit) => UNITS[unit] ?? unit ?? "";
