// The one selection: rows of shown sources that are inside the area, have the numbers and categories that are demanded,
// match the search, and are selected on a linked map, as far as a person chose these.

import { conditionsOf } from "./conditions.js";
import { positionOf } from "./data.js";
import { formatCount } from "./html.js";
import { describeQuery, matchingRows, parseQuery, queryOf } from "./query.js";
import { AREAS } from "./state.js";

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
 * @param {Pick<import("./state.js").State, "q" | "by" | "area" | "hidden" | "ranges" | "picks">} state
 * @param {Uint8Array | null} [found] 1 at the positions that a server found, if it has searched
 * @param {Uint32Array | null} [linked] ids of the rows that are selected on a linked map
 * @returns {Selection}
 */
export function select(rows, state, found, linked) {
  const { area, hidden } = state, query = queryOf(state), searched = query.terms.length > 0;
  const conditions = conditionsOf(rows, state);
  if (!searched && !area && !conditions.length && !linked) return noSelection();
  const isInside = area && marksAt(rows.grid.within(area.polygon), rows.ids.length);
  const isLinked = linked && marksAt(linked.map((id) => positionOf(rows.ids, id)), rows.ids.length);
  const isFound = searched ? found ?? foundHere(query, state.by, rows) : null;
  const positions = new Uint32Array(rows.ids.length), counts = new Uint32Array(rows.layer.sources.length);
  let selected = 0;
  for (let i = 0; i < positions.length; i++) {
    if ((isInside && !isInside[i]) || (isFound && !isFound[i]) || hidden.has(rows.source[i])) continue;
    if ((isLinked && !isLinked[i]) || !conditions.every(({ holds }) => holds(i))) continue;
    positions[selected++] = i;
    counts[rows.source[i]]++;
  }
  const title = titleOf(rows, query, area, conditions, linked);
  return { active: true, positions: positions.slice(0, selected), counts, query, title };
}

/**
 * @param {import("./query.js").Query} query
 * @param {string} by
 * @param {import("./rows.js").Rows} rows
 */
const foundHere = (query, by, rows) =>
  (by === "pattern" ? new Uint8Array(rows.ids.length) : matchingRows(query, rows));

/**
 * One at each position, 0 at the others. Positions from `length` on are ignored.
 * @param {Uint32Array} positions
 * @param {number} length
 */
function marksAt(positions, length) {
  const marks = new Uint8Array(length);
  for (const i of positions) marks[i] = 1;
  return marks;
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./query.js").Query} query
 * @param {import("./state.js").Area | null} area
 * @param {import("./conditions.js").Condition[]} conditions
 * @param {Uint32Array | null} [linked]
 */
function titleOf(rows, query, area, conditions, linked) {
  const searched = query.terms.length > 0;
  const what = (area && AREAS[area.kind]) ?? (searched && !linked ? `of ${formatCount(rows.ids.length)} rows` : "rows");
  const having = conditions.map(({ title }) => title).join(" and ");
  const elsewhere = linked ? `${area || having ? "and " : ""}selected on the other map` : "";
  return [what, having, elsewhere, searched ? describeQuery(query) : ""].filter(Boolean).join(" ");
}
