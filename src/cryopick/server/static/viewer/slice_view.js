/** One slice of a tomogram: image, segmentation, circles where picks meet it, and the lines of the other slices. */
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { getBlob } from "../lib/api.js";
import { CATEGORIES } from "../lib/colours.js";
import { applyContrast, decodeGrey } from "./grey_image.js";

/** For each axis: which coordinate goes to the right and which down. */
const ACROSS = { z: ["x", "y"], y: ["x", "z"], x: ["z", "y"] };
const KEPT = 64;

/** @type {Map<string, Promise<import("./grey_image.js").GreyImage>>} */
const slices = new Map();

function loadSlice(address) {
  let slice = slices.get(address);
  if (slice) slices.delete(address);
  else {
    slice = getBlob(address).then(decodeGrey);
    slice.catch(() => slices.delete(address));
  }
  slices.set(address, slice);
  if (slices.size > KEPT) slices.delete(slices.keys().next().value);
  return slice;
}

/** Clusters in colours, half transparent; 0 and 255 are none. */
function clusterTable() {
  const table = new Uint32Array(256);
  for (let value = 1; value < 255; value += 1) {
    const colour = Number.parseInt(CATEGORIES[value % CATEGORIES.length].slice(1), 16);
    table[value] = 0x70000000 | ((colour & 255) << 16) | (colour & 0xff00) | (colour >> 16);
  }
  return table;
}
const CLUSTERS = clusterTable();

/** The newest slice that has arrived; the one before stays until then. */
function useSlice(address) {
  const [slice, setSlice] = useState(null);
  useEffect(() => {
    if (!address) { setSlice(null); return undefined; }
    let isCurrent = true;
    const timer = setTimeout(() => loadSlice(address).then((image) => isCurrent && setSlice(image), () => {}), 15);
    return () => { isCurrent = false; clearTimeout(timer); };
  }, [address]);
  return slice;
}

const addressOf = (template, axis, index) => template.replace("{axis}", axis).replace("{index}", String(index));

function drawPicks(context, { picks, axis, at, tomogram, scale, hidden, colourOf }) {
  const [right, down] = ACROSS[axis];
  const { columns, n } = picks;
  context.lineWidth = 1.75;
  for (let i = 0; i < n; i += 1) {
    const kind = columns.kind?.[i] ?? 0;
    if (hidden.has(kind)) continue;
    const radius = ((columns.diameter?.[i] ?? 100) / tomogram.voxel_size) / 2;
    const away = columns[axis][i] - at[axis];
    if (Math.abs(away) > radius) continue;
    context.strokeStyle = colourOf(kind);
    context.beginPath();
    context.arc((columns[right][i] + 0.5) * scale, (columns[down][i] + 0.5) * scale, Math.max(3, Math.sqrt(radius ** 2 - away ** 2) * scale), 0, 2 * Math.PI);
    context.stroke();
  }
}

export function SliceView({ axis, tomogram, at, onMove, table, picks, hasSegmentation, hidden, colourOf }) {
  const canvas = useRef(null);
  const box = useRef(null);
  const [size, setSize] = useState([1, 1]);
  const [right, down] = ACROSS[axis];
  const length = { z: tomogram.shape[0], y: tomogram.shape[1], x: tomogram.shape[2] };
  const slice = useSlice(addressOf(tomogram.slice, axis, at[axis]));
  const clusters = useSlice(hasSegmentation && tomogram.segmentation ? addressOf(tomogram.segmentation, axis, at[axis]) : null);
  useEffect(() => {
    const observer = new ResizeObserver(() => box.current && setSize([box.current.clientWidth, box.current.clientHeight]));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const scale = Math.min(size[0] / length[right], size[1] / length[down]);
  const width = length[right] * scale;
  const height = length[down] * scale;

  useLayoutEffect(() => {
    const ratio = devicePixelRatio || 1;
    canvas.current.width = Math.max(1, Math.round(width * ratio));
    canvas.current.height = Math.max(1, Math.round(height * ratio));
    const context = canvas.current.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = scale * ratio < 4;
    if (slice) { applyContrast(slice, table); context.drawImage(slice.canvas, 0, 0, width, height); }
    if (clusters) {
      applyContrast(clusters, CLUSTERS);
      context.imageSmoothingEnabled = false;
      context.drawImage(clusters.canvas, 0, 0, width, height);
    }
    if (picks) drawPicks(context, { picks, axis, at, tomogram, scale, hidden, colourOf });
    context.fillStyle = "rgb(255 255 255 / 40%)";
    context.fillRect((at[right] + 0.5) * scale, 0, 1, height);
    context.fillRect(0, (at[down] + 0.5) * scale, width, 1);
  }, [slice, clusters, table, picks, at, width, height, hidden]);

  const point = (event) => {
    const place = canvas.current.getBoundingClientRect();
    onMove({ [right]: (event.clientX - place.left) / scale - 0.5, [down]: (event.clientY - place.top) / scale - 0.5 });
  };
  const press = (event) => { canvas.current.setPointerCapture(event.pointerId); point(event); };
  useEffect(() => {
    const element = canvas.current;
    const wheel = (event) => { event.preventDefault(); onMove({ [axis]: at[axis] + Math.sign(event.deltaY) }); };
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  }, [at]);
  return html`<figure ref=${box} class=${`slice ${axis}`}>
    <canvas ref=${canvas} role="img" aria-label=${`Slice ${axis} = ${at[axis]}: ${right} to the right, ${down} down`} style=${{ width: `${width}px`, height: `${height}px` }}
      onPointerDown=${press} onPointerMove=${(event) => event.buttons && point(event)}></canvas>
    <figcaption>${right}${down}, ${axis} = ${at[axis]}</figcaption>
  </figure>`;
}
