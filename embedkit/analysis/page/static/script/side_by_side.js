// Two rows side by side, or one: their texts from where they begin to matter, with the words marked that differ.

import { META } from "./data.js";
import { formatCount, html } from "./html.js";
import { shellWord } from "./shell.js";
import { hasWholeTexts, loadTexts } from "./whole_texts.js";
import { wordDiff } from "./word_diff.js";

/**
 * @typedef {import("./data.js").Texts} Texts
 * @typedef {import("./word_diff.js").Piece} Piece
 *
 * @typedef {{ id: number[], row: number[], source: number[], tokens: number[] }} RowTable rows that a tab shows
 * @typedef {number | [number, number, string]} Start where a carried text begins to matter; or the characters before a
 *   part that is carried beside it, where the part begins to matter, and the part
 *
 * @typedef {object} Pair
 * @property {number} view
 * @property {string[]} names of the texts to show
 * @property {RowTable} rows
 * @property {number[]} at positions in `rows`, of one row or two
 * @property {Record<string, Start[]>} starts by name
 * @property {boolean} isAlike whether the texts are expected to be alike, so that differences are marked
 *
 * @typedef {object} Shown what the page carries of a text
 * @property {string} text
 * @property {number} before characters of the whole text before it
 * @property {number} start where it begins to matter
 * @property {number} length characters of the whole text
 */

const SHOWN = 700;  // characters that are shown at first
const SHOWN_LINES = 18;
const LONG_BEGINNING = 160;  // a longer beginning that does not matter is not shown at first
const BEFORE = 60;  // of these, before the place where the text begins to matter

/**
 * @param {Pair} pair
 * @param {Texts} texts
 */
export function sideBySide(pair, texts) {
  const place = html("div", { className: "compared" });
  const show = (/** @type {boolean} */ isWhole) => {
    const lines = pair.names.map((name) => lineOf(pair, texts, name, isWhole)).filter((line) => line !== null);
    const sides = pair.at.map((at, side) => html("article", {},
      headOf(pair, at), ...lines.flatMap(({ cells }) => cells[side])));
    for (const side of sides) side.style.gridRow = `span ${1 + lines.length}`;  // so that texts are beside each other
    place.replaceChildren(html("div", { className: "beside" }, ...sides), ...notesOf(pair, texts, lines));
    if (!lines.some(({ isCut }) => isCut) && !isWhole) return;
    const textContent = isWhole ? "show less" : "show more";
    const more = html("button", { type: "button", className: "more", textContent });
    more.addEventListener("click", async () => {
      if (!isWhole && hasWholeTexts) texts = await withWholeTexts(pair, texts);
      show(!isWhole);
      /** @type {HTMLElement | null} */ (place.querySelector(".more"))?.focus();
    });
    place.append(more);
  };
  show(false);
  return place;
}

/**
 * @param {Pair} pair
 * @param {number} at
 */
function headOf({ rows, view }, at) {
  const link = html("a", { href: `#row=${rows.id[at]}`, textContent: "show on the map" });
  const source = META.layers[view].sources[rows.source[at]];
  const facts = `id ${rows.id[at]}, ${formatCount(rows.tokens[at])} tokens `;
  return html("header", {}, html("h4", { textContent: `row ${rows.row[at]} of ${source}` }),
    html("span", { className: "facts", textContent: facts }), link);
}

/**
 * The texts that the page carries, with those of a pair whole, if they can be had.
 * @param {Pair} pair
 * @param {Texts} texts
 * @returns {Promise<Texts>}
 */
async function withWholeTexts({ names, rows, at }, texts) {
  for (const id of at.map((one) => rows.id[one]).filter((id) => isLonger(texts, id, names))) {
    const whole = await loadTexts(id, new AbortController().signal).catch(() => null);
    if (whole) texts = withRow(texts, id, whole);
  }
  return texts;
}

