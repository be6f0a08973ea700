// The whole texts of the open row.

import { html } from "./html.js";
import { highlighted } from "./query.js";
import { keptTexts, loadTexts } from "./whole_texts.js";

let running = new AbortController();

/**
 * A place for the whole texts of a row, with other nodes in it until the texts are there, or if there are none.
 * @param {number} id
 * @param {import("./query.js").Query} query
 * @param {Node[]} meanwhile
 */
export function wholeTextsOf(id, query, meanwhile) {
  const place = html("div", {}, ...meanwhile), known = keptTexts(id);
  const fill = (/** @type {Record<string, string> | null} */ texts) => {
    if (texts) place.replaceChildren(...nodesOf(texts, query));
  };
  running.abort();
  running = new AbortController();
  if (known) fill(known);
  else loadTexts(id, running.signal).then(fill, (error) => place.prepend(html("p", { textContent: error.message })));
  return place;
}

/**
 * @param {Record<string, string>} texts
 * @param {import("./query.js").Query} query
 */
function nodesOf(texts, query) {
  return Object.entries(texts).filter(([, text]) => text).flatMap(([name, text]) =>
    [html("h3", { textContent: name }), html("pre", {}, ...highlighted(text, query))]);
}
