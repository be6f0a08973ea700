// The tabs: the map, and the sections of the analysis.

import { drawFigures } from "./figures.js";

/** @param {import("./session.js").Session} session */
export function addTabs(session) {
  /** @type {HTMLElement[]} */
  const tabs = [...document.querySelectorAll("[role=tab]")].filter((each) => each instanceof HTMLElement);
  const panelOf = (/** @type {HTMLElement} */ tab) => document.getElementById(tab.getAttribute("aria-controls") ?? "");
  const go = (/** @type {number} */ at) => { tabs[at].focus(); tabs[at].click(); };
  tabs.forEach((tab, at) => {
    tab.addEventListener("click", () => session.update({ tab: tab.dataset.tab ?? "map" }));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (next === undefined || !tabs[next]) return;
      event.preventDefault();
      go(next);
    });
  });
  const show = () => {
    const shown = tabs.find((tab) => tab.dataset.tab === session.state.tab) ?? tabs[0];
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === shown));
      tab.tabIndex = tab === shown ? 0 : -1;
      panelOf(tab)?.toggleAttribute("hidden", tab !== shown);
    }
    const panel = panelOf(shown);
    if (panel) drawFigures(panel);
  };
  session.subscribe((changed) => { if (changed.has("tab")) show(); });
  show();
}
