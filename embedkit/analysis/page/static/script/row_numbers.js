// Positions of rows in the data set, which may have rows that the run did not keep.

import { decodeIds } from "./data.js";

/**
 * The position of each row in the data set, from 0. The file has differences from the ids, modulo 2 ** 32.
 * @param {import("./rows.js").Rows} rows
 */
export async function rowNumbers({ view, ids }) {
  const shifts = await decodeIds(`${view}-row`);
  return ids.map((id, i) => id + shifts[i]);
}
