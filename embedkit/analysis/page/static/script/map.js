// The map: its window on the data, its points, and what is drawn over them.

import { tickMarks } from "./axes.js";
import { positionOf } from "./data.js";
import { byId, formatCount, html, svg } from "./html.js";
import { rounded } from "./outline.js";
import { sourceOf } from "./rows.js";
import { MAX_SAMPLE, PLACED, SHADE, SOURCE, Scatter, X, Y } from "./scatter.js";

/**
 * @typedef {import("./session.js").Session} Session
 *
 * @typedef {object} Viewport
 * @property {number} width in pixels
 * @property {number} height
 * @property {number} u its centre in data units
 * @property {number} v
 * @property {number} zoom
 * @property {[number, number]} scale pixels per data unit
 */

const FILL = 0.94;  // share of the window that all points fill
const PICK_RADIUS = 14;  // pixels around the pointer in which a point is picked
const STACK_RADIUS = 1.5;  // pixels within which points cannot be seen apart
const FRAME_BUDGET = 25;  // milliseconds for the points of a frame
const FIRST_FRAMES = 8;  // frames' time for the first picture, which is there until the rows are
const MIN_MEASURED = 5000;  // points; fewer take no time that can be measured
const SETTLE_DELAY = 150;  // milliseconds after the last move until all points are drawn
const ZOOMS = [0.3, 20_000];
const BOX_FILL = 0.6;  // share of the window that a box fills
const MAX_BOX_ZOOM = 40;
const FEW = 5000;  // lit points that are drawn large enough to be found
const TIP_CHARACTERS = 160;

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

export class MapView {
  /**
   * Throws if the browser has no WebGL 2.
   * @param {Session} session
   */
  constructor(session) {
    this.session = session;
    this.canvas = byId("points", HTMLCanvasElement);
    this.stage = byId("stage", HTMLElement);
    this.over = byId("over", SVGElement);
    this.tip = byId("tip", HTMLElement);
    this.scatter = new Scatter(this.canvas);
    this.perFrame = MIN_MEASURED;  // points that can be drawn within the budget
    this.hover = -1;
    /** @type {import("./grid.js").Place[] | null} the outline that is being drawn */
    this.outline = null;
    /** @type {number | null} */
    this.frame = null;
    /** @type {number | undefined} */
    this.resting = undefined;
    /** @type {Generator<number, void, number> | null} the steps in which all points are being drawn */
    this.steps = null;
    this.isWhole = false;  // whether all points are drawn
    this.moving = false;  // whether the state changes because the map moves
    this.isMoving = false;  // whether the next frame is one of many
    /** @type {((port: Viewport) => void)[]} */
    this.followers = [];
    session.subscribe((changed) => this.update(changed));
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  /**
   * Call a function whenever the points are drawn, with the window.
   * @param {(port: Viewport) => void} follower
   */
  follow(follower) { this.followers.push(follower); }

  /** @param {import("./session.js").Changed} changed */
  update(changed) {
    const { session, scatter } = this;
    if (changed.has("places")) return this.showPlaces();
    if (changed.has("rows")) this.showRows();
    if (changed.has("colouring")) this.showColouring();
    if (changed.has("hidden")) this.showSources();
    if (changed.has("selection") || changed.has("lit") || changed.has("hidden")) scatter.setLit(this.litPositions());
    this.draw();
    if (changed.has("rows") && session.rows) this.stage.dataset.ready = session.rows.names[0];
  }

  /** Upload the points and draw the first of them at once. */
  showPlaces() {
    const { places } = this.session, { scatter } = this;
    if (!places) return;
    [places.x, places.y, places.source].forEach((array, at) => scatter.upload([X, Y, SOURCE][at], array));
    scatter.upload(PLACED, null);
    scatter.setLit(null);
    this.showSources();
    this.showColouring();
    this.measureFrames();
    this.paint(FIRST_FRAMES);
    this.stage.dataset.points = places.names[0];  // tests and the benchmark wait for this
  }

  /** Upload what was not needed for the first picture. */
  showRows() {
    const { rows } = this.session, { scatter } = this;
    this.hover = -1;
    if (!rows) return;
    [rows.x, rows.y, rows.placed].forEach((array, at) => scatter.upload([X, Y, PLACED][at], array));
  }

  showColouring() {
    const { colouring } = this.session;
    if (!colouring) return;
    this.scatter.setColours(colouring.colours);
    this.scatter.upload(SHADE, colouring.shades);
  }

  showSources() {
    const { places, state } = this.session;
    if (places) this.scatter.setShown(places.layer.sources.map((_, code) => !state.hidden.has(code)));
  }

  /** The sources under the pointer in the legend if they are shown, else the selection, else null for all. */
  litPositions() {
    const { selection, litSources, places, state } = this.session;
    const lit = new Set([...litSources].filter((code) => !state.hidden.has(code)));
    if (!places || !lit.size) return selection.active ? selection.positions : null;
    if (selection.active) return selection.positions.filter((i) => lit.has(places.source[i]));
    const found = new Uint32Array([...lit].reduce((sum, code) => sum + places.layer.counts[code], 0));
    let count = 0;
    for (let i = 0; i < places.source.length; i++) if (lit.has(places.source[i])) found[count++] = i;
    return found;
  }

  /** Find how many points a frame can have. The first frame compiles shaders and is not measured. */
  measureFrames() {
    this.paint();
    for (let before = 0; this.perFrame > 1.5 * before && before < this.scatter.count;) {
      before = this.perFrame;
      this.paint();
    }
  }

  /** @returns {Viewport} */
  viewport() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const [u, v, zoom] = this.session.state.at ?? [0.5, 0.5, 1];
    const side = Math.min(width, height);
    const [across, up] = this.session.state.map === "umap" ? [side, side] : [width, height];
    return { width, height, u, v, zoom, scale: [across * FILL * zoom, up * FILL * zoom] };
  }

