// A search: whole words, "phrases" in quotes, and -words or -"phrases" that must not occur; a word may end in *.
// Upper and lower case are the same.

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
 * Positions in `texts.id` of the rows whose texts have every wanted term and no excluded one.
 * @param {Query} query
 * @param {import("./data.js").Texts} texts
 */
export function findTexts(query, texts) {
  const columns = Object.values(texts.columns);
  const tests = query.terms.map(({ pattern, excluded }) => ({ regex: new RegExp(pattern, "iu"), excluded }));
  /** @type {number[]} */
  const found = [];
  for (let at = 0; at < texts.id.length; at++) {
    const has = (/** @type {RegExp} */ regex) => columns.some((column) => regex.test(column[at]));
    if (tests.every(({ regex, excluded }) => has(regex) !== excluded)) found.push(at);
  }
  return found;
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
