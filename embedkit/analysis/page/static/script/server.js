// What `embedkit view` answers. A page that was opened from disk has no server, and asks nothing.

/** The view that the server opens the page with; "" without a server. */
export const SERVED = document.documentElement.dataset.server ?? "";

/**
 * @typedef {Record<string, string | number | string[]>} Parameters
 *
 * @typedef {object} NearRow
 * @property {number} id
 * @property {number} cosine
 * @property {string} dataset_source
 * @property {string} [snippet]
 *
 * @typedef {object} SearchAnswer
 * @property {number} low the cosine of level 1
 * @property {number} high the cosine of level 255
 * @property {string[]} differences of the engine from the one that embedded the rows
 * @property {NearRow[]} neighbors
 *
 * @typedef {{ ids: number[], next: number, is_done: boolean }} Progress
 */

const WAITING = 202;
const POLL_DELAY = 1000;  // milliseconds until the next request while the server waits for something

/**
 * @param {string} path
 * @param {Parameters} parameters
 * @param {AbortSignal} signal
 * @param {RequestInit} [options]
 */
async function request(path, parameters, signal, options = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, String(each));
  }
  const answer = await fetch(`${path}?${query}`, { signal, ...options }).catch((error) => {
    throw signal.aborted ? error : new Error("The server does not answer. Was `embedkit view` stopped?");
  });
  if (answer.ok) return answer;
  const text = await answer.text();
  throw new Error(text.startsWith("{") ? JSON.parse(text).error : text);
}

/**
 * @param {number} id
 * @param {AbortSignal} signal
 * @returns {Promise<Record<string, string>>} the whole texts of a row by name
 */
export async function fetchTexts(id, signal) {
  const { rows } = await (await request("texts", { id }, signal)).json();
  return rows[0].texts;
}

/**
 * @param {string} view
 * @param {number} id
 * @param {boolean} snippets whether the server says how the rows begin
 * @param {AbortSignal} signal
 * @returns {Promise<NearRow[]>} the rows nearest to a row
 */
export async function fetchNeighbors(view, id, snippets, signal) {
  return (await (await request("neighbors", { view, id, snippets: Number(snippets) }, signal)).json()).neighbors;
}

/**
 * Search by meaning. The first query waits until the engine has started.
 * @param {{ view: string, q: string, k: number, snippets: number }} parameters
 * @param {AbortSignal} signal
 * @param {(waiting: string) => void} onWait is called with what is being waited for
 * @returns {Promise<SearchAnswer>}
 */
export async function fetchSearch(parameters, signal, onWait) {
  for (;;) {
    const answer = await request("search", parameters, signal);
    if (answer.status !== WAITING) return answer.json();
    onWait((await answer.json()).waiting);
    await new Promise((done) => setTimeout(done, POLL_DELAY));
    signal.throwIfAborted();
  }
}

/**
 * How similar each row is to a text: a level from 1 to 255 by id, 0 for none.
 * @param {string} view
 * @param {string} q
 * @param {AbortSignal} signal
 */
export async function fetchSimilarity(view, q, signal) {
  return new Uint8Array(await (await request("similarity", { view, q }, signal)).arrayBuffer());
}

/**
 * Rows with their whole texts, as a Parquet file.
 * @param {string} view
 * @param {Uint32Array<ArrayBuffer>} ids ascending
 * @param {AbortSignal} signal
 */
export async function fetchParquet(view, ids, signal) {
  const answer = await request("selected.parquet", { view }, signal, { method: "POST", body: ids });
  return answer.blob().catch(() => { throw new Error("The file was cut off. The terminal of the server says why."); });
}

/**
 * Rows whose whole texts match, batch by batch. The server stops reading when the signal aborts.
 * @param {Parameters} parameters `view`, `from`, and `have` and `lack`, or `pattern`
 * @param {AbortSignal} signal
 * @param {(progress: Progress) => void} onProgress is called after each batch
 */
export async function fetchRows(parameters, signal, onProgress) {
  const reader = (await request("rows", parameters, signal)).body?.getReader(), decoder = new TextDecoder();
  for (let rest = ""; reader;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const progress = JSON.parse(line);
      if (progress.error) throw new Error(progress.error);
      onProgress(progress);
    }
  }
}
