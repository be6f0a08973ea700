// What a person demands of the numbers and categories of selected rows.

import { CategoryColumn, formatNumber } from "./columns.js";
import { COLUMN, selectedName } from "./groups.js";

/**
 * @typedef {object} Condition
 * @property {(i: number) => boolean} holds whether a row fulfils it
 * @property {string} title to follow "rows"
 */

const MAX_NAMED = 3;  // categories in a title

/**
 * @param {import("./rows.js").Rows} rows
 * @param {Pick<import("./state.js").State, "ranges" | "picks">} state
 * @returns {Condition[]}
 */
export function conditionsOf({ columns, view }, { ranges, picks }) {
  return [...columns.values()].flatMap((column) => {
    const { name } = column.about;
    if (column instanceof CategoryColumn) return picks[name]?.size ? [isPicked(view, column, picks[name])] : [];
    return ranges[name]?.some((limit) => limit !== null) ? [isWithin(column, ranges[name])] : [];
  });
}

/**
 * @param {import("./columns.js").NumberColumn} column
 * @param {import("./state.js").Range} range
 * @returns {Condition}
 */
function isWithin(column, range) {
  const { about, levels } = column, [first, last] = column.levelsOf(range), [least, most] = range;
  const text = (/** @type {number} */ limit) => formatNumber(limit, about);
  const limits = most === null ? `${text(least ?? about.low)} or more` : `${text(least ?? about.low)} to ${text(most)}`;
  return { holds: (i) => levels[i] >= first && levels[i] <= last, title: `with ${limits} ${about.name}` };
}

/**
 * @param {number} view
 * @param {CategoryColumn} column
 * @param {Set<number>} codes
 * @returns {Condition}
 */
function isPicked(view, { about, levels }, codes) {
  const marks = new Uint8Array(about.names.length + 1), names = [...codes].map((code) => `"${about.names[code]}"`);
  for (const code of codes) marks[code + 1] = 1;
  const group = about.name === COLUMN ? selectedName(view, codes) : null;
  const several = names.length > MAX_NAMED ? `one of ${names.length} names` : names.join(" or ");
  const which = group === null ? several : `"${group}"`;
  return { holds: (i) => marks[levels[i]] === 1, title: `with ${about.name} ${which}` };
}
