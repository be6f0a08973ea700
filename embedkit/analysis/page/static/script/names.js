// Names of groups on the map. Pointers pass through them, so that the map can be dragged anywhere; the map asks
// whether a name is under a click.

import { isSelected, levelsOf, placesOf, shownByFine, sourcesText, toggleGroup } from "./groups.js";
import { META, positionOf } from "./data.js";
import { byId, formatCount, html } from "./html.js";
import { layOut, zoomsOf } from "./name_layout.js";
import { addRovingFocus } from "./roving_focus.js";
import { shortName } from "./short_name.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./map.js").MapView} MapView
 * @typedef {import("./map.js").Viewport} Viewport
 * @typedef {import("./name_layout.js").Label} Label
 */

const MAX_NAMES = 60;  // in the page at a time
const MAX_CHARACTERS = 36;
const SIZES = [12, 17];  // pixels of the letters of the smallest and the largest group
const PADDING = 2;  // pixels
const LINE = 1.25;  // height of a line, in letters
const TIP_CHARACTERS = 160;

/**
 * @param {Session} session
 * @param {MapView} map
 */
export function addNames(session, map) {
  const names = new Names(session, map), box = byId("show-names", HTMLInputElement);
  const show = () => {
    const { state } = session, { view } = state, hasLines = `${view}-contours` in META.types;
    box.checked = state.names;
    box.parentElement?.toggleAttribute("hidden", !levelsOf(view).length && !hasLines);
  };
  box.addEventListener("change", () => session.update({ names: box.checked }));
  session.subscribe((changed) => {
    if (changed.has("names") || changed.has("view")) show();
    if (changed.has("rows")) names.forget();
    if (changed.has("hidden")) names.forgetCounts();
    if (["rows", "hidden", "names", "view"].some((name) => changed.has(/** @type {"rows"} */ (name)))) map.draw();
    if (changed.has("picks") || changed.has("rows")) names.mark();
  });
  map.follow((port) => names.show(port));
  show();
  return names;
}

export class Names {
  /**
   * @param {Session} session
   * @param {MapView} map
   */
  constructor(session, map) {
    this.session = session;
    this.map = map;
    this.list = byId("names", HTMLUListElement);
    this.focus = addRovingFocus(this.list);
    this.pen = /** @type {CanvasRenderingContext2D} */ (document.createElement("canvas").getContext("2d"));
    /** @type {Map<number, Label[]>} by level */
    this.labels = new Map();
    /** @type {Uint32Array | null} rows of shown sources by fine group */
    this.counts = null;
    /** @type {Label[]} those that do not overlap at this zoom */
    this.laidOut = [];
    /** @type {Label[]} those in the window */
    this.shown = [];
    this.layoutKey = "";
    this.anchor = [0, 0];  // pixels from the data's corner that the list's own corner is at
  }

  /** Forget everything about the rows before. */
  forget() {
    this.forgetCounts();
    this.list.replaceChildren();
    this.shown = [];
  }

  forgetCounts() {
    this.counts = null;
    this.labels.clear();
    this.layoutKey = "";
  }

  /** @param {Viewport} port */
  show(port) {
    const { rows, state } = this.session, levels = levelsOf(state.view);
    const isOn = Boolean(rows && levels.length && state.names);
    this.list.hidden = !isOn;
    if (!isOn) { this.shown = []; return; }
    const zooms = zoomsOf(levels.map(({ names }) => names.length));
    const depth = zooms.findLastIndex((zoom) => zoom <= port.zoom);
    const key = [depth, ...port.scale, port.width, port.height].join();
    const [left, bottom] = [port.u * port.scale[0] - port.width / 2, port.v * port.scale[1] - port.height / 2];
    const isNew = key !== this.layoutKey;
    if (isNew) {
      const share = Math.max(port.zoom, 1);
      this.laidOut = layOut(this.labelsOf(depth), port.scale, [port.width * share, port.height * share]);
      [this.layoutKey, this.anchor] = [key, [left, bottom + port.height]];
    }
    const [dx, dy] = [this.anchor[0] - left, bottom + port.height - this.anchor[1]];
    this.list.style.transform = `translate(${dx}px, ${dy}px)`;
    const isInside = (/** @type {Label} */ { x, y }) =>
      x >= left && x <= left + port.width && y >= bottom && y <= bottom + port.height;
    this.put(this.laidOut.filter(isInside).slice(0, MAX_NAMES), isNew);
  }

  /**
   * Put these labels into the page, and take the others out.
   * @param {Label[]} labels
   * @param {boolean} moves whether those that are there have new places
   */
  put(labels, moves) {
    const { shown, anchor } = this;
    if (!moves && labels.length === shown.length && labels.every((label, at) => label === shown[at])) return;
    const kept = new Set(labels), before = new Set(shown);
    for (const label of shown) if (!kept.has(label)) label.button?.parentElement?.remove();
    for (const label of labels) {
      const isThere = before.has(label), button = label.button ??= this.buttonOf(label);
      if (!isThere) this.list.append(button.parentElement ?? html("li", {}, button));
      if (isThere && !moves) continue;
      const [x, y] = [label.x - label.width / 2 - anchor[0], anchor[1] - label.y - label.height / 2];
      button.style.transform = `translate(${x}px, ${y}px)`;
    }
    this.shown = labels;
    this.focus.update();
    this.mark();
  }

