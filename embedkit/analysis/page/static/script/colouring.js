// Colours of the points: by source, or on a logarithmic ramp.

import { arrayOf } from "./data.js";

/**
 * @typedef {import("./data.js").Colour} Colour
 *
 * @typedef {object} Colouring
 * @property {Colour[]} colours by shade
 * @property {import("./data.js").Numbers} shades of the points
 * @property {[number, number, number] | null} range lowest, middle and highest number of the ramp
 */

/** @type {Colour[]} */
export const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // viridis

/**
 * @param {import("./rows.js").Places} places
 * @param {string} colour "source", "tokens" or "turns"
 * @returns {Promise<Colouring>}
 */
export async function colouringOf({ view, layer, source }, colour) {
  if (colour !== "tokens" && colour !== "turns") return { colours: layer.colours, shades: source, range: null };
  const numbers = await arrayOf(`${view}-${colour}`);
  const [min, max] = layer[colour];
  const [low, high] = [Math.log1p(min), Math.log1p(max)];
  const shadeOf = (/** @type {number} */ number) =>
    (high > low ? 255 * ((Math.log1p(number) - low) / (high - low)) : 0);
  return {
    colours: [...Array(256).keys()].map((shade) => rampAt(shade / 255)),
    shades: Uint8Array.from(numbers, shadeOf),
    range: [min, Math.round(Math.expm1((low + high) / 2)), max],
  };
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
