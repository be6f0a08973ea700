// The points of a picture of the map, as SVG.

import { svg } from "./html.js";
import { greyed } from "./scatter.js";

/**
 * @typedef {import("./map.js").MapView} MapView
 * @typedef {{ colour: import("./data.js").Colour, isGrey: boolean, path: string }} Points of one colour
 */

/**
 * A path for each colour, its points as dots. Grey ones come first.
 * @param {MapView} map
 */
export function pointPaths(map) {
  const { rows } = map.session, { size, litSize, alpha } = map.frameOf(map.viewport(), 1);
  if (!rows) return [];
  const lit = map.litPositions(), isLit = new Set(lit ?? []), all = [...rows.ids.keys()];
  const grey = lit ? byColour(map, all.filter((i) => !isLit.has(i)), true) : [];
  return [...grey, ...byColour(map, lit ?? all, false)].map(({ colour, isGrey, path }) => svg("path", {
    d: path, stroke: `rgb(${colour.map(Math.round)})`, "stroke-opacity": lit && !isGrey ? Math.max(alpha, 0.8) : alpha,
    "stroke-width": +(lit && !isGrey ? litSize : size).toFixed(2), class: "points",
  }));
}

/**
 * @param {MapView} map
 * @param {Iterable<number>} positions
 * @param {boolean} isGrey
 * @returns {Points[]}
 */
function byColour(map, positions, isGrey) {
  const { rows, colouring } = map.session, port = map.viewport(), { grey } = map.frameOf(port, 1);
  /** @type {Map<number, Points>} */
  const found = new Map();
  if (!rows || !colouring) return [];
  for (const i of positions) {
    const [x, y] = map.toScreen(rows.x[i], rows.y[i], port), shade = colouring.shades[i];
    if (!map.isShown(i) || x < 0 || y < 0 || x > port.width || y > port.height) continue;
    const colour = colouring.colours[shade];
    const points = found.get(shade) ?? { colour: isGrey ? greyed(colour, grey) : colour, isGrey, path: "" };
    points.path += `M${+x.toFixed(2)} ${+y.toFixed(2)}h0`;
    found.set(shade, points);
  }
  return [...found.values()];
}