/**
 * The same texts with those of one row added, or in the place of what there was.
 * @param {Texts} texts
 * @param {number} id
 * @param {Record<string, string>} whole
 * @returns {Texts}
 */
function withRow(texts, id, whole) {
  const at = texts.at.get(id) ?? texts.id.length;
  const columns = Object.fromEntries(Object.entries(texts.columns).map(([name, column]) =>
    [name, Object.assign([...column], { [at]: whole[name] })]));
  const lengths = Object.fromEntries(Object.entries(texts.lengths).map(([name, column]) =>
    [name, Object.assign([...column], { [at]: [...whole[name]].length })]));
  return { ...texts, columns, lengths, at: new Map(texts.at).set(id, at) };
}

/**
 * The texts of one name, a cell for each row; null if no row has one.
 * @param {Pair} pair
 * @param {Texts} texts
 * @param {string} name
 * @param {boolean} isWhole whether to show everything that the page carries
 */
function lineOf({ rows, at, starts, isAlike }, texts, name, isWhole) {
  const shown = at.map((one, side) => carried(texts, rows.id[one], name, starts[name]?.[side] ?? 0));
  if (shown.every((one) => one?.length === 0)) return null;
  const [one, other] = shown, hasBoth = one && other && one.length > 0 && other.length > 0;
  const isSame = hasBoth && one.text === other.text && one.length === other.length;
  const compares = isAlike && hasBoth && !isSame, pieces = compares ? differences(one, other) : null;
  const parts = shown.map((each) => each && rangeOf(each, isWhole));
  const isMarked = pieces !== null && parts.some((range, side) => range && hasMarks(pieces, side, range));
  const cells = shown.map((each, side) => {
    const cell = html("div", { className: "text" }, html("b", { textContent: name }));
    const range = parts[side];
    if (!each || !range) cell.append(note(" is not in this file"));
    else if (!each.length) cell.append(note(" none"));
    else if (isSame && side) cell.append(note(" the same"));
    else {
      if (compares && !pieces) cell.append(note(" mostly other words, not marked"));
      cell.append(html("pre", { dir: "auto" }, ...excerpt(each, range, pieces, side)));
    }
    return cell;
  });
  const isCut = shown.some((each, side) => {
    const range = parts[side];
    return each && range && (range[1] - range[0] < each.text.length || (hasWholeTexts && isPart(each)));
  });
  return { cells, isCut, isMarked };
}

/**
 * The pieces of two texts. Where a text is cut, words at the end of one alone may follow in the other: they are equal.
 * @param {Shown} one
 * @param {Shown} other
 */
function differences(one, other) {
  const pieces = wordDiff(one.text, other.text), last = pieces?.at(-1), isEnd = pieces?.at(-2)?.kind === "same";
  const isCut = [one, other].some(({ text, before, length }) => before + [...text].length < length);
  if (last && isEnd && isCut) last.kind = "same";
  return pieces;
}

/**
 * Whether the whole text has more.
 * @param {Shown} shown
 */
function isPart({ text, before, length }) { return before > 0 || [...text].length < length; }

/**
 * @param {Texts} texts
 * @param {number} id
 * @param {string} name
 * @param {Start} start
 * @returns {Shown | null} null for a row whose texts the page does not carry
 */
function carried(texts, id, name, start) {
  const at = texts.at.get(id);
  if (at === undefined) return null;
  const length = texts.lengths[name][at], text = texts.columns[name][at];
  if (typeof start === "number") return { text, before: 0, start, length };
  const [before, inPart, part] = start, characters = [...text];
  if (characters.length < length) return { text: part, before, start: inPart, length };
  return { text, before: 0, start: characters.slice(0, before).join("").length + inPart, length };
}

/**
 * The part of a text to show, from and to.
 * @param {Shown} shown
 * @param {boolean} isWhole
 * @returns {[number, number]}
 */
