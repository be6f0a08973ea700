// Words and patterns in the whole texts of all rows, which the server reads from the first id to the last. Until it has
// read a row, the search in this file counts for it.

import { positionOf } from "./data.js";
import { matchingRows, parseQuery, searchKey } from "./query.js";
import { fetchRows } from "./server.js";

/**
 * @typedef {object} Found what a search of the whole texts has found so far
 * @property {string} key of the view and the search
 * @property {Uint8Array} marks 1 for the positions of matching rows
 * @property {number} next the id from which on rows have not been read
 * @property {boolean} isDone
 */

const SHOW_DELAY = 400;  // milliseconds between two selections of what has been found so far

/**
 * Search, or go on with a search that is not done, and show what is found in the session.
 * @param {import("./session.js").Session} session
 * @param {import("./rows.js").Rows} rows
 * @param {AbortSignal} signal
 * @param {(next: number) => void} onProgress is called with the number of rows that were searched
 * @returns {Promise<boolean>} whether all rows were searched
 */
export async function searchWholeTexts(session, rows, signal, onProgress) {
  const { state } = session, key = searchKey(rows.view, state), earlier = session.found;
  const found = earlier?.key === key ? earlier : newSearch(rows, state, key);
  if (found.isDone) return true;
  const words = { view: rows.layer.view, from: found.next, ...wordsOf(state) };
  let shown = performance.now();
  await fetchRows(words, signal, (progress) => {
    addProgress(found, rows, progress);
    if (performance.now() - shown < SHOW_DELAY) return;
    shown = performance.now();
    onProgress(positionAfter(rows.ids, found.next));
    session.setFound(found);
  });
  session.setFound(found);
  return found.isDone;
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./state.js").State} state
 * @param {string} key
 * @returns {Found}
 */
function newSearch(rows, { by, q }, key) {
  const marks = by === "pattern" ? new Uint8Array(rows.ids.length) : matchingRows(parseQuery(q), rows);
  return { key, marks, next: 0, isDone: false };
}

/**
 * @param {import("./state.js").State} state
 * @returns {import("./server.js").Parameters}
 */
function wordsOf({ by, q }) {
  if (by === "pattern") return { pattern: q };
  const { terms } = parseQuery(q);
  const texts = (/** @type {boolean} */ excluded) =>
    terms.filter((term) => term.excluded === excluded).map(({ text }) => text);
  return { have: texts(false), lack: texts(true) };
}

/**
 * @param {Found} found
 * @param {import("./rows.js").Rows} rows
 * @param {import("./server.js").Progress} progress
 */
function addProgress(found, { ids }, { ids: matching, next, is_done: isDone }) {
  found.marks.fill(0, positionAfter(ids, found.next), positionAfter(ids, next));
  for (const id of matching) {
    const i = positionOf(ids, id);
    if (i >= 0) found.marks[i] = 1;
  }
  Object.assign(found, { next, isDone });
}

/**
 * How many ids are below a limit.
 * @param {Uint32Array} ids ascending
 * @param {number} limit
 */
function positionAfter(ids, limit) {
  let low = 0, high = ids.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ids[middle] < limit) low = middle + 1; else high = middle;
  }
  return low;
}
