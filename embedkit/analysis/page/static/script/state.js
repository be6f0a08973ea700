// What a person chose. The address keeps it (link.js), except the stack and the trail.

import { META } from "./data.js";
import { SERVED } from "./server.js";

/** What the rows of an area are called, by the kind of the area. */
export const AREAS = { drawn: "rows chosen", view: "rows in view" };
export const SIMILARITY = "similarity to the search";  // a colour, while there is a search by meaning
/** The view that the page opens with. */
const FIRST_VIEW = Math.max(META.layers.findIndex(({ view }) => view === SERVED), 0);

/**
 * @typedef {object} State
 * @property {number} view position in META.layers
 * @property {string} map "umap" or "pc"
 * @property {number} x component on the x axis, from 1
 * @property {number} y
 * @property {string} colour "source", or the name of a column
 * @property {[number, number, number] | null} at centre in data units, and zoom; null shows everything
 * @property {Set<number>} hidden codes of sources
 * @property {number | null} row id of the open row
 * @property {number[]} stack ids of the rows at the place that was clicked
 * @property {string} tab
 * @property {string} theme "light", "dark" or "" for the system's
 * @property {number[]} trail ids from the row where a walk from neighbour to neighbour began to the last one
 * @property {string} q the search
 * @property {"words" | "pattern" | "meaning"} by what the search looks for; without a server always words
 * @property {Area | null} area
 * @property {boolean} names whether groups have names on the map
 * @property {boolean} intro whether the note about the map is shown
 * @property {Record<string, Range>} ranges of the numbers that selected rows have, by column
 * @property {Record<string, Set<number>>} picks codes of the categories that selected rows have, by column
 * @property {string} kind of the findings that are listed, "" for the first of all kinds
 * @property {number | null} finding rank of the open finding, null for the first
 * @property {number} beside which of the rows that it is compared with is shown
 * @property {number | null} near smallest cosine of the near-duplicates that are listed, null for the lowest
 * @property {string} pair the ids of the open pair, such as 3-17; "" for the first
 * @property {string} of part of the name of a source of listed pairs
 * @property {string} order of these: "lowest" for the lowest cosine first, "" for the highest
 *
 * @typedef {[number | null, number | null]} Range least and most, null where there is no limit
 *
 * @typedef {object} Area a part of the map that a person chose
 * @property {import("./grid.js").Place[]} polygon rounded as in `outline.js`
 * @property {keyof typeof AREAS} kind
 */

/**
 * The parts of a state that depend on the view.
 * @param {number} view
 */
export function defaultsOfView(view) {
  const { map, axes } = META.layers[view];
  return {
    map: map ? "umap" : "pc", x: 1, y: Math.min(2, axes.length), at: null, area: null, ranges: {}, picks: {},
    finding: null, beside: 0, pair: "",
  };
}

/** @returns {State} */
export function defaultState() {
  return {
    view: FIRST_VIEW, ...defaultsOfView(FIRST_VIEW), colour: "source", hidden: new Set(), row: null, stack: [],
    trail: [], tab: "map", theme: "", q: "", by: "words", kind: "", near: null, of: "", order: "",
    names: true, intro: true,
  };
}
