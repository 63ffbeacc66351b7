/** The set of picks at work: threshold with live counts, colours, sets to compare. */
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { getJson, showCommand, withQuery } from "../lib/api.js";
import { CATEGORIES, colourSteps, MAP_NAMES, STEPS } from "../lib/colours.js";
import { count } from "../lib/format.js";
import { useJson } from "../lib/remote.js";
import { setQuery } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { changeView, setThreshold, thresholds, viewSettings } from "../lib/view_settings.js";
import { colourGroups } from "./mark_painter.js";
import { DraftInput } from "./draft_input.js";
import { sayError } from "./messages.js";
import { ScoreHistogram } from "./score_histogram.js";

const UNKNOWN_COLOUR = "#bdbdbd";
const NO_SCORES = new Float64Array(0);

/** Values that picks are coloured by, with their range, and the colour of each pick. */
export function useColours(picks, set, field) {
  const { colourBy, map } = useStore(viewSettings);
  const [range, setRange] = useState({ by: "", low: null, high: null });
  const [from, column] = colourBy.includes(":") ? colourBy.split(":") : [null, colourBy];
  const labels = useJson(from && set ? withQuery(`api/sets/${set.id}/fields/${field}/labels`, { from, column, source: "edited", threshold: -1e9 }) : null);
  return useMemo(() => {
    const values = from ? labels.value?.values ?? null : picks?.columns[column] ?? null;
    const isCategory = /class|kind|group/.test(column);
    const said = from ? null : picks?.labels?.[column];
    const [least, most] = said?.minimum != null ? [said.minimum, said.maximum] : extent(values);
    const isMine = range.by === colourBy;
    const low = (isMine ? range.low : null) ?? least;
    const high = (isMine ? range.high : null) ?? most;
    const steps = isCategory ? CATEGORIES : colourSteps(map);
    const colours = Array.from({ length: STEPS + 1 }, (_, i) => (i === STEPS ? UNKNOWN_COLOUR : steps[i % steps.length]));
    const groups = colourGroups(values, picks?.n ?? 0, { low, high, isCategory });
    const set2 = (changes) => setRange((now) => ({ ...(now.by === colourBy ? now : { low: null, high: null }), by: colourBy, ...changes }));
    return { values, isCategory, low, high, colours, groups, map, colourBy, setRange: set2 };
  }, [picks, labels.value, colourBy, map, range]);
}

