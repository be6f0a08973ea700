// The one selection: rows of shown sources, inside the area if there is one, that match the search if there is one.

import { positionOf } from "./data.js";
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
 * @param {Pick<import("./state.js").State, "q" | "area" | "hidden">} state
 * @returns {Selection}
 */
export function select(rows, { q, area, hidden }) {
  const query = parseQuery(q), searched = query.terms.length > 0;
  if (!searched && !area) return noSelection();
  const isShown = (/** @type {number} */ i) => !hidden.has(rows.source[i]);
  const inArea = area && rows.grid.within(area.polygon).filter(isShown);
  const found = searched && Uint32Array.from(
    findTexts(query, rows.texts).map((at) => positionOf(rows.ids, rows.texts.id[at]))
      .filter((i) => i >= 0 && isShown(i)));
  const positions = inArea && found ? intersection(inArea, found) : inArea || found || new Uint32Array(0);
  const counts = new Uint32Array(rows.layer.sources.length);
  for (const i of positions) counts[rows.source[i]]++;
  return { active: true, positions, counts, query, title: titleOf(rows, query, area) };
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./query.js").Query} query
 * @param {import("./state.js").Area | null} area
 */
function titleOf(rows, query, area) {
  if (!query.terms.length) return area?.title ?? "";
  if (area) return `${area.title} ${describeQuery(query)}`;
  return `of ${rows.texts.id.length.toLocaleString("en-US")} rows with texts ${describeQuery(query)}`;
}

/**
 * The numbers in both ascending lists.
 * @param {Uint32Array<ArrayBuffer>} a
 * @param {Uint32Array<ArrayBuffer>} b
 */
function intersection(a, b) {
  const wanted = new Set(b);
  return a.filter((i) => wanted.has(i));
}
