// The one selection: rows of shown sources that are inside the area, have numbers within the ranges, and match the
// search, as far as a person chose these.

import { positionOf } from "./data.js";
import { formatCount } from "./html.js";
import { describeQuery, findTexts, parseQuery } from "./query.js";

/**
 * @typedef {object} Selection
 * @property {boolean} active whether a person selected anything; if not, no row is selected
 * @property {Uint32Array<ArrayBuffer>} positions of the selected rows, ascending
 * @property {Uint32Array} counts of the selected rows by source
 * @property {string} title what they are, to follow their number
 * @property {import("./query.js").Query} query
 */

/** @returns {Selection} */
export const noSelection = () =>
  ({ active: false, positions: new Uint32Array(0), counts: new Uint32Array(0), title: "", query: parseQuery("") });

/**
 * @param {import("./rows.js").Rows} rows
 * @param {Pick<import("./state.js").State, "q" | "area" | "hidden" | "ranges">} state
 * @returns {Selection}
 */
export function select(rows, { q, area, hidden, ranges }) {
  const query = parseQuery(q), searched = query.terms.length > 0, limits = limitsOf(ranges);
  if (!searched && !area && !limits.length) return noSelection();
  const candidates = [
    ...(area ? [rows.grid.within(area.polygon)] : []),
    ...(searched ? [positionsFound(rows, query)] : []),
  ];
  const isSelected = (/** @type {number} */ i) => !hidden.has(rows.source[i])
    && limits.every(([name, least, most]) => rows[name][i] >= least && rows[name][i] <= most);
  const positions = (candidates.length ? candidates.reduce(intersection) : rows.ids.map((_, i) => i))
    .filter(isSelected);
  const counts = new Uint32Array(rows.layer.sources.length);
  for (const i of positions) counts[rows.source[i]]++;
  return { active: true, positions, counts, query, title: titleOf(rows, query, area, limits) };
}

/**
 * The ranges that limit something, as [name, least, most].
 * @param {import("./state.js").Ranges} ranges
 */
function limitsOf(ranges) {
  return /** @type {("tokens" | "turns")[]} */ (["tokens", "turns"])
    .filter((name) => ranges[name].some((limit) => limit !== null))
    .map((name) => /** @type {["tokens" | "turns", number, number]} */ (
      [name, ranges[name][0] ?? 0, ranges[name][1] ?? Infinity]));
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./query.js").Query} query
 */
function positionsFound(rows, query) {
  const found = findTexts(query, rows.texts).map((at) => positionOf(rows.ids, rows.texts.id[at]));
  return Uint32Array.from(found.filter((i) => i >= 0));
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./query.js").Query} query
 * @param {import("./state.js").Area | null} area
 * @param {["tokens" | "turns", number, number][]} limits
 */
function titleOf(rows, query, area, limits) {
  const searched = query.terms.length > 0;
  const what = area?.title ?? (searched ? `of ${formatCount(rows.texts.id.length)} rows with texts` : "rows");
  const having = limits.map(([name, least, most]) =>
    `${formatCount(least)} ${most === Infinity ? "or more" : `to ${formatCount(most)}`} ${name}`);
  return [what, having.length ? `with ${having.join(" and ")}` : "", searched ? describeQuery(query) : ""]
    .filter(Boolean).join(" ");
}

/**
 * The numbers in both ascending lists.
 * @param {Uint32Array<ArrayBuffer>} a
 * @param {Uint32Array<ArrayBuffer>} b
 */
function intersection(a, b) {
  let at = 0;
  return a.filter((i) => {
    while (b[at] < i) at++;
    return b[at] === i;
  });
}
