// Lines as a CSV file.

import { save } from "./save.js";

/**
 * Text for a cell of a spreadsheet. An apostrophe keeps text that begins like a formula from being run as one.
 * @param {string} text
 */
const asText = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

/**
 * Have the browser save lines as a CSV file.
 * @param {string} name
 * @param {string[]} header
 * @param {(string | number)[][]} lines
 */
export function saveCsv(name, header, lines) {
  const quoted = (/** @type {string | number} */ value) =>
    (typeof value === "number" ? value : `"${asText(value).replaceAll('"', '""')}"`);
  const text = [header, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  save(name, new Blob([text], { type: "text/csv" }));
}
