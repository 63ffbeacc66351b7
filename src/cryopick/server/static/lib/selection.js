/** Sets of numbers that somebody marks: one by one, ranges, all, none, the others. */

/** @param {Set<number>} now @param {number} number @returns {Set<number>} */
export function toggled(now, number) {
  const next = new Set(now);
  if (!next.delete(number)) next.add(number);
  return next;
}

/**
 * With all between two places of an order, both included.
 * @param {Set<number>} now @param {number[]} order @param {number} from @param {number} to
 * @returns {Set<number>}
 */
export function withRange(now, order, from, to) {
  const next = new Set(now);
  for (let i = Math.min(from, to); i <= Math.max(from, to); i += 1) next.add(order[i]);
  return next;
}

/** @param {Set<number>} now @param {number[]} order @returns {Set<number>} */
export const inverted = (now, order) => new Set(order.filter((number) => !now.has(number)));

/**
 * Numbers as people and commands write them: "1,4-6".
 * @param {Iterable<number>} numbers
 * @returns {string}
 */
export function asRanges(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const parts = [];
  for (let i = 0; i < sorted.length; i += 1) {
    const first = sorted[i];
    while (sorted[i + 1] === sorted[i] + 1) i += 1;
    parts.push(sorted[i] > first ? `${first}-${sorted[i]}` : `${first}`);
  }
  return parts.join(",");
}
