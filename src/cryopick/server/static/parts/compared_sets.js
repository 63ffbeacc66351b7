/** Other sets of picks, and members of classes, drawn beside the set at work. */
import { useEffect, useMemo, useState } from "../lib/html.js";
import { getPicks } from "../lib/api.js";
import { CATEGORIES } from "../lib/colours.js";

/** Colours for sets: the first is not blue or green, which the colour maps hold. */
const COLOURS = ["#e69f00", "#cc79a7", "#d55e00", "#f0e442"];

/**
 * @param {any[]} sets
 * @param {any} set at work
 * @param {string} field
 * @param {Record<string, string>} query `compare=2,5`; `classification=9&classes=1,4`
 * @param {number} pixelSize Å
 */
export function useComparedSets(sets, set, field, query, pixelSize) {
  const [chosen, setChosen] = useState(/** @type {string[]} */ ((query.compare ?? "").split(",").filter(Boolean)));
  const [layers, setLayers] = useState(/** @type {any[]} */ ([]));
  const addresses = useMemo(() => {
    const list = sets.filter((one) => one.id !== set?.id && chosen.includes(one.id)).map((one) => ({
      address: `api/sets/${one.id}/fields/${field}?source=edited`, name: one.name, id: one.id,
      colour: COLOURS[chosen.indexOf(one.id) % COLOURS.length], radius: (one.diameter ?? 100) / pixelSize / 2,
    }));
    if (query.classification && query.classes) {
      list.push({
        address: `api/classifications/${query.classification}/places/${field}?classes=${query.classes}`, name: `classes ${query.classes}`,
        id: "classes", colour: COLOURS[1], radius: ((set?.diameter ?? 100) / pixelSize / 2) * 1.1, isByClass: true,
      });
    }
    return list;
  }, [sets, set?.id, chosen.join(), field, query.classification, query.classes, pixelSize]);

  useEffect(() => {
    const control = new AbortController();
    Promise.allSettled(addresses.map(({ address }) => getPicks(address, control.signal))).then((answers) => {
      if (control.signal.aborted) return;
      setLayers(addresses.flatMap((entry, i) => (answers[i].status === "fulfilled" ? [layerOf(entry, answers[i].value)] : [])));
    });
    return () => control.abort();
  }, [addresses.map(({ address }) => address).join()]);
  const toggle = (id) => setChosen((now) => (now.includes(id) ? now.filter((one) => one !== id) : [...now, id]));
  return { chosen, toggle, layers, colourOf: (id) => COLOURS[Math.max(0, chosen.indexOf(id)) % COLOURS.length] };
}

function layerOf(entry, picks) {
  const { x, y, class_number: number } = picks.columns;
  const byClass = entry.isByClass && number ? { colours: CATEGORIES, group: (i) => Math.round(number[i]) % CATEGORIES.length } : {};
  return { ...entry, x, y, n: picks.n, ...byClass };
}
