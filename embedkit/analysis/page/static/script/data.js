// The page's data. Each array is gzip in base64 in its own element, and is unpacked when it is first needed.

/**
 * @typedef {Uint8Array<ArrayBuffer> | Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer>} Numbers
 * @typedef {[number, number, number]} Colour red, green and blue, each from 0 to 255
 * @typedef {{ label: string, low: number, high: number }} Axis a principal component, and its range
 *
 * @typedef {object} Layer the rows of one view
 * @property {string} view
 * @property {number} rows
 * @property {string[]} sources by code
 * @property {number[]} counts rows of each source
 * @property {Colour[]} colours of the sources
 * @property {string[]} prefixes of the sources that share one, "" of the others
 * @property {Axis[]} axes
 * @property {{ notes: string[] } | null} map about the UMAP layout, if there is one
 * @property {string[]} notes
 * @property {{ layer: number, characters: number } | null} snippets the layer that has them, and their length
 * @property {import("./columns.js").Description[]} columns
 * @property {import("./groups.js").LevelDescription[]} groups by level, the coarsest first; none without groups
 *
 * @typedef {object} Meta
 * @property {string} run
 * @property {Record<string, "Uint8Array" | "Uint16Array" | "Uint32Array">} types of the arrays by name
 * @property {Layer[]} layers
 * @property {number} texts rows whose texts the page carries
 * @property {number[]} text_files id of the first row of each file of whole texts beside the page
 *
 * @typedef {object} Texts of the rows that the page carries
 * @property {number[]} id ascending
 * @property {Record<string, string[]>} columns texts by name, such as prompt, in the order of `id`
 * @property {Record<string, number[]>} lengths characters of the whole texts
 * @property {{ ids: number[][], cosines: number[][] }[]} nearest by layer: the nearest rows of each, the nearest first
 * @property {Map<number, number>} at position in `id` by id
 */

/** @type {Meta} */
export const META = JSON.parse(document.getElementById("meta")?.textContent ?? "{}");
const LEVELS = 2 ** 24 - 1;  // the largest quantized coordinate
const FINE = "-fine";  // what follows a coordinate's name in the name of the block with its lower 8 bits
const ARRAYS = { Uint8Array, Uint16Array, Uint32Array };

/** @type {Map<string, Promise<Numbers>>} */
const unpacked = new Map();
/** @type {Map<string, Promise<any>>} */
const parsed = new Map();
/** @type {Promise<Texts> | null} */
let texts = null;

/**
 * The array with a name. `META.types` has its type.
 * @param {string} name
 * @returns {Promise<Numbers>}
 */
export function arrayOf(name) {
  const found = unpacked.get(name) ?? unpack(name).then((buffer) => new ARRAYS[META.types[name]](buffer));
  unpacked.set(name, found);
  return found;
}

/**
 * Coordinates from 0 to 1, float32: from their upper 16 bits, which come first, or from all bits in the file.
 * @param {string} name
 * @param {boolean} isFine
 * @returns {Promise<Float32Array<ArrayBuffer>>}
 */
export async function coordinatesOf(name, isFine) {
  const upper = await arrayOf(name), lower = isFine && name + FINE in META.types ? await arrayOf(name + FINE) : null;
  const found = new Float32Array(upper.length);
  for (let i = 0; i < found.length; i++) found[i] = (upper[i] * 256 + (lower ? lower[i] : 128)) / LEVELS;
  return found;
}

/**
 * The JSON with a name.
 * @param {string} name
 * @returns {Promise<any>}
 */
export function jsonOf(name) {
  const found = parsed.get(name) ?? unpack(name).then((buffer) => JSON.parse(new TextDecoder().decode(buffer)));
  parsed.set(name, found);
  return found;
}

/** @returns {Promise<Texts>} */
export function carriedTexts() {
  texts ??= jsonOf("texts").then((found) => {
    const at = new Map(found.id.map((/** @type {number} */ id, /** @type {number} */ at) => [id, at]));
    return { ...found, at };
  });
  return texts;
}

/**
 * Ids from their stored differences.
 * @param {string} name
 */
export async function decodeIds(name) {
  const ids = new Uint32Array(await arrayOf(name));
  for (let i = 1; i < ids.length; i++) ids[i] += ids[i - 1];
  return ids;
}

/**
 * The position of an id among ascending ids, or -1.
 * @param {Uint32Array} ids
 * @param {number} id
 */
export function positionOf(ids, id) {
  let low = 0, high = ids.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ids[middle] < id) low = middle + 1; else high = middle;
  }
  return ids[low] === id ? low : -1;
}

/** @param {string} name */
async function unpack(name) {
  const element = await completeElement(`data-${name}`);
  const packed = fromBase64(element.textContent ?? "");
  element.textContent = "";  // so that the data is not in memory twice
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

/**
 * The element, once it is complete. Scripts run while the page loads, and an element exists before its text does.
 * @param {string} id
 */
async function completeElement(id) {
  if (!document.getElementById(id)?.nextSibling && document.readyState === "loading") {
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  }
  const found = document.getElementById(id);
  if (!found) throw new Error(`${id} is missing`);
  return found;
}

/** @param {string} text */
function fromBase64(text) {
  // Not in every browser of 2023.
  const decode = /** @type {{ fromBase64?: (text: string) => Uint8Array<ArrayBuffer> }} */ (Uint8Array).fromBase64;
  if (decode) return decode.call(Uint8Array, text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
