// Whole texts of rows from the numbered files beside the page. A page from disk cannot read a file, but can show it in
// a frame, where its own script answers.

import { META } from "./data.js";
import { html } from "./html.js";

const KEPT = 3;  // frames, each with some megabytes of texts
const DELAY = 500;  // milliseconds after loading until a frame without a script counts as missing

/** @typedef {{ frame: HTMLIFrameElement, ready: Promise<void> }} Opened */

/** @type {Map<string, Opened>} by path, the least recently used first */
const opened = new Map();

/** Whether there are files of whole texts beside the page. */
export const hasTextFiles = META.text_files.length > 0;

/**
 * The whole texts of a row by name; null if no file has them.
 * @param {number} id
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, string> | null>}
 */
export async function textsFromFile(id, signal) {
  const file = META.text_files.findLastIndex((first) => first <= id);
  if (file < 0) return null;
  const { frame, ready } = open(`texts/${String(file).padStart(5, "0")}.html`);
  await ready;
  const answered = new AbortController();
  signal.addEventListener("abort", () => answered.abort());
  return new Promise((resolve) => {
    listen(frame, answered.signal, (data) => {
      if (data.id !== id) return;
      answered.abort();
      resolve(data.texts);
    });
    frame.contentWindow?.postMessage(id, "*");
  });
}

/**
 * The frame with a file, opened if it is not there.
 * @param {string} path
 * @returns {Opened}
 */
function open(path) {
  const found = opened.get(path) ?? load(path), oldest = opened.keys().next().value;
  if (!opened.delete(path) && opened.size >= KEPT && oldest) close(oldest);
  opened.set(path, found);
  return found;
}

/** @param {string} path */
function close(path) {
  opened.get(path)?.frame.remove();
  opened.delete(path);
}

/**
 * @param {string} path
 * @returns {Opened}
 */
function load(path) {
  const frame = html("iframe", { hidden: true, src: path, title: path }), answered = new AbortController();
  /** @type {Promise<void>} */
  const ready = new Promise((resolve, reject) => {
    listen(frame, answered.signal, () => {
      answered.abort();
      resolve();
    });
    const refuse = () => reject(new Error(`${path}, in the folder of this page, cannot be opened.`));
    frame.addEventListener("load", () => setTimeout(refuse, DELAY));
  });
  ready.catch(() => close(path));
  document.body.append(frame);
  return { frame, ready };
}

/**
 * @param {HTMLIFrameElement} frame
 * @param {AbortSignal} signal ends the listening
 * @param {(data: any) => void} onMessage is called with each message of the frame
 */
function listen(frame, signal, onMessage) {
  addEventListener("message", ({ source, data }) => {
    if (source === frame.contentWindow) onMessage(data);
  }, { signal });
}
