// A search: whole words, "phrases" in quotes, and -words or -"phrases" that must not occur; a word may end in *.
// Upper and lower case are the same.

import { positionOf } from "./data.js";

/**
 * @typedef {object} Term
 * @property {string} text as typed, without quotes and minus
 * @property {boolean} excluded
 * @property {string} pattern of a regular expression
 *
 * @typedef {object} Query
 * @property {Term[]} terms
 * @property {RegExp | null} marks every occurrence of a wanted term; null if there is none
 */

const LETTER = "[\\p{L}\\p{N}\\p{M}_]";
// Scripts that write words without spaces between them.
const UNSPACED = "[\\p{sc=Han}\\p{sc=Hira}\\p{sc=Kana}\\p{sc=Thai}\\p{sc=Laoo}\\p{sc=Khmr}\\p{sc=Mymr}]";

/**
 * @param {string} typed
 * @returns {Query}
 */
export function parseQuery(typed) {
  /** @type {Term[]} */
  const terms = [];
  for (const [, minus, phrase, word] of typed.matchAll(/(-?)(?:"([^"]*)"?|([^\s"]+))/gu)) {
    const text = (phrase ?? word).trim();
    const isHalfTyped = text === "" || text === "-";
    if (!isHalfTyped) terms.push({ text, excluded: minus === "-", pattern: patternOf(text) });
  }
  const wanted = terms.filter((term) => !term.excluded).map((term) => term.pattern);
  return { terms, marks: wanted.length ? new RegExp(wanted.join("|"), "giu") : null };
}

/**
 * The words that a state searches for. A search by meaning has none.
 * @param {Pick<import("./state.js").State, "q" | "by">} state
 * @returns {Query}
 */
export function queryOf({ q, by }) {
  if (by === "pattern" && q) return { terms: [{ text: q, excluded: false, pattern: q }], marks: marksOfPattern(q) };
  return parseQuery(by === "words" ? q : "");
}

/**
 * The key of the search that a state has in a view.
 * @param {number} view
 * @param {Pick<import("./state.js").State, "q" | "by">} state
 */
export const searchKey = (view, { q, by }) => JSON.stringify([view, by, q]);

/**
 * A regular expression of the server in this browser, or null if its syntax has another meaning here.
 * @param {string} pattern
 */
function marksOfPattern(pattern) {
  const plain = pattern.replace(/^\(\?i\)/, "");
  try {
    return new RegExp(plain, plain === pattern ? "gu" : "giu");
  } catch {
    return null;
  }
}

/**
 * The regular expression of a term: boundaries are where a letter or digit meets something else.
 * @param {string} text
 */
function patternOf(text) {
  const isOpen = text.endsWith("*") && text.length > 1;
  const plain = isOpen ? text.slice(0, -1) : text;
  const words = plain.split(/\s+/).map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("\\s+");
  const bounded = (/** @type {string} */ end) =>
    new RegExp(LETTER, "u").test(end) && !new RegExp(UNSPACED, "u").test(end);
  const characters = [...plain];
  const before = bounded(characters[0]) ? `(?<!${LETTER})` : "";
  const after = bounded(characters[characters.length - 1]) && !isOpen ? `(?!${LETTER})` : "";
  return before + words + after;
}

/**
 * Whether each row has every wanted term and no excluded one, 1 or 0: in its snippet, or in its whole texts if the page
 * carries them.
 * @param {Query} query
 * @param {import("./rows.js").Rows} rows
 */
export function matchingRows({ terms }, rows) {
  const found = new Uint8Array(rows.ids.length).fill(1);
  for (const { pattern, excluded } of terms) {
    const has = rows.snippets?.matching(pattern) ?? new Uint8Array(found.length);
    addCarried(has, pattern, rows);
    for (let i = 0; i < found.length; i++) if (has[i] === Number(excluded)) found[i] = 0;
  }
  return found;
}

/**
 * Mark the rows whose whole texts match a pattern.
 * @param {Uint8Array} has
 * @param {string} pattern
 * @param {import("./rows.js").Rows} rows
 */
function addCarried(has, pattern, { ids, texts }) {
  const columns = Object.values(texts.columns), regex = new RegExp(pattern, "iu");
  texts.id.forEach((id, at) => {
    const i = positionOf(ids, id);
    if (i >= 0 && !has[i] && columns.some((column) => regex.test(column[at]))) has[i] = 1;
  });
}

/**
 * The query in words, such as `have "river" and not "stone"`.
 * @param {Query} query
 */
export function describeQuery({ terms }) {
  const quoted = (/** @type {boolean} */ excluded) =>
    terms.filter((term) => term.excluded === excluded).map((term) => `"${term.text}"`);
  const [wanted, excluded] = [quoted(false), quoted(true)];
  const parts = [wanted.join(" and "), excluded.length ? `not ${excluded.join(" or ")}` : ""].filter(Boolean);
  return `have ${parts.join(" and ")}`;
}

/**
 * A text as nodes, with every match of the query's wanted terms in a <mark>.
 * @param {string} text
 * @param {Query} query
 * @returns {(Node | string)[]}
 */
export function highlighted(text, { marks }) {
  if (!marks) return [text];
  /** @type {(Node | string)[]} */
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(marks)) {
    nodes.push(text.slice(from, match.index), Object.assign(document.createElement("mark"), { textContent: match[0] }));
    from = match.index + match[0].length;
  }
  return [...nodes, text.slice(from)];
}

/**
 * How many different matches a text has.
 * @param {string} text
 * @param {Query} query
 */
export function countMatched(text, { marks }) {
  return marks ? new Set(Array.from(text.matchAll(marks), ([match]) => match.toLowerCase())).size : 0;
}

/**
 * The text around its first match, or null if there is none.
 * @param {string} text
 * @param {Query} query
 * @param {number} length
 */
export function excerpt(text, { marks }, length) {
  const at = marks ? text.search(marks) : -1;
  if (at < 0) return null;
  const from = Math.max(at - 16, 0), cut = text.slice(from, from + length);
  return (from ? "... " : "") + cut + (from + length < text.length ? " ..." : "");
}
