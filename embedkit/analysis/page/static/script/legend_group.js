// A group of sources in the legend: a header that opens it, with a box for all of them.

import { META } from "./data.js";
import { formatCount, html } from "./html.js";

const MAX_OPEN = 60;  // sources; of more, the groups begin closed

/**
 * Add a group to the list.
 * @param {import("./session.js").Session} session
 * @param {HTMLElement} list
 * @param {string} prefix that its sources share
 * @param {number[]} codes of its sources
 * @param {(Node | string)[]} lines of its sources
 */
export function addGroup(session, list, prefix, codes, lines) {
  const layer = META.layers[session.state.view];
  let isOpen = layer.sources.length <= MAX_OPEN, isFiltered = false;
  const box = html("input", { type: "checkbox" }), swatch = html("span", { className: "swatch" });
  const name = html("span", { className: "name", textContent: prefix });
  const count = html("span", { className: "count" }), members = html("ul", {}, ...lines);
  const toggle = html("button", { type: "button", className: "toggle" });
  const header = html("div", {}, toggle, html("label", {}, box, swatch, name, count));
  const group = html("li", { className: "group" }, header, members);

  const show = () => {
    members.hidden = !isOpen && !isFiltered;
    toggle.setAttribute("aria-expanded", String(!members.hidden));
    toggle.setAttribute("aria-label", `sources of ${prefix}`);
  };
  box.addEventListener("change", () => {
    const hidden = new Set(session.state.hidden);
    for (const code of codes) if (box.checked) hidden.delete(code); else hidden.add(code);
    session.update({ hidden });
  });
  toggle.addEventListener("click", () => {
    isOpen = Boolean(members.hidden);
    isFiltered = false;
    show();
  });
  for (const event of ["pointerenter", "focusin"]) header.addEventListener(event, () => session.light(codes));
  for (const event of ["pointerleave", "focusout"]) header.addEventListener(event, () => session.light([]));
  list.append(group);
  show();
  return {
    /** Follow the state. */
    update() {
      const { state, selection } = session;
      const shown = codes.filter((code) => !state.hidden.has(code)).length;
      box.checked = shown > 0;
      box.indeterminate = shown > 0 && shown < codes.length;
      swatch.style.background = state.colour === "source" ? `rgb(${layer.colours[codes[0]]})` : "";
      const sum = (/** @type {ArrayLike<number>} */ counts) => codes.reduce((rows, code) => rows + counts[code], 0);
      const all = formatCount(sum(layer.counts));
      const rows = selection.active ? `${formatCount(sum(selection.counts))} of ${all}` : all;
      count.textContent = `${formatCount(codes.length)} sources, ${rows}`;
    },
    /**
     * Hide the group if none of its lines is shown, and open it while a filter chooses them.
     * @param {boolean} hasFilter
     */
    filter(hasFilter) {
      isFiltered = hasFilter;
      group.hidden = [...members.children].every((line) => line.hasAttribute("hidden"));
      show();
    },
  };
}
