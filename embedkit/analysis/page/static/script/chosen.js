// The selected rows: their number, their sources, the first of them as a list, all of them as CSV.

import { byId, formatCount, html } from "./html.js";
import { countMatched, excerpt, highlighted } from "./query.js";
import { sourceOf } from "./rows.js";
import { addSavedRows } from "./saved_rows.js";

/** @typedef {import("./session.js").Session} Session */

const MAX_LISTED = 200;
const MAX_SOURCES = 5;
const LINE_CHARACTERS = 90;

/**
 * @param {Session} session
 * @param {(id: number) => void} open shows a row on the map
 */
export function addChosen(session, open) {
  const clear = byId("clear", HTMLButtonElement);
  addSavedRows(session);
  clear.addEventListener("click", () => session.clear());
  session.subscribe((changed) => {
    if (!changed.has("selection")) return;
    const { rows, selection } = session, { positions, active } = selection;
    clear.hidden = !active;
    byId("chosen", HTMLElement).textContent = active && rows ? titleOf(session, rows) : "";
    byId("composition", HTMLElement).textContent = rows ? compositionOf(rows, selection) : "";
    byId("rows", HTMLElement).replaceChildren(...[...positions.slice(0, MAX_LISTED)].map((i) => {
      const button = html("button", { type: "button" });
      if (rows) button.append(...describe(rows, i, selection));
      button.addEventListener("click", () => { if (rows) open(rows.ids[i]); });
      return html("li", {}, button);
    }));
  });
}

/**
 * @param {Session} session
 * @param {import("./rows.js").Rows} rows
 */
function titleOf({ selection: { positions, title, query }, wholeTexts }, rows) {
  const listed = positions.length > MAX_LISTED ? `; the first ${MAX_LISTED} are listed, the CSV has all` : "";
  const searched = query.terms.length ? whatIsSearched(rows, wholeTexts) : "";
  return `${formatCount(positions.length)} ${title}${listed}${searched}`;
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {import("./whole_text_search.js").Found | null} wholeTexts
 */
function whatIsSearched({ ids, texts, snippets }, wholeTexts) {
  if (wholeTexts?.isDone) return ". Searched: the whole texts of all rows";
  if (!snippets || texts.id.length >= ids.length) return "";
  return `. Searched: the first ${snippets.characters} characters of each ${Object.keys(texts.columns)[0]}, and all `
    + `texts of ${formatCount(texts.id.length)} rows`;
}

/**
 * The largest sources of the selection, each with its number of rows.
 * @param {import("./rows.js").Rows} rows
 * @param {import("./selection.js").Selection} selection
 */
function compositionOf({ layer }, { counts }) {
  const codes = [...counts.keys()].filter((code) => counts[code]).sort((a, b) => counts[b] - counts[a] || a - b);
  const largest = codes.slice(0, MAX_SOURCES).map((code) => `${layer.sources[code]}: ${formatCount(counts[code])}`);
  const others = codes.length - largest.length;
  return [...largest, ...(others ? [`${formatCount(others)} other sources`] : [])].join(", ");
}

/**
 * @param {import("./rows.js").Rows} rows
 * @param {number} i
 * @param {import("./selection.js").Selection} selection
 */
function describe(rows, i, { query }) {
  const name = `${rows.ids[i]}  ${sourceOf(rows, i)}  `, at = rows.texts.at.get(rows.ids[i]);
  const snippet = rows.snippets?.at(i, LINE_CHARACTERS) ?? "";
  const texts = at === undefined ? [] : Object.values(rows.texts.columns).map((column) => column[at]);
  const all = [snippet, ...texts], matches = all.map((text) => countMatched(text, query)), most = Math.max(...matches);
  const found = most > matches[0] ? excerpt(all[matches.indexOf(most)], query, LINE_CHARACTERS) : null;
  return [name, ...highlighted(found ?? snippet, query)];
}

