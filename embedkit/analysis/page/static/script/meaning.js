// Search by meaning: the server embeds the query, the map is coloured by how similar each row is.

import { onRamp } from "./colouring.js";
import { NumberColumn } from "./columns.js";
import { fetchSearch, fetchSimilarity } from "./server.js";
import { SIMILARITY } from "./state.js";

/**
 * @typedef {object} Similarity of all rows of a view to a query
 * @property {number} view
 * @property {string} q
 * @property {import("./colouring.js").Colouring} colouring
 */

const COUNT = 50;  // nearest rows that are listed
const STEPS = 254;  // between the levels of the server

/**
 * The nearest rows. The map gets their colours.
 * @param {import("./session.js").Session} session
 * @param {import("./rows.js").Rows} rows
 * @param {AbortSignal} signal
 * @param {(waiting: string) => void} onWait
 */
export async function searchMeaning(session, rows, signal, onWait) {
  const { q } = session.state, { view } = rows.layer;
  const found = await fetchSearch({ view, q, k: COUNT, snippets: Number(!rows.snippets) }, signal, onWait);
  if (session.similarity?.view === rows.view && session.similarity.q === q) return found;
  const levels = await fetchSimilarity(view, q, signal);
  session.setSimilarity({ view: rows.view, q, colouring: colouringOf(rows, levels, found) });
  return found;
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {Uint8Array} levels by id
 * @param {{ low: number, high: number }} limits
 * @returns {import("./colouring.js").Colouring}
 */
function colouringOf({ ids }, levels, { low, high }) {
  const ofRows = Uint8Array.from(ids, (id) => levels[id]);
  const about = { name: SIMILARITY, title: SIMILARITY, low, high, steps: STEPS, whole: false, log: false };
  return onRamp(new NumberColumn({ kind: "number", ...about }, ofRows));
}
