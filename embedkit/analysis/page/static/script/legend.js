// The sources, each with a box: by groups of names that share a prefix, the largest first.

import { META } from "./data.js";
import { byId, formatCount, html } from "./html.js";
import { addGroup } from "./legend_group.js";
import { addRovingFocus } from "./roving_focus.js";

const MIN_FOR_FILTER = 12;  // sources
const TAIL_CHARACTERS = 10;

/** @typedef {import("./session.js").Session} Session */

/** @param {Session} session */
export function addLegend(session) {
  const filter = byId("filter", HTMLInputElement), list = byId("sources", HTMLUListElement);
  /** @type {Map<number, ReturnType<typeof lineOf>>} */
  let lines = new Map();
  /** @type {ReturnType<typeof addGroup>[]} */
  let groups = [];
  const layer = () => META.layers[session.state.view];
  const focus = addRovingFocus(list);

  const build = () => {
    const { counts, sources } = layer();
    const bySize = (/** @type {number} */ a, /** @type {number} */ b) => counts[b] - counts[a] || a - b;
    lines = new Map([...sources.keys()].sort(bySize).map((code) => [code, lineOf(session, code)]));
    list.replaceChildren();
    groups = [];
    for (const { prefix, codes } of entriesOf(layer())) {
      const ofGroup = codes.map((code) => lines.get(code)?.line ?? "");
      if (prefix) groups.push(addGroup(session, list, prefix, codes, ofGroup));
      else list.append(...ofGroup);
    }
    filter.hidden = sources.length < MIN_FOR_FILTER;
    applyFilter();
    update();
  };
  const applyFilter = () => {
    const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
    for (const [code, { line }] of lines) line.hidden = !layer().sources[code].toLowerCase().includes(wanted);
    for (const group of groups) group.filter(wanted !== "");
    focus.update();
  };
  const update = () => {
    const { state, selection } = session, { colours, counts } = layer();
    for (const [code, { box, swatch, count }] of lines) {
      box.checked = !state.hidden.has(code);
      swatch.style.background = state.colour === "source" ? `rgb(${colours[code]})` : "";
      const all = formatCount(counts[code]);
      count.textContent = selection.active ? `${formatCount(selection.counts[code])} of ${all}` : all;
    }
    for (const group of groups) group.update();
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
 * Groups, and sources without one, the largest first. The sources of a group are sorted in the same way.
 * @param {import("./data.js").Layer} layer
 */
function entriesOf({ counts, prefixes }) {
  const codes = [...counts.keys()].sort((a, b) => counts[b] - counts[a] || a - b);
  /** @type {Map<string | number, { prefix: string, codes: number[], rows: number }>} */
  const entries = new Map();
  for (const code of codes) {
    const prefix = prefixes[code], key = prefix || code;
    const entry = entries.get(key) ?? { prefix, codes: [], rows: 0 };
    entry.codes.push(code);
    entry.rows += counts[code];
    entries.set(key, entry);
  }
  return [...entries.values()].sort((a, b) => b.rows - a.rows || a.codes[0] - b.codes[0]);
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
  for (const event of ["pointerenter", "focusin"]) line.addEventListener(event, () => session.light([code]));
  for (const event of ["pointerleave", "focusout"]) line.addEventListener(event, () => session.light([]));
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
