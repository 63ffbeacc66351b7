/** One micrograph: picture, picks, tools, and what is known of it. */
import { html, useCallback, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { send, withQuery, getJson } from "../lib/api.js";
import { tell } from "../lib/events.js";
import { fieldOrder, orderQuery } from "../lib/field_order.js";
import { loadField, loadNeighbours, loadPicture, pictureOf, prefetch } from "../lib/field_cache.js";
import { useFieldPicks } from "../lib/field_picks.js";
import { useKeys } from "../lib/keyboard.js";
import { useRemote } from "../lib/remote.js";
import { goTo, linkTo } from "../lib/router.js";
import { useCanWrite } from "../lib/session.js";
import { useStore } from "../lib/store.js";
import { changeView, thresholds, viewSettings } from "../lib/view_settings.js";
import { CanvasView } from "../viewer/canvas_view.js";
import { drawScaleBar } from "../viewer/scale_bar.js";
import { drawShape, makeTool, TOOLS } from "../viewer/edit_tools.js";
import { contrastTable, percentileLimits } from "../viewer/grey_image.js";
import { useComparedSets } from "./compared_sets.js";
import { ContrastPanel, EditPanel } from "./view_panels.js";
import { FieldFacts } from "./field_facts.js";
import { markPainter } from "./mark_painter.js";
import { Loading, say, sayError } from "./messages.js";
import { NO_REASON } from "./reason_dialog.js";
import { PicksPanel, useColours } from "./picks_panel.js";
import { SpectrumPanel } from "./spectrum_panel.js";

/** Longer side of the picture asked for, px: finer tiles come when somebody looks closely. */
const PICTURE = 1024;
const JUMPS = [
  ["w", "worst", "ctf_resolution", true], ["b", "best", "ctf_resolution", false],
  ["f", "fullest", "picks", true], ["e", "emptiest", "picks", false],
];

/** The picture of a field; the last one stays on the screen until the next is there. */
function usePicture(field, settings) {
  const address = field && pictureOf(field, settings, PICTURE);
  const [shown, setShown] = useState({ field: null, address: "", image: null, counts: null, error: null });
  useEffect(() => {
    if (!address) return undefined;
    let isCurrent = true;
    loadPicture(address).then(
      (picture) => isCurrent && setShown({ field, address, ...picture, error: null }),
      (error) => isCurrent && setShown({ field, address, image: null, counts: null, error }),
    );
    return () => { isCurrent = false; };
  }, [address]);
  return shown;
}

export function FieldViewer({ id, query }) {
  const settings = useStore(viewSettings);
  const order = useStore(fieldOrder);
  const canWrite = useCanWrite();
  const field = useRemote(`field:${id}`, () => loadField(id), ["fields", "limits"]);
  const near = useRemote(withQuery(`near:${id}`, orderQuery(order)), () => loadNeighbours(id, orderQuery(order)), ["fields"]);
  const known = field.value?.id === id ? field.value : null;
  const sets = known?.sets ?? [];
  const set = sets.find((one) => one.id === (query.set ?? settings.set)) ?? sets.find((one) => one.aliases?.includes("picks")) ?? sets[0] ?? null;
  const { picks, edit, undo, redo } = useFieldPicks(set?.id ?? null, id);
  const readable = known?.error ? null : known;
  const picture = usePicture(readable, settings);
  const [toolName, setTool] = useState("move");
  const painter = useRef(null);
  const shape = useRef(null);

  useEffect(() => {
    if (near.isLoading || !near.value || !picture.image) return;
    prefetch(near.value.next, settings, PICTURE, set?.id);
    prefetch(near.value.previous, settings, PICTURE, set?.id);
  }, [near.value, picture.image]);

  const table = useMemo(() => {
    const [low, high] = picture.counts ? percentileLimits(picture.counts, settings.low, settings.high) : [0, 255];
    return contrastTable(low, high, settings.inverted);
  }, [picture.counts, settings.low, settings.high, settings.inverted]);

  const pixelSize = known?.pixel_size ?? 1;
  const radius = (set?.diameter ?? 100) / pixelSize / 2;
  const colours = useColours(picks, set, id);
  const compared = useComparedSets(sets, set, id, query, pixelSize);
  const limit = useCallback(() => thresholds.get()[set?.id] ?? picks?.threshold ?? -Infinity, [set?.id, picks]);
  const isShown = useCallback((i) => picks.origin?.[i] === 1 || picks.columns.score === undefined || picks.columns.score[i] >= limit(), [picks, limit]);
  const drawMarksNow = useMemo(() => markPainter({ picks, radius, isShown, colours, compared: compared.layers, isHidden: !settings.hasMarks }), [picks, radius, isShown, colours, compared.layers, settings.hasMarks]);
  const drawAbove = useCallback((context, view) => {
    drawMarksNow(context, view, shape.current);
    if (picture.image) drawScaleBar(context, view, picture.field.pixel_size);
    if (shape.current) drawShape(context, view, shape.current);
  }, [drawMarksNow, picture]);
  useEffect(() => thresholds.watch(() => painter.current?.redraw()), []);

  const tool = useMemo(() => (picks && canWrite ? makeTool(toolName, {
    x: picks.columns.x, y: picks.columns.y, radius, isShown, width: known?.width ?? 0, height: known?.height ?? 0,
    scale: () => painter.current.panZoom.view.scale,
    onEdit: edit,
    onDraw: (next) => { shape.current = next; painter.current?.redraw(); },
  }) : {}), [toolName, picks, radius, isShown, canWrite, known, edit]);

  const step = async (direction) => {
    try {
      const other = (await loadNeighbours(id, orderQuery(order)))[direction];
      if (other) goTo("micrograph", [other], query);
      else say("There is no further micrograph in this order.");
    } catch (error) {
      sayError(error);
    }
  };
  const jump = async (sort, isDescending) => {
    try {
      const { rows } = await getJson(withQuery("api/fields", { ...orderQuery(order), sort, descending: isDescending ? 1 : null, limit: 1, columns: "name" }));
      if (rows.length) goTo("micrograph", [rows[0][0]], query);
    } catch (error) {
      sayError(error);
    }
  };
  const why = useRef(null);
  const setTick = async (next, reason) => {
    if (!canWrite || !known) return;
    try {
      await send("PUT", "api/ticks", { fields: [id], tick: next, reason });
      const state = known.state === "failed" ? "failed" : next || known.state;
      field.setValue({ ...known, tick: next, state, reason: next === "rejected" ? reason : "" });
      tell("limits", {});
    } catch (error) {
      sayError(error);
    }
  };
  const tick = (value) => setTick(known?.tick === value ? "" : value, "");
  const rejectAndSay = async () => {
    await setTick("rejected", known?.tick === "rejected" && known.reason !== NO_REASON ? known.reason : "");
    setTimeout(() => why.current?.focus(), 50);
  };
  const zoom = (factor) => painter.current?.panZoom.zoom(factor);
  useKeys("Micrograph", [
    ["ArrowRight n", "next micrograph", () => step("next")],
    ["ArrowLeft shift+n", "previous micrograph", () => step("previous")],
    ...JUMPS.map(([key, word, sort, isDescending]) => [key, `${word} micrograph`, () => jump(sort, isDescending)]),
    ["a", "accept this micrograph", () => tick("accepted")],
    ["x", "reject this micrograph", () => tick("rejected")],
    ["shift+x", "reject it and say why", rejectAndSay],
    ["h", "hide or show picks", () => changeView({ hasMarks: !viewSettings.get().hasMarks })],
    ["i", "invert contrast", () => changeView({ inverted: !viewSettings.get().inverted })],
    ["r", "as recorded", () => changeView({ view: "raw" })],
    ["s", "low-pass", () => changeView({ view: "low_pass" })],
    ["t", "denoised", () => changeView({ view: "denoised" })],
    ["+ =", "zoom in", () => zoom(1.4)],
    ["- _", "zoom out", () => zoom(1 / 1.4)],
    ["0", "whole image", () => painter.current?.panZoom.fit()],
    ["g Escape", "gallery", () => goTo("micrograph")],
  ]);
  useKeys("Picks", canWrite ? [
    ...TOOLS.map(([name, key, , words]) => [key, words, () => setTool(name)]),
    ["ctrl+z u", "undo", undo],
    ["ctrl+shift+z ctrl+y", "redo", redo],
  ] : []);

  return html`<main id="page" class="fills" tabindex="-1">
    <div class="page-head">
      <h1 class="clip" title=${known?.name}><span class="muted">${known ? known.number : ""}</span> ${known?.name ?? " "}</h1>
      ${known?.state && html`<span class=${`chip ${{ accepted: "good", rejected: "warn", failed: "bad" }[known.state] ?? "none"}`} title=${known.reason}>${known.state}</span>`}
      <div class="aside">
        <span class="segments wide-only" role="group" aria-label="Jump to">${JUMPS.map(([key, word, sort, isDescending]) => html`<button key=${word} title=${`${sort === "picks" ? { fullest: "Most picks", emptiest: "Fewest picks" }[word] : `${word === "worst" ? "Worst" : "Best"} CTF resolution`}, of those listed (${key})`} onClick=${() => jump(sort, isDescending)}>${word}</button>`)}</span>
        <a class="button" title="All micrographs (g)" href=${linkTo("micrograph")}>All</a>
        <span class="segments" role="group" aria-label="Micrographs"><button aria-label="Previous micrograph" title="Previous, in the order of the table (←)" disabled=${!near.value?.previous} onClick=${() => step("previous")}>←</button><button aria-label="Next micrograph" title="Next, in the order of the table (→)" disabled=${!near.value?.next} onClick=${() => step("next")}>→</button></span>
      </div>
    </div>
    <${Loading} remote=${field} what="the micrograph" />
    <div class="columns viewer">
      <${CanvasView} label=${`Micrograph ${known?.name ?? ""} with ${picks?.n ?? 0} peaks`} image=${readable && picture.image} width=${picture.field?.width ?? 1} height=${picture.field?.height ?? 1}
        table=${table} tool=${tool} painterRef=${painter} drawAbove=${drawAbove} cursor=${toolName === "move" ? "grab" : "crosshair"}
        tileSource=${settings.view === "raw" && picture.field ? { address: picture.field.image.tiles, size: picture.field.image.tile_size, levels: picture.field.image.levels } : null}>
        ${known?.error && html`<p class="stage-note notice bad" role="alert">${known.error}</p>`}
        ${readable && picture.address !== pictureOf(readable, settings, PICTURE) && !picture.error && html`<p class="stage-busy" role="status">reading …</p>`}
        ${readable && picture.error && html`<p class="stage-note notice bad" role="alert">${picture.error.message}</p>`}
        <span class="visually-hidden" data-testid="shown-field">${picture.field?.id === id && picks ? id : ""}</span>
      </${CanvasView}>
      <div class="side">
        <${ContrastPanel} settings=${settings} pixelSize=${pixelSize} />
        <${PicksPanel} sets=${sets} set=${set} picks=${picks} field=${id} colours=${colours} compared=${compared} settings=${settings} />
        ${canWrite && set && html`<${EditPanel} set=${set} toolName=${toolName} onTool=${setTool} onUndo=${undo} onRedo=${redo} />`}
        ${known && html`<${FieldFacts} field=${known} onTick=${canWrite ? tick : null} onReason=${(reason) => setTick("rejected", reason)} why=${why} />`}
        ${known?.has_ctf && html`<${SpectrumPanel} id=${id} />`}
      </div>
    </div>
  </main>`;
}