/** @param {ArrayLike<number | null> | null} values @returns {[number, number]} */
function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (let i = 0; i < (values?.length ?? 0); i += 1) {
    const value = values[i];
    if (value == null || Number.isNaN(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [0, 1];
}

/** From where to where the slider goes: scores of some pickers have no ends of their own. */
function scoreRange(score, edges, scores) {
  const [least, most] = edges?.length ? [edges[0], edges.at(-1)] : extent(scores);
  return [score.lowest ?? least, score.highest ?? most];
}

export function PicksPanel({ sets, set, picks, field, colours, compared, settings }) {
  if (!set) return html`<section class="panel" aria-label="Picks"><p class="muted">Nothing has been picked in this micrograph yet.</p></section>`;
  const choose = (id) => { changeView({ set: id }); setQuery({ set: id }); };
  const others = sets.filter((one) => one.id !== set.id);
  return html`<section class="panel stack" aria-label="Picks">
    <div class="row spread nowrap">
      <select class="grow" aria-label="Set of picks" value=${set.id} onChange=${(event) => choose(event.currentTarget.value)}>
        ${sets.map((one) => html`<option key=${one.id} value=${one.id}>${one.name}${one.aliases?.length && one.aliases[0] !== one.name.toLowerCase() ? ` (${one.aliases[0]})` : ""}</option>`)}
      </select>
      <button aria-pressed=${settings.hasMarks ? "true" : "false"} title="Hide or show picks (h)" onClick=${() => changeView({ hasMarks: !settings.hasMarks })}>Show</button>
    </div>
    ${set.score && html`<${Threshold} set=${set} picks=${picks} field=${field} />`}
    <${Colours} set=${set} sets=${sets} picks=${picks} colours=${colours} />
    ${others.length > 0 && html`<details><summary>Compare with other sets</summary>
      <ul class="plain-list">${others.map((one) => html`<li key=${one.id}><label><input type="checkbox" checked=${compared.chosen.includes(one.id)} onChange=${() => compared.toggle(one.id)} />
        ${compared.chosen.includes(one.id) && html`<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect x="1" y="1" width="8" height="8" fill="none" stroke-width="2" stroke=${compared.colourOf(one.id)} /></svg>`}
        ${one.name} <span class="muted small">${count(one.n_picks)}</span></label></li>`)}</ul></details>`}
    ${compared.layers.filter((layer) => layer.id === "classes").map((layer) => html`<p class="small row spread" key="classes"><span>${layer.n} members of ${layer.name}</span><button class="plain" onClick=${() => setQuery({ classification: null, classes: null })}>hide</button></p>`)}
  </section>`;
}

function Threshold({ set, picks, field }) {
  const chosen = useStore(thresholds)[set.id];
  const all = useJson(`api/sets/${set.id}/histogram?bins=96`, ["jobs"]);
  const sets = useJson("api/sets", ["jobs", "edits"]);
  const ofJob = sets.value?.sets.find((one) => one.id === set.id);
  const [total, setTotal] = useState(null);
  const asked = useRef({ timer: 0, control: null });
  const own = picks?.threshold ?? set.threshold;
  const scores = picks?.columns.score ?? NO_SCORES;
  const [low, high] = useMemo(() => scoreRange(set.score, all.value?.edges, scores), [set.score, all.value, scores]);
  const threshold = Math.max(low, chosen ?? own ?? low);
  const n = useMemo(() => {
    let shown = 0;
    for (let i = 0; i < (picks?.n ?? 0); i += 1) if (picks.origin?.[i] === 1 || scores[i] >= threshold) shown += 1;
    return shown;
  }, [picks, threshold]);

  const ask = (value, isLast) => {
    clearTimeout(asked.current.timer);
    asked.current.timer = setTimeout(async () => {
      asked.current.control?.abort();
      asked.current.control = new AbortController();
      try {
        const answer = await getJson(withQuery(`api/sets/${set.id}/count`, { threshold: value }), asked.current.control.signal);
        setTotal(answer);
        if (isLast) showCommand(answer.command);
      } catch (error) {
        sayError(error);
      }
    }, isLast ? 0 : 120);
  };
  useEffect(() => { setTotal(null); if (chosen != null) ask(chosen, false); }, [set.id]);
  useEffect(() => () => { clearTimeout(asked.current.timer); asked.current.control?.abort(); }, []);
  const input = (value) => { setThreshold(set.id, value); ask(value, false); };
  const change = (value) => { setThreshold(set.id, value); ask(value, true); };
  const reset = () => { clearTimeout(asked.current.timer); setThreshold(set.id, null); setTotal(null); };
  return html`<div class="threshold">
    <div class="row spread"><label for="threshold-number">Threshold</label>
      <${DraftInput} id="threshold-number" class="narrow" type="number" step="any" value=${Number(threshold.toPrecision(5))} onCommit=${(_, { valueAsNumber }) => Number.isFinite(valueAsNumber) && change(valueAsNumber)} />
      <button class="plain" disabled=${chosen == null} title="Take the threshold of the job again" onClick=${reset}>reset</button></div>
    <${ScoreHistogram} scores=${scores} range=${[low, high]} all=${all.value} threshold=${threshold} onInput=${input} onChange=${change} />
    <dl class="facts" aria-live="off">
      <dt>in this micrograph</dt><dd><b data-testid="n-shown">${count(n)}</b> of ${count(picks?.n)} peaks</dd>
      <dt>in all micrographs</dt><dd>${chosen == null ? html`<b data-testid="n-all-shown">${count(ofJob?.n_picks)}</b> of the job` : html`<b data-testid="n-all-shown">${total ? count(total.n) : "…"}</b> in ${count(total?.n_fields ?? ofJob?.n_fields)} micrographs`}</dd>
    </dl>
    <p class="small muted">${set.score.meaning}. Line: all micrographs.</p>
  </div>`;
}

function Colours({ set, sets, picks, colours }) {
  const own = Object.keys(picks?.columns ?? {}).filter((name) => !["x", "y"].includes(name));
  const others = sets.filter((one) => one.id !== set.id).flatMap((one) => (one.columns ?? []).filter((name) => !["x", "y"].includes(name)).map((name) => [`${one.id}:${name}`, `${one.name}: ${name.replaceAll("_", " ")}`]));
  const title = (name) => picks?.labels?.[name]?.title ?? name.replaceAll("_", " ");
  const isListed = own.includes(colours.colourBy) || others.some(([value]) => value === colours.colourBy);
  const change = (side) => (_, { valueAsNumber }) => colours.setRange({ [side]: Number.isFinite(valueAsNumber) ? valueAsNumber : null });
  return html`<div class="stack tight">
    <div class="row spread nowrap"><label for="colour-by">Colour</label>
      <select id="colour-by" class="grow" value=${isListed ? colours.colourBy : "score"} onChange=${(event) => changeView({ colourBy: event.currentTarget.value })}>
        ${own.map((name) => html`<option key=${name} value=${name}>${title(name)}</option>`)}
        ${others.length > 0 && html`<optgroup label="of the nearest particle of">${others.map(([value, words]) => html`<option key=${value} value=${value}>${words}</option>`)}</optgroup>`}
      </select>
      <select aria-label="Colour map" value=${colours.map} onChange=${(event) => changeView({ map: event.currentTarget.value })}>${MAP_NAMES.map((name) => html`<option key=${name}>${name}</option>`)}</select></div>
    ${!colours.isCategory && html`<div class="colour-scale">
      <${DraftInput} type="number" step="any" aria-label="Lowest colour at" value=${Number(colours.low.toPrecision(3))} onCommit=${change("low")} />
      <svg viewBox=${`0 0 ${STEPS} 4`} preserveAspectRatio="none" aria-hidden="true">${colours.colours.slice(0, STEPS).map((colour, i) => html`<rect key=${i} x=${i} y="0" width="1.05" height="4" fill=${colour} />`)}</svg>
      <${DraftInput} type="number" step="any" aria-label="Highest colour at" value=${Number(colours.high.toPrecision(3))} onCommit=${change("high")} />
    </div>`}
    <p class="small muted">Dashed white: added by hand.</p>
  </div>`;
}
