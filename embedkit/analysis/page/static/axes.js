"use strict";
// What is drawn over the points: ticks, the outline of a choice, rings around single rows.

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** About `most` round numbers from low to high. Steps are 1, 2 or 5 times a power of ten. */
function ticks(low, high, most) {
  const rough = (high - low) / most;
  if (!(rough > 0)) return [];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= rough);
  const digits = Math.max(-Math.floor(Math.log10(step)), 0);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) found.push([at * step, (at * step).toFixed(digits)]);
  return found;
}

/** Ticks along the bottom and the left edge. window: {left, right, bottom, top} in values of the axes. */
function tickMarks(window, width, height) {
  const marks = [];
  for (const [value, text] of ticks(window.left, window.right, width / 110)) {
    const x = ((value - window.left) / (window.right - window.left)) * width;
    if (x > 40 && x < width - 20) marks.push(drawn("text", { x, y: height - 6, class: "tick x" }, text));
  }
  for (const [value, text] of ticks(window.bottom, window.top, height / 80)) {
    const y = height - ((value - window.bottom) / (window.top - window.bottom)) * height;
    if (y > 20 && y < height - 30) marks.push(drawn("text", { x: 6, y, class: "tick y" }, text));
  }
  return marks;
}
