// This page as one of two linked maps: the same row is open in both, and the same rows are selected.

import { byId } from "./html.js";
import { listen, post } from "./link_messages.js";
import { select } from "./selection.js";
import { SERVED } from "./server.js";

/**
 * @typedef {import("./link_messages.js").Parts} Parts
 * @typedef {import("./session.js").Session} Session
 */

const SAME = /** @type {const} */ (["row", "q", "by", "theme"]);  // parts of the state that both maps have

/**
 * @param {Session} session
 * @param {(id: number) => void} open shows a row on the map
 */
export function addLinked(session, open) {
  const isHalf = parent !== window;
  byId("two-maps", HTMLElement).hidden = isHalf;
  if (!isHalf) return;
  document.documentElement.dataset.half = "";  // the style saves room
  const half = new Half(session, open);
  listen(parent, (parts) => half.receive(parts));
  session.subscribe((changed) => {
    // A row that was opened while the rows were loading.
    if (changed.has("rows") && session.rows && session.state.row !== null) open(session.state.row);
    half.share();
  });
}

class Half {
  /**
   * @param {Session} session
   * @param {(id: number) => void} open
   */
  constructor(session, open) {
    this.session = session;
    this.open = open;
    this.isLinked = false;  // whether the parent has spoken
    this.isReceiving = false;
    /** @type {Parts} what both maps have: only what differs from it is sent, so that nothing comes back */
    this.common = { row: null, q: "", by: "words", theme: "" };
    /** @type {unknown[]} what the selection that was sent depends on */
    this.selectedBy = [];
    this.hasSent = false;  // whether the other map shows a selection of this one
    this.hasReceived = false;
  }

  /** @param {Parts} parts */
  receive({ row, ids, clear, ...parts }) {
    const { session } = this;
    if (!SERVED) delete parts.by;
    this.isLinked = this.isReceiving = true;
    Object.assign(this.common, parts, row === undefined ? {} : { row });
    if (clear) session.clear();
    if (ids !== undefined) session.setLinked(ids);
    if (clear || ids !== undefined) this.hasReceived = session.linked !== null;
    if (Object.keys(parts).length) session.update(parts);
    if (row === null) session.update({ row });
    else if (row !== undefined) this.open(row);
    this.isReceiving = false;
    this.share();
  }

  /** Send what has changed. */
  share() {
    if (!this.isLinked || this.isReceiving) return;
    const { common, session: { state, linked } } = this;
    const names = SAME.filter((name) => state[name] !== common[name]);
    const changed = Object.fromEntries(names.map((name) => [name, state[name]]));
    Object.assign(common, changed);
    /** @type {Parts} */
    const parts = { ...changed, ...this.#selected() };
    if (this.hasReceived && !linked) {
      this.hasReceived = false;
      parts.clear = true;
    }
    if (Object.keys(parts).length) post(parent, parts);
  }

  /**
   * The selection of this map alone, if it has changed. The search is sent as words.
   * @returns {Parts}
   */
  #selected() {
    const { session: { state, rows } } = this;
    const now = [rows, state.area, state.hidden, state.ranges, state.picks];
    if (!rows || now.every((part, at) => part === this.selectedBy[at])) return {};
    this.selectedBy = now;
    const { active, positions } = select(rows, { ...state, q: "", by: "words" });
    if (!active && !this.hasSent) return {};
    this.hasSent = active;
    return { ids: active ? positions.map((i) => rows.ids[i]) : null };
  }
}
