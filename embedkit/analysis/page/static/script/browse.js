// What tabs with a list and an open entry have in common: when they are shown, keys for the next entry, the view.

import { META } from "./data.js";
import { html } from "./html.js";
import { defaultsOfView } from "./state.js";

/** @typedef {import("./session.js").Session} Session */

/**
 * The tab that has a place.
 * @param {HTMLElement} place
 */
export function tabOf(place) {
  const panel = place.closest("[role=tabpanel]");
  const tab = document.querySelector(`[role=tab][aria-controls="${panel?.id}"]`);
  return { panel, tab, title: tab?.getAttribute("data-tab") ?? "" };
}

/**
 * Buttons and keys for the entry before and after the open one: the arrows, or p and n, while the focus is in the tab.
 * @param {Session} session
 * @param {HTMLElement} place
 * @param {string} what an entry is called
 * @param {(by: number) => void} step
 */
export function addSteps(session, place, what, step) {
  const { panel, tab, title } = tabOf(place);
  const button = (/** @type {string} */ text, /** @type {string} */ key, /** @type {number} */ by) => {
    const found = html("button", { type: "button", textContent: text, title: `${text} ${what} (${key})` });
    found.addEventListener("click", () => step(by));
    return found;
  };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event, by = { ArrowLeft: -1, ArrowRight: 1, p: -1, n: 1 }[key];
    if (by === undefined || session.state.tab !== title || event.ctrlKey || event.metaKey || event.altKey) return;
    const isInside = panel?.contains(/** @type {Node} */ (target)), isArrow = key.startsWith("Arrow");
    // Arrows move between tabs, and within fields and tables that scroll.
    const isTaken = /** @type {Element} */ (target).closest?.("input, select, .scroll");
    if (isTaken || !(isInside || (isArrow ? target === document.body : target === tab))) return;
    event.preventDefault();
    step(by);
  });
  const keys = html("span", { className: "hint mouse", textContent: "keys: arrows, or p and n" });
  return { previous: button("previous", "left arrow or p", -1), next: button("next", "right arrow or n", 1), keys };
}

/**
 * Mark the entry that is open.
 * @param {HTMLElement} list
 * @param {string} open
 */
export function markCurrent(list, open) {
  for (const button of list.querySelectorAll("[data-entry]")) {
    if (button.getAttribute("data-entry") === open) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
}

/**
 * The choice of a view, in a list of nodes; empty if the page has one view.
 * @param {Session} session
 */
export function viewChoice(session) {
  if (META.layers.length < 2) return [];
  const options = META.layers.map(({ view }, at) => html("option", { value: String(at), textContent: view }));
  const select = html("select", {}, ...options);
  const show = () => { select.value = String(session.state.view); };
  select.addEventListener("change", () => {
    const view = Number(select.value);
    session.update({ ...defaultsOfView(view), view, hidden: new Set() });
  });
  session.subscribe((changed) => { if (changed.has("view")) show(); });
  show();
  return [html("label", {}, "view ", select)];
}

/**
 * A note in place of data that cannot be read.
 * @param {unknown} error
 */
export function dataNote(error) {
  const why = error instanceof Error ? error.message : String(error);
  return html("p", { className: "note", textContent: `The data of this tab cannot be read (${why}).` });
}
