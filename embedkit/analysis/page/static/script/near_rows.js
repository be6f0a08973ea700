// The rows nearest to the open row, from the file or from the server: click by click, with a way back.

import { positionOf } from "./data.js";
import { html } from "./html.js";
import { sourceOf } from "./rows.js";
import { SERVED, fetchNeighbors } from "./server.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./server.js").NearRow} NearRow
 */

const LINE_CHARACTERS = 90;
const KEPT = 200;  // rows whose neighbours are kept

/** @type {Map<string, NearRow[]>} */
const kept = new Map();
let running = new AbortController();

/**
 * The button that goes back to the row whose neighbour was opened, if the open row is one.
 * @param {Session} session
 * @param {(id: number) => void} open
 */
export function backOf(session, open) {
  const { trail, row } = session.state, before = trail.slice(0, -1);
  if (!before.length || trail[trail.length - 1] !== row) return [];
  const id = before[before.length - 1];
  const back = html("button", { type: "button", id: "back", textContent: `back to ${id}` });
  back.addEventListener("click", () => go(session, open, before));
  return [back];
}

/**
 * The nearest rows that the file carries for a row, or null.
 * @param {import("./rows.js").Rows} rows
 * @param {number} id
 * @returns {NearRow[] | null}
 */
function carriedOf(rows, id) {
  const { at, nearest } = rows.texts, found = nearest?.[rows.view], row = at.get(id);
  if (!found || row === undefined) return null;
  return found.ids[row].map((near, rank) => {
    const i = positionOf(rows.ids, near);
    return { id: near, cosine: found.cosines[row][rank], dataset_source: i < 0 ? "" : sourceOf(rows, i) };
  });
}

/** @param {NearRow} row */
const idOf = ({ id }) => id;

/**
 * Whether the nearest rows of a row can be shown.
 * @param {import("./rows.js").Rows} rows
 * @param {number} id
 */
export const hasNearRows = (rows, id) => SERVED !== "" || carriedOf(rows, id) !== null;

/**
 * The list of the nearest rows. Those of the file are there at once; of many rows it may lack some, so a server looks
 * again, at all of them.
 * @param {Session} session
 * @param {import("./rows.js").Rows} rows
 * @param {number} id
 * @param {(id: number) => void} open
 */
export function nearRowsOf(session, rows, id, open) {
  const list = html("ul", { className: "lines" });
  const { trail } = session.state, path = trail[trail.length - 1] === id ? trail : [id];
  const fill = (/** @type {NearRow[]} */ found) => list.replaceChildren(...found.map((row) =>
    nearLine(rows, row, () => go(session, open, [...path, row.id]))));
  const key = `${rows.layer.view} ${id}`, known = kept.get(key) ?? carriedOf(rows, id);
  const say = (/** @type {string} */ text) => { if (!known) list.replaceChildren(html("li", { textContent: text })); };
  if (known) fill(known); else say("searching");
  if (SERVED && !kept.has(key)) {
    load(rows, id, key).then((found) => {
      if (String(found.map(idOf)) !== String(known?.map(idOf))) fill(found);
    }, (error) => say(error.message));
  }
  return html("details", { open: true, className: "near" }, html("summary", { textContent: "nearest rows" }), list);
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {number} id
 * @param {string} key
 */
async function load({ layer, snippets }, id, key) {
  running.abort();
  const { signal } = running = new AbortController();
  const found = await fetchNeighbors(layer.view, id, !snippets, signal);
  const oldest = kept.keys().next().value;
  if (kept.size >= KEPT && oldest !== undefined) kept.delete(oldest);
  kept.set(key, found);
  return found;
}

/**
 * Open the last row of a trail.
 * @param {Session} session
 * @param {(id: number) => void} open
 * @param {number[]} trail
 */
function go(session, open, trail) {
  session.update({ trail });
  open(trail[trail.length - 1]);
  (document.getElementById("back") ?? document.getElementById("close"))?.focus();  // the button that was used is gone
}

/**
 * An entry with the cosine and the source of a row, and how it begins.
 * @param {import("./rows.js").Rows} rows
 * @param {NearRow} row
 * @param {() => void} onClick
 */
export function nearLine(rows, { id, cosine, dataset_source: source, snippet }, onClick) {
  const i = positionOf(rows.ids, id), text = i >= 0 && rows.snippets ? rows.snippets.at(i, LINE_CHARACTERS) : snippet;
  const button = html("button", { type: "button", title: `row with id ${id}` },
    html("span", {}, html("b", { textContent: cosine.toFixed(3) }), ` ${source}`),
    html("span", { textContent: text ?? "" }));
  button.addEventListener("click", onClick);
  return html("li", {}, button);
}
