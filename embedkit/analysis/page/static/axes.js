"use strict";
// The SVG overlay: ticks, the outline of a selection, rings around single rows.

const SVG = "http://www.w3.org/2000/svg";

function svgElement(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** About `count` round numbers from low to high, each as [value, text]. Steps are 1, 2 or 5 times a power of ten. */
function ticks(low, high, count) {
  const smallestStep = (high - low) / count;
  if (!(smallestStep > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(smallestStep));
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= smallestStep);
  const digits = Math.max(-Math.floor(Math.log10(step)), 0);
  const values = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) values.push([at * step, (at * step).toFixed(digits)]);
  return values;
}

/** Ticks along the bottom and the left edge. window: {left, right, bottom, top} in axis values. */
function tickMarks(window, width, height) {
  const marks = [];
  for (const [value, text] of ticks(window.left, window.right, width / 110)) {
    const x = ((value - window.left) / (window.right - window.left)) * width;
    if (x > 40 && x < width - 20) marks.push(svgElement("text", { x, y: height - 6, class: "tick x" }, text));
  }
  for (const [value, text] of ticks(window.bottom, window.top, height / 80)) {
    const y = height - ((value - window.bottom) / (window.top - window.bottom)) * height;
    if (y > 20 && y < height - 30) marks.push(svgElement("text", { x: 6, y, class: "tick y" }, text));
  }
  return marks;
}
