// The map as it is shown, as a picture to keep: SVG with names, lines and a legend, or the same as PNG. Up to
// MAX_VECTORS points are drawn as such, more are one picture in it.

import { META } from "./data.js";
import { byId, formatCount, html, svg } from "./html.js";
import { legendOf } from "./picture_legend.js";
import { pointPaths } from "./picture_points.js";
import { save } from "./save.js";
import { AREAS } from "./state.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./map.js").MapView} MapView
 * @typedef {import("./names.js").Names} Names
 * @typedef {{ ink: string, soft: string, paper: string, line: string, mark: string, font: string }} Look
 */

const MAX_VECTORS = 20_000;
const DENSITY = 2;  // pixels of a PNG for each of the page's
const LEGEND = 230;  // pixels
const HEAD = 44;
const MARGIN = 12;
const BASELINE = 0.35;  // of the letters' size, below the middle of a name

/**
 * @param {Session} session
 * @param {MapView} map
 * @param {Names} names
 */
export function addPicture(session, map, names) {
  for (const kind of /** @type {const} */ (["png", "svg"])) {
    byId(kind, HTMLButtonElement).addEventListener("click", async () => {
      if (!session.rows) return;
      const picture = pictureOf(session, map, names), drawn = new Blob([xmlOf(picture)], { type: "image/svg+xml" });
      save(`${META.run}-map.${kind}`, kind === "svg" ? drawn : await pngOf(picture, drawn));
    });
  }
}

/**
 * @param {Session} session
 * @param {MapView} map
 * @param {Names} names
 */
export function pictureOf(session, map, names) {
  const port = map.viewport(), look = lookOf(), { width, height } = port;
  const legend = legendOf(session, LEGEND, height), across = width + LEGEND + 3 * MARGIN;
  const down = Math.max(height, legend.height) + HEAD + MARGIN;
  const picture = svg("svg", { width: across, height: down, viewBox: `0 0 ${across} ${down}` });
  const inside = svg("clipPath", { id: "inside" });
  inside.append(svg("rect", { width, height }));
  const stage = svg("g", { transform: `translate(${MARGIN} ${HEAD})` });
  const shown = svg("g", { "clip-path": "url(#inside)" });
  shown.append(...pointsOf(map), ...linesOf(), ...overlayOf(), ...namesOf(names));
  stage.append(shown, svg("rect", { width, height, class: "frame" }));
  legend.group.setAttribute("transform", `translate(${width + 2 * MARGIN} ${HEAD})`);
  picture.append(
    svg("title", {}, META.run), svg("style", {}, styleOf(look)), inside,
    svg("rect", { width: across, height: down, class: "paper" }),
    svg("text", { x: MARGIN, y: 20, class: "title" }, META.run),
    svg("text", { x: MARGIN, y: 36, class: "soft" }, captionOf(session)), stage, legend.group,
  );
  return picture;
}

/** @param {Session} session */
function captionOf({ state, rows, selection }) {
  if (!rows) return "";
  const { view } = rows.layer, of = META.layers.length > 1 ? `, ${view}` : "";
  const what = rows.axes.length ? rows.axes.map(({ label }) => label).join(" and ") : "UMAP";
  const title = selection.title || (state.area ? AREAS[state.area.kind] : "");
  const chosen = selection.active ? `, in colour: ${formatCount(selection.positions.length)} ${title}` : "";
  return `${formatCount(rows.ids.length)} rows${of}, ${what}${chosen}`;
}

/** @param {MapView} map */
function pointsOf(map) {
  const { width, height } = map.viewport();
  if (map.scatter.count <= MAX_VECTORS) return pointPaths(map);
  return [svg("image", { href: map.pointsAsPng(DENSITY), width, height })];
}

/** The lines of equal density, as they are on the page. */
function linesOf() {
  const lines = byId("contours", SVGSVGElement);
  if (lines.hasAttribute("hidden")) return [];
  const box = lines.getBoundingClientRect(), stage = byId("points", HTMLCanvasElement).getBoundingClientRect();
  const scale = box.width / lines.viewBox.baseVal.width;
  const group = svg("g", {
    transform: `translate(${box.x - stage.x} ${box.y - stage.y}) scale(${scale})`, opacity: lines.style.opacity || 1,
    class: "lines",
  });
  group.append(...[...lines.children].map((path) => path.cloneNode()));
  return [group];
}

/** Axes, the outline of the area and the open row. */
const overlayOf = () =>
  [...byId("over", SVGElement).children].filter((part) => !part.matches(".hover, .cross"))
    .map((part) => part.cloneNode(true));

/** @param {Names} names */
function namesOf(names) {
  return names.onScreen().map(({ text, size, x, y }) => svg("text", {
    x: +x.toFixed(1), y: +(y + BASELINE * size).toFixed(1), style: `font-size: ${size.toFixed(1)}px`, class: "name",
  }, text));
}

/** @returns {Look} */
function lookOf() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`).trim();
  return {
    ink: colour("ink"), soft: colour("soft"), paper: colour("paper"), line: colour("line"), mark: colour("mark"),
    font: getComputedStyle(document.body).fontFamily,
  };
}

/** @param {Look} look */
const styleOf = ({ ink, soft, paper, line, mark, font }) => `
  text { font: 11px ${font}; fill: ${ink}; }
  .paper { fill: ${paper}; } .frame { fill: none; stroke: ${line}; }
  .title { font-size: 16px; font-weight: 600; } .soft, .tick { fill: ${soft}; }
  .points { fill: none; stroke-linecap: round; }
  .lines path { fill: none; stroke: ${ink}; vector-effect: non-scaling-stroke; }
  .level0 { stroke-opacity: 0.25; } .level1 { stroke-opacity: 0.4; } .level2 { stroke-opacity: 0.55; }
  .tick.x { text-anchor: middle; } .axis.x { text-anchor: end; }
  .outline { fill: none; stroke: ${mark}; stroke-dasharray: 4 3; }
  circle { fill: none; stroke: ${mark}; stroke-width: 3; }
  .name { font-weight: 600; text-anchor: middle; paint-order: stroke; stroke: ${paper};
    stroke-width: 3px; stroke-linejoin: round; }
  .count { text-anchor: end; fill: ${soft}; font-variant-numeric: tabular-nums; }`;

/**
 * An element as a file. Names may have control characters, which XML has no way to write.
 * @param {Element} element
 */
const xmlOf = (element) =>
  new XMLSerializer().serializeToString(element).replaceAll(/[\0-\x08\v\f\x0e-\x1f\ufffe\uffff]/g, "\ufffd");

/**
 * @param {Element} picture
 * @param {Blob} drawn the picture as SVG
 * @returns {Promise<Blob>}
 */
async function pngOf(picture, drawn) {
  const [width, height] = ["width", "height"].map((side) => DENSITY * Number(picture.getAttribute(side)));
  const canvas = html("canvas", { width, height }), image = new Image(), url = URL.createObjectURL(drawn);
  image.src = url;
  await image.decode();
  canvas.getContext("2d")?.drawImage(image, 0, 0, width, height);
  URL.revokeObjectURL(url);
  return new Promise((done, fail) => canvas.toBlob(
    (blob) => (blob ? done(blob) : fail(new Error("this browser cannot make a picture that large"))), "image/png"));
}
