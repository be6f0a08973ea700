// The legend of a picture of the map: the colours that are in it.

import { RAMP } from "./colouring.js";
import { formatNumber } from "./columns.js";
import { formatCount, svg } from "./html.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {{ name: string, colour: import("./data.js").Colour, rows: number }} Line
 */

const LINE = 18;  // pixels
const CHARACTERS = 27;
const MIN_LINES = 8;

/**
 * @param {Session} session
 * @param {number} width in pixels
 * @param {number} room height in pixels that the map has
 */
export function legendOf(session, width, room) {
  const group = svg("g", {}), { colouring } = session;
  if (colouring?.ramp) return { group: withRamp(group, colouring.ramp, width), height: 3 * LINE };
  const lines = linesOf(session), most = Math.max(Math.floor(room / LINE) - 1, MIN_LINES);
  const listed = lines.length > most ? lines.slice(0, most - 1) : lines, others = lines.slice(listed.length);
  listed.forEach(({ name, colour, rows }, at) => {
    const y = (at + 0.5) * LINE;
    group.append(
      svg("rect", { x: 0, y: y - 5, width: 10, height: 10, rx: 3, fill: `rgb(${colour})` }),
      svg("text", { x: 17, y: y + 4 }, shortened(name)),
      svg("text", { x: width, y: y + 4, class: "count" }, formatCount(rows)),
    );
  });
  if (others.length) {
    const rows = others.reduce((sum, line) => sum + line.rows, 0), y = (listed.length + 0.5) * LINE + 4;
    group.append(
      svg("text", { x: 17, y, class: "soft" }, `${formatCount(others.length)} others`),
      svg("text", { x: width, y, class: "count" }, formatCount(rows)),
    );
  }
  return { group, height: (listed.length + 1) * LINE };
}

/**
 * Shown sources or categories, those with the most rows in colour first.
 * @param {Session} session
 * @returns {Line[]}
 */
function linesOf({ rows, colouring, state, selection }) {
  if (!rows || !colouring) return [];
  const { shades, colours } = colouring, counts = new Uint32Array(colours.length);
  if (selection.active) for (const i of selection.positions) counts[shades[i]]++;
  else for (let i = 0; i < shades.length; i++) if (!state.hidden.has(rows.source[i])) counts[shades[i]]++;
  const about = rows.columns.get(state.colour)?.about, categories = about?.kind === "category" ? about.names : null;
  const names = categories ? [`no ${state.colour}`, ...categories] : rows.layer.sources;
  return [...counts.keys()].filter((shade) => counts[shade]).sort((a, b) => counts[b] - counts[a] || a - b)
    .map((shade) => ({ name: names[shade], colour: colours[shade], rows: counts[shade] }));
}

/**
 * @param {Element} group
 * @param {import("./columns.js").NumberColumn} column
 * @param {number} width
 */
function withRamp(group, column, width) {
  const { about } = column, gradient = svg("linearGradient", { id: "ramp" });
  RAMP.forEach((colour, at) =>
    gradient.append(svg("stop", { offset: at / (RAMP.length - 1), "stop-color": `rgb(${colour})` })));
  const text = (/** @type {number} */ number, /** @type {number} */ x, /** @type {string} */ anchor) =>
    svg("text", { x, y: 2.4 * LINE, style: `text-anchor: ${anchor}` }, formatNumber(number, about));
  group.append(
    gradient, svg("text", { x: 0, y: 12 }, about.title),
    svg("rect", { x: 0, y: LINE, width, height: 10, rx: 3, fill: "url(#ramp)" }),
    text(about.low, 0, "start"), text(column.numberAt(0.5), width / 2, "middle"), text(about.high, width, "end"),
  );
  return group;
}

/** @param {string} name */
function shortened(name) {
  const characters = [...name];
  return characters.length > CHARACTERS
    ? `${characters.slice(0, CHARACTERS - 9).join("")}…${characters.slice(-8).join("")}` : name;
}
