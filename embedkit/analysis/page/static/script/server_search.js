// The search with a server: words and patterns in the whole texts of all rows, and rows by meaning.

import { byId, formatCount, html } from "./html.js";
import { searchMeaning } from "./meaning.js";
import { nearLine } from "./near_rows.js";
import { queryOf } from "./query.js";
import { SERVED } from "./server.js";
import { searchWholeTexts } from "./whole_text_search.js";

/** @typedef {import("./session.js").Session} Session */

const LABELS = { words: "words in all texts", pattern: "regular expression", meaning: "what the texts are about" };

/**
 * @param {Session} session
 * @param {(id: number) => void} open shows a row on the map
 */
export function addServerSearch(session, open) {
  if (!SERVED) return;
  const by = byId("by", HTMLSelectElement), field = byId("search", HTMLInputElement);
  const place = byId("asked", HTMLElement), status = html("p");
  by.hidden = false;
  status.setAttribute("role", "status");
  by.addEventListener("change", () => session.update({ by: /** @type {keyof typeof LABELS} */ (by.value) }));

  const show = (/** @type {string} */ text, /** @type {Node[]} */ ...nodes) => {
    status.textContent = text;
    place.replaceChildren(...(text ? [status] : []), ...nodes);
    place.hidden = !place.hasChildNodes();
  };
  let running = new AbortController();
  const start = async () => {
    running.abort();
    const { signal } = running = new AbortController(), { rows, state } = session;
    const isMeaning = state.by === "meaning", isSearch = isMeaning ? state.q.trim() : queryOf(state).terms.length;
    if (session.similarity && !(isMeaning && isSearch)) session.setSimilarity(null);
    if (!isSearch || !rows) return show("");
    try {
      if (isMeaning) await findByMeaning(session, rows, signal, show, open);
      else await findInTexts(session, rows, signal, show, start);
    } catch (error) {
      if (!signal.aborted) show(error instanceof Error ? error.message : String(error));
    }
  };
  const label = () => {
    by.value = session.state.by;
    field.placeholder = field.ariaLabel = LABELS[session.state.by];
  };
  session.subscribe((changed) => {
    if (changed.has("by")) label();
    if (changed.has("q") || changed.has("by") || changed.has("rows")) start();
  });
  label();
}

/**
 * @typedef {(text: string, ...nodes: Node[]) => void} Show
 *
 * @param {Session} session
 * @param {import("./rows.js").Rows} rows
 * @param {AbortSignal} signal
 * @param {Show} show
 * @param {() => void} goOn
 */
async function findInTexts(session, rows, signal, show, goOn) {
  const isDone = await searchWholeTexts(session, rows, signal, (next) =>
    show(`Searching the whole texts: ${formatCount(next)} of ${formatCount(rows.ids.length)} rows.`));
  if (isDone) return show("");
  const button = html("button", { type: "button", textContent: "search further" });
  button.addEventListener("click", goOn);
  show("The time of this search is over. The rows after these were searched in this file only.", button);
}

/**
 * @param {Session} session
 * @param {import("./rows.js").Rows} rows
 * @param {AbortSignal} signal
 * @param {Show} show
 * @param {(id: number) => void} open
 */
async function findByMeaning(session, rows, signal, show, open) {
  const { q } = session.state;
  show("Searching by meaning.");
  const found = await searchMeaning(session, rows, signal, show);
  const lines = found.neighbors.map((row) => nearLine(rows, row, () => open(row.id)));
  const notes = found.differences.map((text) => html("p", { textContent: `Note: ${text}.` }));
  show(`The ${formatCount(lines.length)} rows nearest to "${q.trim()}":`, html("ul", { className: "lines" }, ...lines),
    ...notes);
}
