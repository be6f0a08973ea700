// A number or a category of each row. The file has levels: 0 for none, from 1 on for numbers and categories.

import { formatCount } from "./html.js";

/**
 * @typedef {import("./data.js").Numbers} Numbers
 *
 * @typedef {object} NumberDescription
 * @property {"number"} kind
 * @property {string} name in addresses and files
 * @property {string} title
 * @property {number} low the number of level 1
 * @property {number} high the number of level `steps` + 1
 * @property {number} steps
 * @property {boolean} whole whether all numbers are whole
 * @property {boolean} log whether a logarithmic scale shows more
 *
 * @typedef {object} CategoryDescription
 * @property {"category"} kind
 * @property {string} name
 * @property {string} title
 * @property {string[]} names by code; the level is the code plus 1
 * @property {number[]} counts
 * @property {import("./data.js").Colour[]} colours
 *
 * @typedef {NumberDescription | CategoryDescription} Description
 * @typedef {NumberColumn | CategoryColumn} Column
 */

const DIGITS = 4;
const SLACK = 1e-6;  // errors of rounding in a limit

export class NumberColumn {
  /**
   * @param {NumberDescription} about
   * @param {Numbers} levels
   */
  constructor(about, levels) {
    this.about = about;
    this.levels = levels;
    this.step = about.steps ? (about.high - about.low) / about.steps : 0;
  }

  /**
   * The number of a row, or null if it has none.
   * @param {number} i
   */
  at(i) { return this.levels[i] ? this.about.low + (this.levels[i] - 1) * this.step : null; }

  /**
   * The number of a row as text, "" if it has none.
   * @param {number} i
   */
  text(i) {
    const number = this.at(i);
    return number === null ? "" : formatNumber(number, this.about);
  }

  /**
   * The first and the last level of the numbers in a range, so that rows need no decoding. A limit is rounded as the
   * numbers are, unless all are whole.
   * @param {import("./state.js").Range} range
   */
  levelsOf([least, most]) {
    const { low, high, steps, whole } = this.about, slack = whole ? 0.5 - SLACK : 0;
    const at = (/** @type {number} */ number) => (this.step ? 1 + (number - low) / this.step : 1);
    const first = least === null || least <= low ? 1 : least > high ? Infinity : Math.round(at(least) + slack);
    const last = most === null || most >= high ? steps + 1 : most < low ? 0 : Math.round(at(most) - slack);
    return [first, last];
  }

  /**
   * Where a number lies between the least and the largest one, from 0 to 1, on the column's scale.
   * @param {number} number
   */
  share(number) {
    const [low, high, value] = [this.about.low, this.about.high, number].map(this.scaled, this);
    return high > low ? (value - low) / (high - low) : 0;
  }

  /**
   * The number at a share: the inverse of `share`.
   * @param {number} share
   */
  numberAt(share) {
    const { low, high, log } = this.about, [from, to] = [low, high].map(this.scaled, this);
    const value = from + share * (to - from);
    return log ? Math.expm1(value) : value;
  }

  /** @param {number} number */
  scaled(number) { return this.about.log ? Math.log1p(number) : number; }
}

export class CategoryColumn {
  /**
   * @param {CategoryDescription} about
   * @param {Numbers} levels
   */
  constructor(about, levels) {
    this.about = about;
    this.levels = levels;
  }

  /**
   * The name of a row's category, "" if it has none.
   * @param {number} i
   */
  text(i) { return this.levels[i] ? this.about.names[this.levels[i] - 1] : ""; }
}

/**
 * @param {Description} about
 * @param {Numbers} levels
 * @returns {Column}
 */
export const columnOf = (about, levels) =>
  (about.kind === "number" ? new NumberColumn(about, levels) : new CategoryColumn(about, levels));

/**
 * @param {number} number
 * @param {{ whole: boolean }} about
 */
export function formatNumber(number, { whole }) {
  return whole ? formatCount(Math.round(number)) : String(+number.toPrecision(DIGITS));
}
