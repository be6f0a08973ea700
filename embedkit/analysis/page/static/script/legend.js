// The sources, the largest first, each with a box.

import { META } from "./data.js";
import { byId, formatCount, html } from "./html.js";

const MIN_FOR_FILTER = 12;  // sources
const TAIL_CHARACTERS = 10;

/** @typedef {import("./session.js").Session} Session */

/** @param {Session} session */
export function addLegend(session) {
  const filter = byId("filter", HTMLInputElement), list = byId("sources", HTMLUListElement);
  /** @type {Map<number, ReturnType<typeof lineOf>>} */
  let lines = new Map();
  const layer = () => META.layers[session.state.view];

  const build = () => {
    const { counts, sources } = layer();
    const largestFirst = [...sources.keys()].sort((a, b) => counts[b] - counts[a] || a - b);
    lines = new Map(largestFirst.map((code) => [code, lineOf(session, code)]));
    list.replaceChildren(...[...lines.values()].map(({ line }) => line));
    filter.hidden = sources.length < MIN_FOR_FILTER;
    applyFilter();
    update();
  };
  const applyFilter = () => {
    const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
    for (const [code, { line }] of lines) line.hidden = !layer().sources[code].toLowerCase().includes(wanted);
  };
  const update = () => {
    const { state, selection } = session, { colours, counts } = layer();
    for (const [code, { box, swatch, count }] of lines) {
      box.checked = !state.hidden.has(code);
      swatch.style.background = state.colour === "source" ? `rgb(${colours[code]})` : "";
      const all = formatCount(counts[code]);
      count.textContent = selection.active ? `${formatCount(selection.counts[code])} of ${all}` : all;
    }
  };
  /** Show or hide all sources that the filter lists. */
  const setListed = (/** @type {boolean} */ isShown) => {
    const hidden = new Set(session.state.hidden);
    for (const [code, { line }] of lines) {
      if (line.hidden) continue;
      if (isShown) hidden.delete(code); else hidden.add(code);
    }
    session.update({ hidden });
  };

  filter.addEventListener("input", applyFilter);
  byId("all", HTMLButtonElement).addEventListener("click", () => setListed(true));
  byId("none", HTMLButtonElement).addEventListener("click", () => setListed(false));
  session.subscribe((changed) => {
    if (changed.has("view")) build();
    else if (changed.has("hidden") || changed.has("colour") || changed.has("selection")) update();
  });
  build();
}

/**
 * The line of one source.
 * @param {Session} session
 * @param {number} code
 */
function lineOf(session, code) {
  const { sources } = META.layers[session.state.view], source = sources[code];
  const box = html("input", { type: "checkbox" }), swatch = html("span", { className: "swatch" });
  const name = html("span", { className: "name", title: source }, ...headAndTail(source));
  const count = html("span", { className: "count" });
  const only = html("button", { type: "button", className: "only", textContent: "only", title: `only ${source}` });
  const line = html("li", {}, html("label", {}, box, swatch, name, count), only);
  box.addEventListener("change", () => {
    const hidden = new Set(session.state.hidden);
    if (box.checked) hidden.delete(code); else hidden.add(code);
    session.update({ hidden });
  });
  only.addEventListener("click", () => {
    session.update({ hidden: new Set([...sources.keys()].filter((each) => each !== code)) });
  });
  for (const event of ["pointerenter", "focusin"]) line.addEventListener(event, () => session.light(code));
  for (const event of ["pointerleave", "focusout"]) line.addEventListener(event, () => session.light(-1));
  return { line, box, swatch, count };
}

/**
 * A name in two parts. Where it is too long, the first is cut: names often differ at their end.
 * @param {string} name
 */
function headAndTail(name) {
  const characters = [...name], split = Math.max(characters.length - TAIL_CHARACTERS, 0);
  const parts = [characters.slice(0, split), characters.slice(split)].filter((part) => part.length);
  return parts.map((part) => html("span", { textContent: part.join("") }));
}
