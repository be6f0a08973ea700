// Whole texts of rows, from the server or from a file beside the page.

import { SERVED, fetchTexts } from "./server.js";
import { hasTextFiles, textsFromFile } from "./text_files.js";

const KEPT = 50;  // rows whose texts are kept

/** @type {Map<number, Record<string, string>>} */
const kept = new Map();

/** Whether whole texts can be had. */
export const hasWholeTexts = SERVED !== "" || hasTextFiles;

/**
 * The whole texts of a row by name, if they have been loaded.
 * @param {number} id
 */
export function keptTexts(id) { return kept.get(id); }

/**
 * The whole texts of a row by name; null if no file has them.
 * @param {number} id
 * @param {AbortSignal} signal
 */
export async function loadTexts(id, signal) {
  const found = kept.get(id) ?? await (SERVED ? fetchTexts(id, signal) : textsFromFile(id, signal));
  const oldest = kept.keys().next().value;
  if (found && !kept.delete(id) && kept.size >= KEPT && oldest !== undefined) kept.delete(oldest);
  if (found) kept.set(id, found);
  return found;
}
