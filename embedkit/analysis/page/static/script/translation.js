// Ids of the rows of one run as ids of another run.

import { META, decodeIds, positionOf } from "./data.js";

/** @typedef {(side: number, id: number) => number | null} Translate an id of a side as an id of the other one */

/**
 * The translation that the page has. Without one, both sides have the same ids.
 * @returns {Promise<Translate>}
 */
export async function loadTranslation() {
  if (!("left" in META.types)) return (_, id) => id;
  const [left, right] = await Promise.all([decodeIds("left"), decodeIds("right")]);
  const order = right.map((_, at) => at).sort((a, b) => right[a] - right[b]);
  const sides = [[left, right], [order.map((at) => right[at]), order.map((at) => left[at])]];
  return (side, id) => {
    const [from, to] = sides[side], at = positionOf(from, id);
    return at < 0 ? null : to[at];
  };
}