  /**
   * Convert data units to pixels from the left and top edge of the canvas. `toData` converts back.
   * @param {number} u
   * @param {number} v
   * @returns {[number, number]}
   */
  toScreen(u, v, port = this.viewport()) {
    return [port.width / 2 + (u - port.u) * port.scale[0], port.height / 2 - (v - port.v) * port.scale[1]];
  }

  /**
   * @param {number} x
   * @param {number} y
   * @returns {[number, number]}
   */
  toData(x, y, port = this.viewport()) {
    return [port.u + (x - port.width / 2) / port.scale[0], port.v - (y - port.height / 2) / port.scale[1]];
  }

  /**
   * @param {number} u
   * @param {number} v
   * @param {number} zoom
   */
  move(u, v, zoom) {
    this.moving = true;
    this.session.update({ at: [clamp(u, -0.5, 1.5), clamp(v, -0.5, 1.5), clamp(zoom, ZOOMS[0], ZOOMS[1])] });
    this.moving = false;
  }

  /**
   * Zoom and keep the point under the pixel in place.
   * @param {number} x
   * @param {number} y
   * @param {number} factor
   */
  zoomAt(x, y, factor) {
    const port = this.viewport(), [u, v] = this.toData(x, y, port);
    const zoom = clamp(port.zoom * factor, ZOOMS[0], ZOOMS[1]), kept = port.zoom / zoom;
    this.move(u + (port.u - u) * kept, v + (port.v - v) * kept, zoom);
  }

