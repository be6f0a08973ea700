// The outline of a chosen area: simplified, and as a short text for the address. An outline is rounded when it is made,
// so that the one of a link selects the same rows.

/**
 * @typedef {import("./grid.js").Place} Place
 * @typedef {[number, number, number, number]} Box left, bottom, width and height in data units
 */

const STEPS = 2 ** 16 - 1;  // of a coordinate, within the box around the outline
const DIGITS = 9;  // of the box

/**
 * An outline without the points that are within a distance of the line through their neighbours (Douglas and Peucker
 * 1973), rounded.
 * @param {Place[]} outline
 * @param {[number, number]} distance in data units, across and up
 */
export function simplified(outline, distance) {
  const scaled = outline.map(([u, v]) => /** @type {Place} */ ([u / distance[0], v / distance[1]]));
  const kept = new Set([0, outline.length - 1]);
  /** @type {[number, number][]} */
  const parts = [[0, outline.length - 1]];
  for (let part = parts.pop(); part; part = parts.pop()) {
    const [first, last] = part;
    let [farthest, most] = [0, 1];
    for (let i = first + 1; i < last; i++) {
      const far = distanceTo(scaled[i], scaled[first], scaled[last]);
      if (far > most) [farthest, most] = [i, far];
    }
    if (!farthest) continue;
    kept.add(farthest);
    parts.push([first, farthest], [farthest, last]);
  }
  const found = outline.filter((_, i) => kept.has(i));
  return rounded(found.length > 2 ? found : outline);
}

/** @param {Place[]} outline */
export const rounded = (outline) => fromText(toText(outline)) ?? outline;

/**
 * How far a point is from the line between two others.
 * @param {Place} point
 * @param {Place} from
 * @param {Place} to
 */
function distanceTo([x, y], [a, b], [c, d]) {
  const length = (c - a) ** 2 + (d - b) ** 2;
  const along = length ? Math.min(Math.max(((x - a) * (c - a) + (y - b) * (d - b)) / length, 0), 1) : 0;
  return Math.hypot(x - a - along * (c - a), y - b - along * (d - b));
}

/**
 * An outline as a text: its box, and its points within it, 16 bits a coordinate in base64 for addresses.
 * @param {Place[]} outline at least one point
 */
export function toText(outline) {
  const [across, up] = [outline.map(([u]) => u), outline.map(([, v]) => v)];
  const [left, bottom] = [Math.min(...across), Math.min(...up)].map((number) => +number.toPrecision(DIGITS));
  const box = [left, bottom, Math.max(...across) - left, Math.max(...up) - bottom];
  const [u, v, width, height] = box.map((number) => +number.toPrecision(DIGITS));
  const step = (/** @type {number} */ value, /** @type {number} */ from, /** @type {number} */ size) =>
    (size ? Math.min(Math.max(Math.round(((value - from) / size) * STEPS), 0), STEPS) : 0);
  const numbers = outline.flatMap(([x, y]) => [step(x, u, width), step(y, v, height)]);
  const bytes = numbers.flatMap((number) => [number >> 8, number & 255]);
  const packed = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return [u, v, width, height, packed].join(",");
}

/**
 * The inverse of `toText`; null if the text is none of its texts.
 * @param {string} text
 * @returns {Place[] | null}
 */
export function fromText(text) {
  const parts = text.split(","), [u, v, width, height] = parts.slice(0, 4).map(Number);
  if (parts.length !== 5 || ![u, v, width, height].every(Number.isFinite)) return null;
  if (!/^[\w-]{16,}$/.test(parts[4]) || parts[4].length % 4 === 1) return null;  // three points take 16 letters
  const binary = atob(parts[4].replaceAll("-", "+").replaceAll("_", "/"));
  const number = (/** @type {number} */ at) => ((binary.charCodeAt(at) << 8) | binary.charCodeAt(at + 1)) / STEPS;
  return Array.from({ length: Math.floor(binary.length / 4) }, (_, at) =>
    [u + number(4 * at) * width, v + number(4 * at + 2) * height]);
}
