// The rows of the map that is shown. Each load makes new objects, so that arrays of different maps never mix.

import { columnOf } from "./columns.js";
import { META, arrayOf, carriedTexts, coordinatesOf, decodeIds } from "./data.js";
import { Grid } from "./grid.js";
import { Snippets } from "./snippets.js";

/**
 * @typedef {import("./data.js").Numbers} Numbers
 *
 * @typedef {object} Places what the picture needs
 * @property {number} view
 * @property {string} map
 * @property {string[]} names of the coordinates
 * @property {import("./data.js").Layer} layer
 * @property {import("./data.js").Axis[]} axes of x and y, if they are components
 * @property {Float32Array<ArrayBuffer>} x from 0 to 1
 * @property {Float32Array<ArrayBuffer>} y
 * @property {Numbers} source codes
 *
 * @typedef {Places & RowFacts} Rows
 *
 * @typedef {object} RowFacts what picking, search and lists need
 * @property {Uint32Array} ids ascending
 * @property {Uint32Array} numbers of the rows in the data set, which may have rows that the run did not keep
 * @property {Map<string, import("./columns.js").Column>} columns by name, tokens and turns among them
 * @property {import("./data.js").Texts} texts
 * @property {Numbers | null} placed whether a row was placed on the UMAP and not fitted
 * @property {Grid} grid
 * @property {Snippets | null} snippets
 */

/**
 * @param {import("./state.js").State} state
 * @returns {Promise<Places>}
 */
export async function loadPlaces({ view, map, x, y }) {
  const layer = META.layers[view];
  const names = map === "umap" ? ["mapx", "mapy"] : [`pc${x}`, `pc${y}`];
  const [source, ...xy] = await Promise.all([
    arrayOf(`${view}-source`), ...names.map((name) => coordinatesOf(`${view}-${name}`, false)),
  ]);
  const axes = map === "umap" ? [] : [layer.axes[x - 1], layer.axes[y - 1]];
  return { view, map, names, layer, axes, x: xy[0], y: xy[1], source };
}

/**
 * Everything else about the rows of a map, and their coordinates with all bits.
 * @param {Places} places
 * @returns {Promise<Rows>}
 */
export async function loadRows(places) {
  const name = (/** @type {string} */ part) => `${places.view}-${part}`;
  const hasPlaced = places.map === "umap" && name("placed") in META.types;
  const { snippets } = places.layer;
  const [ids, shifts, texts, columns, placed, bytes, x, y] = await Promise.all([
    decodeIds(name("id")), decodeIds(name("row")), carriedTexts(), loadColumns(places),
    hasPlaced ? arrayOf(name("placed")) : null, snippets ? arrayOf(`${snippets.layer}-snippets`) : null,
    ...places.names.map((coordinate) => coordinatesOf(name(coordinate), true)),
  ]);
  const numbers = ids.map((id, i) => id + shifts[i]);  // modulo 2 ** 32
  return {
    ...places, x, y, ids, numbers, texts, columns, placed, grid: new Grid(x, y),
    snippets: bytes && snippets && new Snippets(/** @type {Uint8Array} */ (bytes), ids.length, snippets.characters),
  };
}

/** @param {Places} places */
async function loadColumns({ view, layer }) {
  const columns = await Promise.all(layer.columns.map((_, at) => loadColumn(view, at)));
  return new Map(columns.map((column) => [column.about.name, column]));
}

/**
 * One column of a view.
 * @param {number} view
 * @param {number} at its position in `layer.columns`
 */
export async function loadColumn(view, at) {
  return columnOf(META.layers[view].columns[at], await arrayOf(`${view}-column${at}`));
}

/**
 * The name of a row's source.
 * @param {Rows} rows
 * @param {number} i
 */
export const sourceOf = (rows, i) => rows.layer.sources[rows.source[i]];
