// Colours of the points: by source, by category, or on a ramp.

import { CategoryColumn } from "./columns.js";
import { META } from "./data.js";
import { loadColumn } from "./rows.js";

/**
 * @typedef {import("./data.js").Colour} Colour
 *
 * @typedef {object} Colouring
 * @property {Colour[]} colours by shade
 * @property {import("./data.js").Numbers} shades of the points
 * @property {import("./columns.js").NumberColumn | null} ramp the column that the ramp shows
 */

/** @type {Colour[]} */
export const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis
/** @type {Colour} */
const NONE = [150, 154, 160];  // of rows without a number or a category
const STEPS = 255;

/**
 * @param {import("./rows.js").Places} places
 * @param {string} colour "source", or the name of a column
 * @returns {Promise<Colouring>}
 */
export async function colouringOf({ view, layer, source }, colour) {
  const at = META.layers[view].columns.findIndex(({ name }) => name === colour);
  if (at < 0) return { colours: layer.colours, shades: source, ramp: null };
  const column = await loadColumn(view, at), { levels } = column;
  if (column instanceof CategoryColumn) {
    return { colours: [NONE, ...column.about.colours], shades: levels, ramp: null };
  }
  return onRamp(column);
}

/**
 * @param {import("./columns.js").NumberColumn} column
 * @returns {Colouring}
 */
export function onRamp(column) {
  const { about } = column;
  const shadeOf = (/** @type {number} */ level) =>
    (level ? 1 + Math.round((STEPS - 1) * column.share(about.low + (level - 1) * column.step)) : 0);
  const colours = [NONE, ...Array.from({ length: STEPS }, (_, step) => rampAt(step / (STEPS - 1)))];
  return { colours, shades: Uint8Array.from(column.levels, shadeOf), ramp: column };
}

/**
 * @param {number} share from 0 to 1
 * @returns {Colour}
 */
function rampAt(share) {
  const along = share * (RAMP.length - 1), at = Math.min(Math.floor(along), RAMP.length - 2);
  const mixed = (/** @type {number} */ part) =>
    Math.round(RAMP[at][part] + (RAMP[at + 1][part] - RAMP[at][part]) * (along - at));
  return [mixed(0), mixed(1), mixed(2)];
}