function rangeOf({ text, start }, isWhole) {
  if (isWhole) return [0, text.length];
  const from = start > LONG_BEGINNING ? wordStart(text, start - BEFORE) : 0;
  const lines = text.slice(from, from + SHOWN).split("\n").slice(0, SHOWN_LINES);
  return [whole(text, from), whole(text, from + lines.join("\n").length)];
}

/**
 * The start of the first word after a place, or the place if there is none soon.
 * @param {string} text
 * @param {number} at
 */
function wordStart(text, at) {
  const space = text.slice(at, at + BEFORE - 1).search(/\s/);
  return space < 0 ? at : at + space + 1;
}

/**
 * A place that is not inside a character of two units.
 * @param {string} text
 * @param {number} at
 */
function whole(text, at) { return /^[\udc00-\udfff]/.test(text.slice(at, at + 1)) ? at - 1 : at; }

/**
 * @param {Shown} shown
 * @param {[number, number]} range
 * @param {Piece[] | null} pieces
 * @param {number} side 0 for the first text, 1 for the second
 */
function excerpt({ text, before, length }, [from, to], pieces, side) {
  const skipped = before + [...text.slice(0, from)].length;
  const rest = length - skipped - [...text.slice(from, to)].length;
  const gap = (/** @type {number} */ count) => html("i", { textContent: `[... ${formatCount(count)} characters ...]` });
  const nodes = pieces ? marked(pieces, side, from, to) : [text.slice(from, to)];
  return [...(skipped ? [gap(skipped), " "] : []), ...nodes, ...(rest > 0 ? [" ", gap(rest)] : [])];
}

/**
 * One side of the pieces from a place to another, with its own words marked. White space before them is not.
 * @param {Piece[]} pieces
 * @param {number} side
 * @param {number} from
 * @param {number} to
 */
function marked(pieces, side, from, to) {
  /** @type {(Node | string)[]} */
  const nodes = [];
  let at = 0;
  for (const { kind, first, second } of pieces) {
    const text = side ? second : first, part = text.slice(Math.max(from - at, 0), Math.max(to - at, 0));
    at += text.length;
    if (kind === "same" || !part.trim()) nodes.push(part);
    else {
      const words = part.trim(), start = part.indexOf(words);
      const tag = side ? "ins" : "del";
      nodes.push(part.slice(0, start), html(tag, { textContent: words }), part.slice(start + words.length));
    }
  }
  return nodes;
}

/**
 * @param {Piece[]} pieces
 * @param {number} side
 * @param {[number, number]} range
 */
function hasMarks(pieces, side, [from, to]) {
  return marked(pieces, side, from, to).some((node) => typeof node !== "string");
}

/**
 * What the marks mean, and the command that prints what the page does not carry.
 * @param {Pair} pair
 * @param {Texts} texts
 * @param {{ isMarked: boolean }[]} lines
 */
function notesOf({ names, rows, at }, texts, lines) {
  const notes = [];
  if (lines.some(({ isMarked }) => isMarked)) {
    notes.push(html("p", { className: "hint" }, html("del", { textContent: "struck" }),
      " words are only in the first row, ", html("ins", { textContent: "underlined" }), " words only in the second."));
  }
  const ids = at.map((one) => rows.id[one]).filter((id) => isLonger(texts, id, names));
  if (ids.length) {
    const commands = ids.map((id) => `embedkit neighbors ${shellWord(META.run)} --id ${id} --full-texts`);
    notes.push(html("p", { className: "hint", textContent: "To print what this file does not have:" }),
      html("pre", { className: "command", textContent: commands.join("\n") }));
  }
  return notes;
}

/**
 * Whether a row has a text of which the page carries only the beginning, or nothing.
 * @param {Texts} texts
 * @param {number} id
 * @param {string[]} names
 */
function isLonger(texts, id, names) {
  const at = texts.at.get(id);
  return at === undefined || names.some((name) => texts.lengths[name][at] > [...texts.columns[name][at]].length);
}

/** @param {string} text */
function note(text) { return html("span", { className: "note", textContent: text }); }
