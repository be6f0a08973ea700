// Which names of groups a zoom shows, and where. The layout depends on the zoom and not on the window, so that names
// stay as the map moves.

/**
 * @typedef {object} Label the name of a group
 * @property {import("./groups.js").Group} at
 * @property {number[]} members its fine groups
 * @property {string} title the whole name
 * @property {string} text
 * @property {number} rows
 * @property {number} u its place in data units
 * @property {number} v
 * @property {number} size of its letters in pixels
 * @property {number} width of its box in pixels
 * @property {number} height
 * @property {number} x the middle of its box in pixels, from the lower left corner of the data and to the right
 * @property {number} y upwards
 * @property {HTMLButtonElement | null} button
 */

const ROOM = 30;  // names that a window has room for
const STEP = 1.9;  // least zoom between two levels
const GAP = 3;  // pixels between names
const BAND = 48;  // pixels

/**
 * The zoom from which on each level is shown: a finer one once most of its names in the window have room.
 * @param {number[]} counts of the groups of each level, the coarsest first
 */
export function zoomsOf(counts) {
  /** @type {number[]} */
  const zooms = [];
  for (const count of counts) {
    zooms.push(zooms.length ? Math.max(Math.sqrt(count / ROOM), zooms[zooms.length - 1] * STEP, STEP) : 0);
  }
  return zooms;
}

/**
 * The labels that do not overlap, the largest groups first. Sets their places in pixels.
 * @param {Label[]} labels the largest groups first
 * @param {[number, number]} scale pixels per data unit
 * @param {[number, number]} room width and height in pixels of the part around the middle of the data that has names
 */
export function layOut(labels, scale, room) {
  /** @type {Map<number, Label[]>} */
  const bands = new Map();
  return labels.filter((label) => {
    const { width, height } = label;
    label.x = inside(label.u * scale[0], scale[0] / 2, (room[0] - width) / 2);
    label.y = inside(label.v * scale[1], scale[1] / 2, (room[1] - height) / 2);
    const first = Math.floor((label.y - height / 2) / BAND), last = Math.floor((label.y + height / 2 + GAP) / BAND);
    const near = Array.from({ length: last - first + 1 }, (_, at) => bands.get(first + at) ?? []);
    if (near.some((others) => others.some((other) => overlap(label, other)))) return false;
    near.forEach((others, at) => bands.set(first + at, [...others, label]));
    return true;
  });
}

/**
 * A coordinate, at most `reach` from the middle.
 * @param {number} value
 * @param {number} middle
 * @param {number} reach
 */
const inside = (value, middle, reach) =>
  Math.min(Math.max(value, middle - Math.max(reach, 0)), middle + Math.max(reach, 0));

/**
 * @param {Label} a
 * @param {Label} b
 */
function overlap(a, b) {
  return Math.abs(a.x - b.x) < (a.width + b.width) / 2 + GAP && Math.abs(a.y - b.y) < (a.height + b.height) / 2 + GAP;
}
