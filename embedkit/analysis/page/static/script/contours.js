// Lines of equal density on the UMAP, for the view from far. They are drawn once per zoom at which the map rests, and
// moved as a picture meanwhile.

import { META, arrayOf } from "./data.js";
import { byId, svg } from "./html.js";

const MARGIN = 0.06, STEPS = 2 ** 16 - 1;  // of the quantized coordinates
const WHOLE = 1.3, GONE = 3.2;  // zooms from which on the lines fade, and are gone
const REST = 200;  // milliseconds

/**
 * @param {import("./session.js").Session} session
 * @param {import("./map.js").MapView} map
 */
export function addContours(session, map) {
  const picture = byId("contours", SVGSVGElement);
  let drawn = 0;  // pixels per data unit of the picture
  let isThere = false;
  /** @type {number | undefined} */
  let resting;
  const load = async () => {
    const { rows } = session, name = rows ? `${rows.view}-contours` : "";
    isThere = false;
    if (rows?.map === "umap" && name in META.types) {
      const packed = await arrayOf(name);
      if (rows !== session.rows) return;
      picture.replaceChildren(...pathsOf(packed).map((d, level) => svg("path", { d, class: `level${level}` })));
      isThere = true;
    }
    map.draw();
  };
  const draw = (/** @type {number} */ side) => {
    drawn = side;
    picture.style.width = picture.style.height = `${side * (1 + 2 * MARGIN)}px`;
    place(map.viewport());
  };
  const place = (/** @type {import("./map.js").Viewport} */ port) => {
    const share = Math.min(Math.max((GONE - port.zoom) / (GONE - WHOLE), 0), 1);
    picture.toggleAttribute("hidden", !isThere || !share || !session.state.names);
    if (picture.hasAttribute("hidden")) return;
    const side = port.scale[0], [x, y] = map.toScreen(-MARGIN, 1 + MARGIN, port);
    if (!side) return;  // the map is on a tab that is not shown
    if (!drawn) return draw(side);
    picture.style.opacity = String(share);
    picture.style.transform = `translate(${x}px, ${y}px) scale(${side / drawn})`;
    clearTimeout(resting);
    if (side !== drawn) resting = setTimeout(() => draw(side), REST);
  };
  map.follow(place);
  session.subscribe((changed) => {
    if (changed.has("rows")) load();
    else if (changed.has("names")) map.draw();
  });
}

/**
 * The lines of each level as the data of a path, in a square from 0 to STEPS.
 * @param {import("./data.js").Numbers} packed
 */
function pathsOf(packed) {
  /** @type {string[]} */
  const paths = [];
  for (let at = 0; at < packed.length;) {
    const level = packed[at], points = packed.subarray(at + 2, at + 2 + 2 * packed[at + 1]);
    let d = "M";
    for (let i = 0; i < points.length; i += 2) d += `${points[i]} ${STEPS - points[i + 1]} `;
    paths[level] = (paths[level] ?? "") + d;
    at += 2 + points.length;
  }
  return Array.from(paths, (path) => path ?? "");
}
