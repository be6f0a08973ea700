// Pointer, wheel and touch on the map.

import { byId } from "./html.js";
import { simplified } from "./outline.js";

/**
 * @typedef {import("./map.js").MapView} MapView
 * @typedef {[number, number]} Pixel
 */

const CLICK_PIXELS = 4;  // pixels that the pointer may move during a click

/** What a drag does: "pan", "lasso" or "box". */
export class Mode {
  constructor() {
    this.name = "pan";
    for (const name of ["lasso", "box"]) {
      byId(name, HTMLButtonElement).addEventListener("click", () => this.set(this.name === name ? "pan" : name));
    }
  }

  /** @param {string} name */
  set(name) {
    this.name = name;
    for (const each of ["lasso", "box"]) {
      byId(each, HTMLButtonElement).setAttribute("aria-pressed", String(each === name));
    }
    byId("stage", HTMLElement).dataset.mode = name;
  }
}

/**
 * @param {import("./session.js").Session} session
 * @param {MapView} map
 * @param {Mode} mode
 * @param {import("./names.js").Names} names
 */
export function addPointer(session, map, mode, names) {
  const { canvas } = map;
  const pixelOf = (/** @type {MouseEvent} */ event) => {
    const box = canvas.getBoundingClientRect();
    return /** @type {Pixel} */ ([event.clientX - box.left, event.clientY - box.top]);
  };
  addDrag(session, map, mode, names, pixelOf);
  canvas.addEventListener("pointerleave", () => {
    names.hoverAt(null);
    map.hoverAt(null);
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    map.zoomAt(...pixelOf(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
  }, { passive: false });
  // The address keeps the view.
  canvas.addEventListener("webglcontextlost", () => setTimeout(() => location.reload(), 1000));
}

/**
 * @param {import("./session.js").Session} session
 * @param {MapView} map
 * @param {Mode} mode
 * @param {import("./names.js").Names} names
 * @param {(event: MouseEvent) => Pixel} pixelOf
 */
function addDrag(session, map, mode, names, pixelOf) {
  const { canvas } = map;
  /** @type {Map<number, Pixel>} last position of each pointer */
  const down = new Map();
  /** @type {import("./grid.js").Place[] | null} */
  let path = null;
  let moved = 0, fingerDistance = 0;
  /** @type {(number | null)[]} the open row before each of the last two clicks */
  let before = [null, null];
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, pixelOf(event));
    [moved, fingerDistance] = [0, distance(down)];
    const draws = down.size === 1 && (mode.name !== "pan" || event.shiftKey);
    path = draws ? [map.toData(...pixelOf(event))] : null;
    map.hoverAt(null);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = pixelOf(event), last = down.get(event.pointerId);
    if (!last) {
      if (event.pointerType === "mouse" && !names.hoverAt(at)) map.hoverAt(at);
      return;
    }
    moved += Math.hypot(at[0] - last[0], at[1] - last[1]);
    down.set(event.pointerId, at);
    if (path) {
      path = extended(path, map.toData(...at), mode.name);
      map.outline = path;
      map.draw(true);
      return;
    }
    pan(map, at, last, 1 / down.size);  // each of two fingers moves the map by half
    if (down.size !== 2) return;
    const now = distance(down);
    if (fingerDistance && now) map.zoomAt(...middle(down), now / fingerDistance);
    fingerDistance = now;
  });
  const up = (/** @type {PointerEvent} */ event) => {
    const drawn = path;
    if (!down.delete(event.pointerId)) return;
    [path, map.outline] = [null, null];
    if (event.type === "pointercancel") return map.draw();
    if (moved <= CLICK_PIXELS && names.clickAt(pixelOf(event))) return;
    if (moved <= CLICK_PIXELS) {
      const { rows, state } = session, i = map.pick(...pixelOf(event));
      before = [before[1], state.row];
      session.update(rows && i >= 0 ? { row: rows.ids[i], stack: map.stackOf(i) } : { row: null });
    } else if (drawn && drawn.length > 2) {
      mode.set("pan");
      const { scale } = map.viewport(), polygon = simplified(drawn, [1 / scale[0], 1 / scale[1]]);
      session.update({ area: { polygon, kind: "drawn" } });
    }
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("dblclick", (event) => {
    session.update({ row: before[0] });  // a double click zooms, and opens no row
    map.zoomAt(...pixelOf(event), 2);
  });
}

/**
 * @param {MapView} map
 * @param {Pixel} at
 * @param {Pixel} last
 * @param {number} share
 */
function pan(map, at, last, share) {
  const { u, v, zoom, scale } = map.viewport();
  map.move(u - ((at[0] - last[0]) * share) / scale[0], v + ((at[1] - last[1]) * share) / scale[1], zoom);
}

/**
 * @param {import("./grid.js").Place[]} path
 * @param {import("./grid.js").Place} to
 * @param {string} mode
 * @returns {import("./grid.js").Place[]}
 */
function extended(path, to, mode) {
  if (mode !== "box") return [...path, to];
  const [from] = path;
  return [from, [to[0], from[1]], to, [from[0], to[1]]];
}

/** @param {Map<number, Pixel>} down */
function distance(down) {
  const [a, b] = [...down.values()];
  return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
}

/**
 * @param {Map<number, Pixel>} down
 * @returns {Pixel}
 */
function middle(down) {
  const [a, b] = [...down.values()];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}