  /**
   * Draw in the next frame: as many points as there is time for, and all of them once the map rests.
   * @param {boolean} moving
   */
  draw(moving = this.moving) {
    this.isMoving = moving;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.paint();
      clearTimeout(this.resting);
      this.resting = setTimeout(() => this.paintRest(), this.isMoving ? SETTLE_DELAY : 0);
    });
  }

  /**
   * How many points can be drawn in a number of frames. Lit points are drawn twice.
   * @param {number} frames
   */
  countFor(frames) {
    const { count, lit } = this.scatter;
    const found = Math.ceil((frames * this.perFrame * count) / (count + (lit ?? 0)));
    return found < count ? Math.min(found, MAX_SAMPLE) : count;
  }

  /**
   * Draw as many points as there is time for in a number of frames.
   * @param {number} frames
   */
  paint(frames = 1) {
    const { canvas, scatter } = this, { places } = this.session, ratio = devicePixelRatio;
    this.steps = null;
    if (!canvas.clientWidth || !places) return;
    const port = this.viewport(), [width, height] = [Math.round(port.width * ratio), Math.round(port.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const began = performance.now(), count = this.countFor(frames);
    scatter.draw(this.frameOf(port), count);
    scatter.finish();
    this.measure(count + Math.min(count, scatter.lit ?? 0), began);
    this.isWhole = count === scatter.count;
    this.overlay(port);
    for (const follower of this.followers) follower(port);
  }

  /**
   * Learn how many points a frame can have from a number of points that were drawn since a time.
   * @param {number} drawn
   * @param {number} began
   */
  measure(drawn, began) {
    if (drawn < MIN_MEASURED) return;
    this.perFrame = Math.max((drawn * FRAME_BUDGET) / Math.max(performance.now() - began, 1), MIN_MEASURED);
  }

  /** Draw all points if some were skipped, in steps that leave time for everything else. */
  paintRest() {
    if (!this.session.rows) return;  // reading them comes first
    if (this.isWhole) return this.showWhole();
    const steps = this.scatter.drawInSteps(this.frameOf(this.viewport()));
    steps.next();
    this.steps = steps;
    const step = () => {
      if (this.steps !== steps) return;
      const began = performance.now(), { value: drawn, done } = steps.next(Math.round(this.perFrame));
      if (done) return this.showWhole();
      this.measure(drawn, began);
      requestAnimationFrame(step);
    };
    step();
  }

  showWhole() {
    this.isWhole = true;
    this.steps = null;
    if (this.session.rows) this.stage.dataset.all = this.session.rows.names[0];
  }

  /**
   * How the points look in a window.
   * @param {Viewport} port
   * @param {number} [ratio] pixels of the picture for each of the page's
   * @returns {import("./scatter.js").Frame}
   */
  frameOf({ u, v, zoom, scale, width, height }, ratio = devicePixelRatio) {
    const { scatter } = this, { count } = scatter;
    const size = Math.min(Math.max(7 - 1.25 * Math.log10(count / 100), 1.4) * zoom ** 0.3, 11) * ratio;
    const isFew = scatter.lit !== null && scatter.lit <= FEW && !this.session.litSources.size;
    return {
      centre: [u, v], scale: [(2 * scale[0]) / width, (2 * scale[1]) / height],
      size, litSize: isFew ? Math.max(size, 5 * ratio) : size, alpha: count > 100_000 ? 0.55 : 0.8,
      grey: isDark() ? [58, 64, 70] : [214, 217, 221],
    };
  }

  /**
   * All points of the window as a PNG in a data URL.
   * @param {number} ratio pixels of the picture for each of the page's
   */
  pointsAsPng(ratio) {
    const { canvas, scatter } = this, port = this.viewport();
    Object.assign(canvas, { width: Math.round(port.width * ratio), height: Math.round(port.height * ratio) });
    scatter.draw(this.frameOf(port, ratio), scatter.count);
    const url = canvas.toDataURL();
    this.draw();  // as large as the window again
    return url;
  }

  overlay(port = this.viewport()) {
    const { state, places, rows } = this.session;
    if (!places) return;
    const parts = places.axes.length ? this.axes(port, places.axes) : [];
    const outline = this.outline ?? state.area?.polygon;
    if (outline) {
      const points = outline.map(([u, v]) => this.toScreen(u, v, port)).join(" ");
      parts.push(svg("polygon", { points, class: "outline" }));
    }
    const ring = (/** @type {number} */ i, /** @type {string} */ kind) => {
      const [cx, cy] = this.toScreen((rows ?? places).x[i], (rows ?? places).y[i], port);
      parts.push(svg("circle", { cx, cy, r: 9, class: kind }));
    };
    if (this.hover >= 0) ring(this.hover, "hover");
    const open = rows && state.row !== null ? positionOf(rows.ids, state.row) : -1;
    if (open >= 0) ring(open, "open");
    if (document.activeElement === this.canvas) {
      parts.push(svg("path", { d: `M${port.width / 2 - 8} ${port.height / 2}h16m-8-8v16`, class: "cross" }));
    }
    this.over.replaceChildren(...parts);
  }

  /**
   * @param {Viewport} port
   * @param {import("./data.js").Axis[]} axes of x and y
   */
  axes(port, [x, y]) {
    const [[left, top], [right, bottom]] = [this.toData(0, 0, port), this.toData(port.width, port.height, port)];
    const value = (/** @type {import("./data.js").Axis} */ axis, /** @type {number} */ unit) =>
      axis.low + unit * (axis.high - axis.low);
    const range = { left: value(x, left), right: value(x, right), bottom: value(y, bottom), top: value(y, top) };
    return [
      ...tickMarks(range, port.width, port.height),
      svg("text", { x: port.width - 8, y: port.height - 22, class: "axis x" }, x.label),
      svg("text", { x: 8, y: 16, class: "axis y" }, y.label),
    ];
  }

  /** @param {number} i */
  isShown(i) {
    const { rows, state } = this.session;
    return rows !== null && !state.hidden.has(rows.source[i]);
  }

  /**
   * The point within reach of a pixel of the canvas, or -1.
   * @param {number} x
   * @param {number} y
   */
  pick(x, y, reach = PICK_RADIUS) {
    const port = this.viewport(), [u, v] = this.toData(x, y, port);
    return this.session.rows?.grid.nearest(u, v, port.scale, reach, (i) => this.isShown(i)) ?? -1;
  }

  /**
   * Ids of the shown rows whose points cannot be seen apart from one point, that one included.
   * @param {number} i
   */
  stackOf(i) {
    const { rows } = this.session;
    if (!rows) return [];
    const stack = rows.grid.around(rows.x[i], rows.y[i], this.viewport().scale, STACK_RADIUS, (j) => this.isShown(j));
    return stack.map((j) => rows.ids[j]);
  }

  /**
   * Show what is at a pixel of the canvas, or nothing.
   * @param {[number, number] | null} pixel
   */
  hoverAt(pixel) {
    const { rows } = this.session, at = pixel && rows ? this.pick(...pixel) : -1;
    if (at >= 0 && rows && pixel) this.showTip(pixel, tipOf(rows, at, this.stackOf(at).length - 1));
    else this.showTip(null);
    if (at === this.hover) return;
    this.hover = at;
    this.overlay();
  }

  /**
   * Show some words beside a pixel of the canvas, or none.
   * @param {[number, number] | null} pixel
   * @param {Node[]} words
   */
  showTip(pixel, words = []) {
    const { tip, canvas } = this;
    tip.hidden = !pixel;
    if (!pixel) return;
    tip.replaceChildren(...words);
    const [x, y] = pixel, left = x > canvas.clientWidth / 2 ? x - tip.offsetWidth - 14 : x + 14;
    const top = clamp(y + 12, 0, Math.max(canvas.clientHeight - tip.offsetHeight, 0));
    tip.style.transform = `translate(${Math.max(left, 0)}px, ${top}px)`;
  }

  /**
   * Open the row with an id, and move the map to it if it is outside the window.
   * @param {number} id
   */
  open(id) {
    const { rows } = this.session, i = rows ? positionOf(rows.ids, id) : -1;
    this.session.update({ row: id });
    if (i < 0 || !rows) return;
    const port = this.viewport(), [u, v] = [rows.x[i], rows.y[i]];
    const [x, y] = this.toScreen(u, v, port);
    if (x < 0 || y < 0 || x > port.width || y > port.height) this.move(u, v, port.zoom);
  }

  /**
   * Move the map so that a box, [left, bottom, right, top] in data units, fills most of the window.
   * @param {[number, number, number, number]} box
   */
  showBox([left, bottom, right, top]) {
    const { width, height, zoom, scale } = this.viewport();
    const factor = Math.min(width / ((right - left) * scale[0]), height / ((top - bottom) * scale[1]));
    this.move((left + right) / 2, (bottom + top) / 2, clamp(BOX_FILL * zoom * factor, 1, MAX_BOX_ZOOM));
  }

  /** Select the rows in the window. */
  selectInView() {
    const port = this.viewport();
    const [[left, top], [right, bottom]] = [this.toData(0, 0, port), this.toData(port.width, port.height, port)];
    const polygon = rounded([[left, top], [right, top], [right, bottom], [left, bottom]]);
    this.session.update({ area: { polygon, kind: "view" } });
  }
}

const isDark = () => document.documentElement.dataset.theme === "dark";

/**
 * @param {import("./rows.js").Rows} rows
 * @param {number} i
 * @param {number} others rows at the same place
 */
function tipOf(rows, i, others) {
  const placed = rows.placed?.[i] ? ", placed among its nearest" : "";
  return [
    html("b", { textContent: sourceOf(rows, i) }),
    html("div", { textContent: `id ${rows.ids[i]}, ${rows.columns.get("tokens")?.text(i)} tokens${placed}` }),
    html("div", { textContent: rows.snippets?.at(i, TIP_CHARACTERS) ?? "" }),
    html("div", { textContent: others ? `and ${formatCount(others)} more at this place: click to list them` : "" }),
  ];
}
