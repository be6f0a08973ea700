// The groups as a table of contents beside the map: coarse ones, and in them the finer ones.

import { META } from "./data.js";
import { COLUMN, childrenOf, extentOf, isSelected, levelsOf, sourcesText, toggleGroup } from "./groups.js";
import { byId, formatCount, html } from "./html.js";
import { addRovingFocus } from "./roving_focus.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./groups.js").Group} Group
 *
 * @typedef {object} Entry
 * @property {Group} at
 * @property {number[]} members its fine groups
 * @property {string} name in lower case
 * @property {HTMLElement} element
 * @property {HTMLButtonElement} button
 * @property {HTMLElement} swatch
 * @property {Entry[]} children
 * @property {(isOpen: boolean) => void} open
 */

const MIN_FOR_FILTER = 12;  // groups
const STRIPES = 3;  // colours of a swatch
const WIDE = 760;  // pixels from which on the list is open at first

/**
 * @param {Session} session
 * @param {import("./map.js").MapView | null} map
 */
export function addGroupList(session, map) {
  const panel = byId("groups", HTMLDetailsElement), list = byId("group-tree", HTMLUListElement);
  const filter = byId("group-filter", HTMLInputElement), focus = addRovingFocus(list);
  /** @type {Entry[]} */
  let entries = [];
  let builtFor = -1;
  const build = () => {
    const { view } = session.state, levels = levelsOf(view);
    panel.hidden = !levels.length;
    if (panel.hidden || !panel.open || builtFor === view) return;
    builtFor = view;
    entries = childrenOf(levels, null).map((root) => entryOf(session, map, root));
    list.replaceChildren(...entries.map(({ element }) => element));
    filter.hidden = levels[levels.length - 1].names.length < MIN_FOR_FILTER;
    applyFilter();
    mark();
    paint();
  };
  const applyFilter = () => {
    const wanted = filter.hidden ? "" : filter.value.trim().toLowerCase();
    for (const entry of entries) filterEntry(entry, wanted, false);
    focus.update();
  };
  const mark = () => {
    for (const { button, members } of flat(entries)) {
      button.setAttribute("aria-pressed", String(isSelected(session.state, members)));
    }
  };
  const paint = () => {
    const column = META.layers[session.state.view].columns.find(({ name }) => name === COLUMN);
    const colours = column?.kind === "category" && session.state.colour === COLUMN ? column.colours : null;
    for (const { swatch, members } of flat(entries)) {
      swatch.style.background = colours ? stripes(members.slice(0, STRIPES).map((fine) => colours[fine])) : "";
    }
  };
  panel.open = innerWidth > WIDE;
  panel.addEventListener("toggle", build);
  filter.addEventListener("input", applyFilter);
  session.subscribe((changed) => {
    if (changed.has("view") || changed.has("rows")) build();
    if (changed.has("picks")) mark();
    if (changed.has("colour")) paint();
  });
  panel.hidden = !levelsOf(session.state.view).length;
}

/**
 * @param {Entry[]} entries
 * @returns {Entry[]}
 */
const flat = (entries) => entries.flatMap((entry) => [entry, ...flat(entry.children)]);

/**
 * Show an entry if its name, or that of an entry in it or around it, has the words.
 * @param {Entry} entry
 * @param {string} wanted
 * @param {boolean} isWithin whether an entry around it has them
 * @returns {boolean}
 */
function filterEntry(entry, wanted, isWithin) {
  const has = isWithin || entry.name.includes(wanted);
  const inside = entry.children.map((child) => filterEntry(child, wanted, has)).some(Boolean);
  entry.element.hidden = !has && !inside;
  entry.open(wanted !== "" && inside && !has);
  return has || inside;
}

/**
 * @param {Session} session
 * @param {import("./map.js").MapView | null} map
 * @param {Group} at
 * @returns {Entry}
 */
function entryOf(session, map, at) {
  const { view } = session.state, levels = levelsOf(view), level = levels[at.depth], { group } = at;
  const members = level.members[group], title = level.names[group];
  const swatch = html("span", { className: "swatch" }), name = html("span", { className: "name", dir: "auto" }, title);
  const count = html("span", { className: "count", textContent: formatCount(level.rows[group]) });
  const button = html("button", { type: "button", className: "pick" }, swatch, name, count);
  button.title = `${title}\n${sourcesText(META.layers[view], level, group)}`;
  button.addEventListener("click", () => goToGroup(session, map, members));
  const children = childrenOf(levels, at), inner = children.length > 1 ? children : [];
  const entry = { at, members, name: title.toLowerCase(), button, swatch };
  if (!inner.length) return { ...entry, element: html("li", {}, button), children: [], open: () => {} };
  const entries = inner.map((child) => entryOf(session, map, child));
  const toggle = html("button", { type: "button", className: "toggle" });
  toggle.setAttribute("aria-label", `groups in ${title}`);
  const list = html("ul", {}, ...entries.map(({ element }) => element));
  const open = (/** @type {boolean} */ isOpen) => {
    list.hidden = !isOpen;
    toggle.setAttribute("aria-expanded", String(isOpen));
  };
  toggle.addEventListener("click", () => open(Boolean(list.hidden)));
  open(false);
  const element = html("li", { className: "group" }, html("div", {}, toggle, button), list);
  return { ...entry, element, children: entries, open };
}

/**
 * Select a group and move the map to it, or end its selection.
 * @param {Session} session
 * @param {import("./map.js").MapView | null} map
 * @param {number[]} members
 */
export function goToGroup(session, map, members) {
  toggleGroup(session, members);
  const { rows, state } = session, box = rows && isSelected(state, members) ? extentOf(rows, members) : null;
  if (box) map?.showBox(box);
}

/**
 * A background of equal stripes.
 * @param {import("./data.js").Colour[]} colours
 */
function stripes(colours) {
  const stops = colours.map((colour, at) =>
    `rgb(${colour}) ${(100 * at) / colours.length}% ${(100 * (at + 1)) / colours.length}%`);
  return colours.length ? `linear-gradient(90deg, ${stops})` : "";
}
