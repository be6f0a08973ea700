// Ticks of the axes, as SVG.

import { svg } from "./html.js";

/**
 * About `count` round numbers from low to high, each as [value, text]. Steps are 1, 2 or 5 times a power of ten.
 * @param {number} low
 * @param {number} high
 * @param {number} count
 * @returns {[number, string][]}
 */
export function ticks(low, high, count) {
  const smallestStep = (high - low) / count;
  if (!(smallestStep > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(smallestStep));
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= smallestStep) ?? 10 * power;
  const digits = Math.max(-Math.floor(Math.log10(step)), 0);
  /** @type {[number, string][]} */
  const values = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) values.push([at * step, (at * step).toFixed(digits)]);
  return values;
}

/**
 * Ticks along the bottom and the left edge.
 * @param {{ left: number, right: number, bottom: number, top: number }} range in axis values
 * @param {number} width
 * @param {number} height
 */
export function tickMarks(range, width, height) {
  const marks = [];
  for (const [value, text] of ticks(range.left, range.right, width / 110)) {
    const x = ((value - range.left) / (range.right - range.left)) * width;
    if (x > 40 && x < width - 20) marks.push(svg("text", { x, y: height - 6, class: "tick x" }, text));
  }
  for (const [value, text] of ticks(range.bottom, range.top, height / 80)) {
    const y = height - ((value - range.bottom) / (range.top - range.bottom)) * height;
    if (y > 20 && y < height - 30) marks.push(svg("text", { x: 6, y, class: "tick y" }, text));
  }
  return marks;
}
