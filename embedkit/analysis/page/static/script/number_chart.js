// A histogram of a number: all rows behind, the shown ones in front. A drag over it selects a range.

import { formatNumber } from "./columns.js";
import { html, svg } from "./html.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./state.js").Range} Range
 */

const BARS = 40, WIDTH = 280, HEIGHT = 48;  // units of the picture, which is as wide as its place
const EDGE = 0.01;  // a drag that ends so near to an end has no limit there
const TYPING_PAUSE = 300;  // milliseconds after the last key until the selection follows

/**
 * @param {Session} session
 * @param {import("./columns.js").NumberColumn} column
 * @returns {import("./charts.js").Chart | null} null if all rows have one number
 */
export function addNumberChart(session, column) {
  const { about } = column;
  if (about.low === about.high) return null;
  const bars = about.whole ? Math.min(BARS, about.steps + 1) : BARS;
  const binOf = Uint8Array.from(column.levels, (level) =>
    (level ? Math.min(Math.floor(bars * column.share(about.low + (level - 1) * column.step)), bars - 1) : bars));
  const all = countsOf(bars, (visit) => binOf.forEach((_, i) => visit(i)), binOf), tallest = Math.max(...all, 1);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "bars" });
  const brush = svg("rect", { y: 0, height: HEIGHT, class: "brush" });
  const front = svg("path", { class: "front" });
  picture.append(svg("path", { d: outlineOf(all, tallest), class: "back" }), front, brush);
  const select = (/** @type {Range} */ range) =>
    session.update({ ranges: { ...session.state.ranges, [about.name]: range } });
  const limits = limitFields(about, select);
  addBrush(picture, column, select);
  const title = html("h3", { textContent: about.title });
  const ends = html("div", { className: "ends" }, formatNumber(about.low, about), limits.line,
    formatNumber(about.high, about));
  return {
    element: html("section", { className: "chart" }, title, picture, ends),
    update(shown) {
      front.setAttribute("d", outlineOf(countsOf(bars, shown.each, binOf), tallest));
      const range = session.state.ranges[about.name] ?? [null, null];
      limits.show(range);
      const [from, to] = range.map((limit, at) => WIDTH * clamp(limit === null ? at : column.share(limit)));
      brush.toggleAttribute("hidden", range.every((limit) => limit === null));
      brush.setAttribute("x", String(from));
      brush.setAttribute("width", String(Math.max(to - from, 1)));
    },
  };
}

/** @param {number} share */
const clamp = (share) => Math.min(Math.max(share, 0), 1);

/**
 * How many of the visited rows are in each bin.
 * @param {number} bars
 * @param {(visit: (i: number) => void) => void} each
 * @param {Uint8Array} binOf
 */
function countsOf(bars, each, binOf) {
  const counts = new Uint32Array(bars + 1);  // the last one is of rows without a number
  each((i) => { counts[binOf[i]]++; });
  return counts.subarray(0, bars);
}

/**
 * Bars as one path. Their heights are square roots, so that a few rows beside thousands are seen.
 * @param {Uint32Array} counts
 * @param {number} tallest count of the highest bar
 */
function outlineOf(counts, tallest) {
  const width = WIDTH / counts.length;
  return [...counts].map((count, at) => {
    const height = HEIGHT * Math.sqrt(count / tallest);
    return count ? `M${at * width} ${HEIGHT}v${-height}h${width * 0.9}v${height}z` : "";
  }).join("");
}

/**
 * Select by a drag over the picture; a click selects all numbers again.
 * @param {SVGElement} picture
 * @param {import("./columns.js").NumberColumn} column
 * @param {(range: Range) => void} select
 */
function addBrush(picture, column, select) {
  const { about } = column;
  /** @type {number | null} */
  let start = null;
  const shareAt = (/** @type {PointerEvent} */ event) => {
    const box = picture.getBoundingClientRect();
    const share = clamp((event.clientX - box.left) / box.width);
    return share < EDGE ? 0 : share > 1 - EDGE ? 1 : share;
  };
  const numberAt = (/** @type {number} */ share) => {
    const number = column.numberAt(share);
    return about.whole ? Math.round(number) : +number.toPrecision(3);
  };
  picture.addEventListener("pointerdown", (event) => {
    start = shareAt(event);
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointerup", (event) => {
    if (start === null) return;
    const [from, to] = [start, shareAt(event)].sort((a, b) => a - b), isClick = (to - from) * WIDTH < 3;
    start = null;
    select(isClick ? [null, null] : [from ? numberAt(from) : null, to < 1 ? numberAt(to) : null]);
  });
}

/**
 * The fields for the least and the most.
 * @param {import("./columns.js").NumberDescription} about
 * @param {(range: Range) => void} select
 */
function limitFields(about, select) {
  const fields = ["least", "most"].map((limit) =>
    html("input", { type: "number", step: "any", ariaLabel: `${limit} ${about.name} of selected rows` }));
  /** @type {number | undefined} */
  let typing;
  for (const field of fields) {
    field.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        const limits = fields.map(({ value }) => (value === "" ? null : Number(value)));
        select(/** @type {Range} */ (limits));
      }, TYPING_PAUSE);
    });
  }
  return {
    line: html("span", { className: "range" }, fields[0], " to ", fields[1]),
    /** @param {Range} range */
    show(range) {
      fields.forEach((field, at) => {
        const value = String(range[at] ?? "");
        if (field.value !== value) field.value = value;
      });
    },
  };
}