  /** @param {Label} label */
  buttonOf(label) {
    const button = html("button", { type: "button", textContent: label.text, dir: "auto" });
    button.style.fontSize = `${label.size}px`;
    button.setAttribute("aria-label", `${label.title}, ${formatCount(label.rows)} rows`);
    if (label.text !== label.title) button.title = label.title;
    button.addEventListener("click", () => toggleGroup(this.session, label.members));
    button.addEventListener("focus", () => {
      if (button.matches(":focus-visible")) this.tip(label);
    });
    button.addEventListener("blur", () => this.map.showTip(null));
    return button;
  }

  /** Mark the selected names. */
  mark() {
    const { state } = this.session;
    for (const { button, members } of this.shown) {
      button?.setAttribute("aria-pressed", String(isSelected(state, members)));
    }
  }

  /**
   * The labels of a level, those of the largest groups first.
   * @param {number} depth
   */
  labelsOf(depth) {
    const found = this.labels.get(depth) ?? this.newLabels(depth);
    this.labels.set(depth, found);
    return found;
  }

  /** @param {number} depth */
  newLabels(depth) {
    const { session: { rows, state }, pen } = this, levels = levelsOf(state.view), level = levels[depth];
    if (!rows) return [];
    const counts = this.counts ??= shownByFine(rows, state.hidden, levels[levels.length - 1]);
    const places = placesOf(rows, level), family = getComputedStyle(this.list).fontFamily;
    const sizes = level.members.map((members) => members.reduce((sum, fine) => sum + counts[fine], 0));
    const most = Math.max(...sizes, 1);
    /** @type {Label[]} */
    const labels = [];
    for (const [group, place] of places.entries()) {
      if (!place || !sizes[group]) continue;
      const text = shortName(level.names[group], MAX_CHARACTERS);
      const size = SIZES[0] + (SIZES[1] - SIZES[0]) * Math.sqrt(sizes[group] / most);
      pen.font = `600 ${size}px ${family}`;
      labels.push({
        at: { depth, group }, members: level.members[group], title: level.names[group], text, rows: sizes[group],
        u: place[0], v: place[1], size, width: Math.ceil(pen.measureText(text).width) + 2 * PADDING + 2,
        height: size * LINE + 2 * PADDING, x: 0, y: 0, button: null,
      });
    }
    return labels.sort((a, b) => b.rows - a.rows || a.at.group - b.at.group);
  }

  /**
   * The label at a pixel of the map, or null.
   * @param {[number, number]} pixel
   */
  at([x, y]) {
    const port = this.map.viewport();
    const [u, v] = [port.u * port.scale[0] - port.width / 2 + x, port.v * port.scale[1] + port.height / 2 - y];
    return this.shown.find((label) =>
      Math.abs(label.x - u) <= label.width / 2 && Math.abs(label.y - v) <= label.height / 2) ?? null;
  }

  /** The names in the window, and the middle of each in pixels from the window's left and top edge. */
  onScreen() {
    const { u, v, scale, width, height } = this.map.viewport();
    return this.shown.map(({ text, size, x, y }) =>
      ({ text, size, x: x - u * scale[0] + width / 2, y: height / 2 - y + v * scale[1] }));
  }

  /**
   * Show what is known of the name at a pixel, if there is one. Returns whether there is.
   * @param {[number, number] | null} pixel
   */
  hoverAt(pixel) {
    const label = pixel && this.at(pixel);
    this.map.canvas.style.cursor = label ? "pointer" : "";
    for (const { button } of this.shown) button?.classList.toggle("hovered", button === label?.button);
    if (label && pixel) this.tip(label, pixel);
    return Boolean(label);
  }

  /**
   * Select the group whose name is at a pixel. Returns whether there is one.
   * @param {[number, number]} pixel
   */
  clickAt(pixel) {
    const label = this.at(pixel);
    if (label) toggleGroup(this.session, label.members);
    return Boolean(label);
  }

  /**
   * @param {Label} label
   * @param {[number, number]} [pixel]
   */
  tip(label, pixel) {
    const { rows, state } = this.session, { depth, group } = label.at, level = levelsOf(state.view)[depth];
    if (!rows) return;
    const id = level.examples[group], i = id === null ? -1 : positionOf(rows.ids, id);
    const example = i >= 0 ? rows.snippets?.at(i, TIP_CHARACTERS) : "";
    const port = this.map.viewport(), [x, y] = this.map.toScreen(label.u, label.v, port);
    this.map.showTip(pixel ?? [x, y + label.height], [
      html("b", { textContent: label.title, dir: "auto" }),
      html("div", { textContent: `${formatCount(label.rows)} rows: ${sourcesText(rows.layer, level, group)}` }),
      html("div", { textContent: example ? `For example: ${example}` : "", dir: "auto" }),
    ]);
  }
}
