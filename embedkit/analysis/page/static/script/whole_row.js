// The whole texts of the open row, from the server or from a file beside the page.

import { html } from "./html.js";
import { highlighted } from "./query.js";
import { SERVED, fetchTexts } from "./server.js";
import { hasTextFiles, textsFromFile } from "./text_files.js";

const KEPT = 50;  // rows whose texts are kept

/** @type {Map<number, Record<string, string>>} */
const kept = new Map();
let running = new AbortController();

/** Whether whole texts can be had. */
export const hasWholeTexts = SERVED !== "" || hasTextFiles;

/**
 * A place for the whole texts of a row, with other nodes in it until the texts are there, or if there are none.
 * @param {number} id
 * @param {import("./query.js").Query} query
 * @param {Node[]} meanwhile
 */
export function wholeTextsOf(id, query, meanwhile) {
  const place = html("div", {}, ...meanwhile), known = kept.get(id);
  const fill = (/** @type {Record<string, string> | null} */ texts) => {
    if (texts) place.replaceChildren(...nodesOf(texts, query));
  };
  if (known) fill(known);
  else load(id).then(fill, (error) => place.prepend(html("p", { textContent: error.message })));
  return place;
}

/** @param {number} id */
async function load(id) {
  running.abort();
  const { signal } = running = new AbortController();
  const texts = await (SERVED ? fetchTexts(id, signal) : textsFromFile(id, signal)), oldest = kept.keys().next().value;
  if (!texts) return null;
  if (kept.size >= KEPT && oldest !== undefined) kept.delete(oldest);
  kept.set(id, texts);
  return texts;
}

/**
 * @param {Record<string, string>} texts
 * @param {import("./query.js").Query} query
 */
function nodesOf(texts, query) {
  return Object.entries(texts).filter(([, text]) => text).flatMap(([name, text]) =>
    [html("h3", { textContent: name }), html("pre", {}, ...highlighted(text, query))]);
}
