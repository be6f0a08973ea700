// The one place where the page's state changes. Views subscribe, and never change each other.

import { colouringOf } from "./colouring.js";
import { searchKey } from "./query.js";
import { loadPlaces, loadRows } from "./rows.js";
import { noSelection, select } from "./selection.js";
import { SIMILARITY } from "./state.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {keyof State | "places" | "rows" | "selection" | "lit" | "colouring" | "similarity" | "error"} Part
 * @typedef {{ has: (part: Part) => boolean }} Changed the parts that changed
 * @typedef {(changed: Changed) => void} Listener
 */

export class Session {
  /** @param {State} state */
  constructor(state) {
    this.state = state;
    /** @type {import("./rows.js").Places | null} of the map that is drawn */
    this.places = null;
    /** @type {import("./rows.js").Rows | null} null while they load */
    this.rows = null;
    /** @type {import("./colouring.js").Colouring | null} */
    this.colouring = null;
    this.selection = noSelection();
    /** @type {Uint32Array | null} ids of the rows that are selected on a linked map, null for no selection */
    this.linked = null;
    /** @type {import("./whole_text_search.js").Found | null} the last search with a server */
    this.found = null;
    /** @type {import("./meaning.js").Similarity | null} of the last search by meaning */
    this.similarity = null;
    this.colourBefore = "source";  // the similarity
    /** @type {Set<number>} codes of the sources under the pointer in the legend */
    this.litSources = new Set();
    /** @type {Listener[]} */
    this.listeners = [];
    /** @type {unknown} why a map could not be loaded */
    this.error = null;
    this.generation = 0;
  }

  /** @param {Listener} listener */
  subscribe(listener) { this.listeners.push(listener); }

  /** @param {...Part} parts */
  emit(...parts) { for (const listener of this.listeners) listener(new Set(parts)); }

  /**
   * Change parts of the state. A new map is loaded, and the selection follows.
   * @param {Partial<State>} change
   */
  update(change) {
    const before = { ...this.state };
    Object.assign(this.state, change);
    const names = /** @type {(keyof State)[]} */ (Object.keys(change));
    const isNew = (/** @type {(keyof State)[]} */ ...wanted) =>
      wanted.some((name) => before[name] !== this.state[name]);
    const needsLoad = isNew("view", "map", "x", "y");
    const reselects = this.rows && !needsLoad && isNew("q", "by", "area", "hidden", "ranges", "picks");
    if (reselects) this.#select();
    this.emit(...names, ...(reselects ? /** @type {Part[]} */ (["selection"]) : []));
    if (needsLoad) return this.load();
    return isNew("colour") ? this.recolour() : Promise.resolve();
  }

  /** Select nothing. */
  clear() {
    this.linked = null;
    return this.update({ q: "", area: null, ranges: {}, picks: {} });
  }

  /** @param {Uint32Array | null} ids of the rows that are selected on a linked map */
  setLinked(ids) {
    this.linked = ids;
    this.#select();
    this.emit("selection");
  }

  /** What a server has found of the present search, or null. */
  get wholeTexts() {
    const { rows, found, state } = this;
    return rows && found?.key === searchKey(rows.view, state) ? found : null;
  }

  /** @param {import("./whole_text_search.js").Found} found */
  setFound(found) {
    this.found = found;
    this.#select();
    this.emit("selection");
  }

  /**
   * Colour the map by a search by meaning; null for the colours before it.
   * @param {import("./meaning.js").Similarity | null} similarity
   */
  setSimilarity(similarity) {
    const { colour } = this.state, isShown = colour === SIMILARITY;
    if (similarity && !isShown) this.colourBefore = colour;
    this.similarity = similarity;
    this.emit("similarity");
    if (similarity && isShown) return this.recolour();
    return this.update({ colour: similarity ? SIMILARITY : isShown ? this.colourBefore : colour });
  }

  /** @param {number[]} codes of sources; none for no lit source */
  light(codes) {
    this.litSources = new Set(codes);
    this.emit("lit");
  }

  /** Load the map that the state requests. Nothing is assigned if another one was requested meanwhile. */
  async load() {
    try {
      await this.#load();
    } catch (error) {
      this.error = error;
      this.emit("error");
    }
  }

  async #load() {
    const generation = ++this.generation;
    this.rows = null;
    this.selection = noSelection();
    this.emit("rows", "selection");
    const places = await loadPlaces(this.state);
    const colouring = await this.#colouringOf(places);
    if (generation !== this.generation) return;
    [this.places, this.colouring] = [places, colouring];
    this.emit("places", "colouring");
    const rows = await loadRows(places);
    if (generation !== this.generation) return;
    this.rows = rows;
    this.#select();
    this.emit("rows", "selection");
  }

  #select() {
    if (this.rows) this.selection = select(this.rows, this.state, this.wholeTexts?.marks, this.linked);
  }

  /** @param {import("./rows.js").Places} places */
  async #colouringOf(places) {
    const { similarity, state: { colour } } = this;
    return colour === SIMILARITY && similarity?.view === places.view
      ? similarity.colouring : colouringOf(places, colour);
  }

  async recolour() {
    const { places } = this, { colour } = this.state;
    if (!places) return;
    const colouring = await this.#colouringOf(places);
    if (places !== this.places || colour !== this.state.colour) return;
    this.colouring = colouring;
    this.emit("colouring");
  }
}
