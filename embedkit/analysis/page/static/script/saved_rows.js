// The selected rows as files: CSV of what this file has, or, with a server, Parquet with whole texts.

import { CategoryColumn } from "./columns.js";
import { saveCsv } from "./csv.js";
import { META } from "./data.js";
import { byId } from "./html.js";
import { sourceOf } from "./rows.js";
import { save } from "./save.js";
import { SERVED, fetchParquet } from "./server.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./rows.js").Rows} Rows
 */

const COUNTS = new Map([["tokens", "num_tokens"], ["turns", "num_turns"]]);  // as in the files of a run
const WHOLE = "whole", CUT = "cut";  // texts of a row

/** @param {Session} session */
export function addSavedRows(session) {
  const csv = byId("csv", HTMLButtonElement), parquet = byId("parquet", HTMLButtonElement);
  const note = byId("saved", HTMLElement);
  csv.addEventListener("click", () => {
    const { rows, selection } = session;
    if (rows) saveCsv(`${META.run}-rows.csv`, ...tableOf(rows, selection.positions));
  });
  parquet.addEventListener("click", async () => {
    note.textContent = "the server reads the texts ...";
    parquet.disabled = true;
    note.textContent = await saveParquet(session).then(() => "", (error) => error.message);
    parquet.disabled = false;
  });
  session.subscribe((changed) => {
    if (!changed.has("selection")) return;
    csv.hidden = !session.selection.positions.length;
    parquet.hidden = csv.hidden || !SERVED;
    note.textContent = "";
  });
}

/** @param {Session} session */
async function saveParquet({ rows, selection }) {
  if (!rows) return;
  const ids = selection.positions.map((i) => rows.ids[i]);
  save(`${META.run}-rows.parquet`, await fetchParquet(rows.layer.view, ids, new AbortController().signal));
}

/**
 * Names of columns, and a line for each row. `texts` says whether the texts after it are whole or cut; the file has
 * none of the other rows, only how they begin.
 * @param {Rows} rows
 * @param {Uint32Array} positions
 * @returns {[string[], (string | number)[][]]}
 */
function tableOf(rows, positions) {
  const columns = [...rows.columns.values()], { snippets } = rows, texts = Object.keys(rows.texts.columns);
  const names = columns.map(({ about: { name } }) => COUNTS.get(name) ?? name);
  const lines = Array.from(positions, (i) => [
    rows.ids[i], rows.numbers[i], sourceOf(rows, i), ...columns.map((column) => cellOf(column, i)),
    ...(snippets ? [snippets.at(i, snippets.characters)] : []), ...textsOf(rows, i, texts),
  ]);
  return [["id", "row", "dataset_source", ...names, ...(snippets ? ["begins"] : []), "texts", ...texts], lines];
}

/**
 * A number, or a text.
 * @param {import("./columns.js").Column} column
 * @param {number} i
 */
function cellOf(column, i) {
  if (column instanceof CategoryColumn) return column.text(i);
  const number = column.at(i);
  return number === null ? "" : column.about.whole ? Math.round(number) : +number.toPrecision(6);
}

/**
 * @param {Rows} rows
 * @param {number} i
 * @param {string[]} names of the texts
 */
function textsOf({ ids, texts }, i, names) {
  const at = texts.at.get(ids[i]);
  if (at === undefined) return ["", ...names.map(() => "")];
  const isCut = names.some((name) => [...texts.columns[name][at]].length < texts.lengths[name][at]);
  return [isCut ? CUT : WHOLE, ...names.map((name) => texts.columns[name][at])];
}
