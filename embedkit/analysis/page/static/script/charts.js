// A small chart for each column: how many rows have which numbers or categories, and how many of the selected ones.
// Numbers are chosen by a drag or in two fields, categories by their boxes.

import { CategoryColumn } from "./columns.js";
import { addCategoryChart } from "./category_chart.js";
import { byId } from "./html.js";
import { addNumberChart } from "./number_chart.js";

/**
 * @typedef {import("./session.js").Session} Session
 *
 * @typedef {object} Shown the rows that a chart counts
 * @property {number} count
 * @property {(visit: (i: number) => void) => void} each
 *
 * @typedef {object} Chart
 * @property {HTMLElement} element
 * @property {(shown: Shown) => void} update
 */

/** @param {Session} session */
export function addCharts(session) {
  const panel = byId("charts", HTMLDetailsElement), place = byId("chart-list", HTMLElement);
  /** @type {Chart[]} */
  let charts = [];
  const build = () => {
    const { rows } = session;
    charts = !rows || !panel.open ? [] : [...rows.columns.values()].flatMap((column) =>
      (column instanceof CategoryColumn ? addCategoryChart(session, column) : addNumberChart(session, column) ?? []));
    place.replaceChildren(...charts.map(({ element }) => element));
    update();
  };
  const update = () => {
    const { rows, selection, state } = session;
    if (!rows || !charts.length) return;
    const shown = shownRows(rows, selection, state.hidden);
    for (const chart of charts) chart.update(shown);
  };
  const { ranges, picks } = session.state;
  panel.open = Object.keys(ranges).length + Object.keys(picks).length > 0;  // a link may have some
  panel.addEventListener("toggle", build);
  session.subscribe((changed) => {
    if (changed.has("rows")) build();
    else if (changed.has("selection") || changed.has("hidden") || changed.has("colour")) update();
  });
}

/**
 * The selected rows; without a selection, the rows of shown sources.
 * @param {import("./rows.js").Rows} rows
 * @param {import("./selection.js").Selection} selection
 * @param {Set<number>} hidden
 * @returns {Shown}
 */
function shownRows(rows, { active, positions }, hidden) {
  if (active) return { count: positions.length, each: (visit) => positions.forEach(visit) };
  let count = 0;
  for (const [code, ofSource] of rows.layer.counts.entries()) if (!hidden.has(code)) count += ofSource;
  const each = (/** @type {(i: number) => void} */ visit) => {
    for (let i = 0; i < rows.source.length; i++) if (!hidden.has(rows.source[i])) visit(i);
  };
  return { count, each };
}
