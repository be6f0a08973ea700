// The open row: its facts, and its texts or the command that prints them.

import { META, positionOf } from "./data.js";
import { byId, formatCount, html } from "./html.js";
import { backOf, hasNearRows, nearRowsOf } from "./near_rows.js";
import { highlighted } from "./query.js";
import { sourceOf } from "./rows.js";
import { SERVED } from "./server.js";
import { shellWord } from "./shell.js";
import { wholeTextsOf } from "./whole_row.js";
import { hasWholeTexts } from "./whole_texts.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./rows.js").Rows} Rows
 */

const MAX_STACK = 100;  // rows of a stack that are listed
const STACK_CHARACTERS = 60;

/**
 * @param {Session} session
 * @param {(id: number) => void} open shows a row on the map
 */
export function addRowPanel(session, open) {
  const panel = byId("row", HTMLElement);
  /** @type {unknown[]} what the panel shows */
  let shown = [];
  session.subscribe((changed) => {
    if (!changed.has("row") && !changed.has("rows") && !changed.has("selection")) return;
    const { rows, state } = session, id = state.row;
    panel.hidden = id === null || !rows;
    const now = [id, rows, state.stack, session.selection.query.marks?.source];
    if (now.every((part, at) => part === shown[at])) return;
    shown = now;
    if (id === null || !rows) return;
    const i = positionOf(rows.ids, id);
    const close = html("button", { type: "button", id: "close", textContent: "close" });
    close.addEventListener("click", () => session.update({ row: null }));
    if (i < 0) panel.replaceChildren(html("p", { textContent: `No row of this page has the id ${id}.` }), close);
    else {
      panel.replaceChildren(html("h2", { textContent: `Row with id ${id}` }), close,
        ...backOf(session, open), ...stackOf(session, rows), factListOf(rows, i),
        ...(hasNearRows(rows, id) ? [nearRowsOf(session, rows, id, open)] : []),
        ...contentOf(session, rows, i));
    }
  });
}

/**
 * The list of the rows at the place that was clicked, if the open row is one of several.
 * @param {Session} session
 * @param {Rows} rows
 */
function stackOf(session, rows) {
  const { stack, row } = session.state;
  if (row === null || stack.length < 2 || !stack.includes(row)) return [];
  const lines = stack.slice(0, MAX_STACK).map((id) => {
    const i = positionOf(rows.ids, id);
    const text = `${id}  ${sourceOf(rows, i)}  ${rows.snippets?.at(i, STACK_CHARACTERS) ?? ""}`;
    const button = html("button", { type: "button", textContent: text });
    if (id === row) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => session.update({ row: id }));
    return html("li", {}, button);
  });
  const more = stack.length > MAX_STACK ? `; the first ${MAX_STACK} are listed. Zoom in to see them apart.` : "";
  const title = html("summary", { textContent: `${formatCount(stack.length)} rows at this place${more}` });
  return [html("details", { open: true, className: "stack" }, title, html("ul", { className: "lines" }, ...lines))];
}

/**
 * The texts of a row, whole if they can be had; from disk, also the commands that print or serve them.
 * @param {Session} session
 * @param {Rows} rows
 * @param {number} i
 */
function contentOf(session, rows, i) {
  const id = rows.ids[i], run = shellWord(META.run);
  const here = [...textsOf(session, rows, i), ...(SERVED ? [] : commandOf(rows, id, run))];
  const content = hasWholeTexts ? [wholeTextsOf(id, session.selection.query, here)] : here;
  if (SERVED) return content;
  return [...content, html("p", {}, html("code", { textContent: `embedkit view ${run}` }),
    " serves this page with whole texts, nearest rows and search by meaning.")];
}

/**
 * The command that prints the whole texts of a row.
 * @param {Rows} rows
 * @param {number} id
 * @param {string} run
 */
function commandOf(rows, id, run) {
  const what = rows.texts.at.has(id)
    ? "To print it whole, with the rows nearest to it:" : "To print its texts, with the rows nearest to it:";
  const command = `embedkit neighbors ${run} --id ${id} --full-texts`;
  return [html("p", { textContent: what }), html("pre", { className: "command", textContent: command })];
}

/**
 * The texts of a row that the file carries, or how it begins.
 * @param {Session} session
 * @param {Rows} rows
 * @param {number} i
 */
function textsOf({ selection }, rows, i) {
  const id = rows.ids[i], { texts } = rows, at = texts.at.get(id);
  /** @type {Node[]} */
  const parts = [];
  if (at !== undefined) {
    for (const [name, column] of Object.entries(texts.columns)) {
      const length = texts.lengths[name][at], text = column[at];
      if (!length) continue;
      const more = length > text.length ? `, ${formatCount(length)} characters, cut here` : "";
      parts.push(html("h3", { textContent: name + more }), html("pre", {}, ...highlighted(text, selection.query)));
    }
  }
  if (at === undefined && rows.snippets) {
    const text = rows.snippets.at(i, rows.snippets.characters);
    parts.push(html("h3", { textContent: "it begins" }), html("pre", {}, ...highlighted(text, selection.query)));
  }
  return parts;
}

/**
 * @param {Rows} rows
 * @param {number} i
 */
const factListOf = (rows, i) => html("dl", {}, ...factsOf(rows, i).flatMap(([name, value]) =>
  [html("dt", { textContent: name }), html("dd", { textContent: value })]));

/**
 * Whether a row has something other than 0 in a column: turns of texts that are no chats are 0.
 * @param {import("./columns.js").Column} column
 */
const isUsed = ({ about }) => about.kind === "category" || about.low !== 0 || about.high !== 0;

/**
 * Names and values of what is known about a row.
 * @param {Rows} rows
 * @param {number} i
 * @returns {[string, string][]}
 */
function factsOf(rows, i) {
  const scores = rows.axes.map(({ label, low, high }, at) => {
    const unit = (at ? rows.y : rows.x)[i];
    return /** @type {[string, string]} */ ([label.split(" ")[0], (low + unit * (high - low)).toPrecision(3)]);
  });
  return [
    ["source", sourceOf(rows, i)],
    // A plain number, as `row` is written in the files and on the command line.
    ["row", String(rows.numbers[i])],
    ...[...rows.columns.values()].filter(isUsed).map((column) =>
      /** @type {[string, string]} */ ([column.about.name, column.text(i)])).filter(([, text]) => text),
    ...scores,
  ];
}
