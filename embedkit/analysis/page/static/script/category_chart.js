// The largest categories of a column, each with a box that selects it and a bar of its rows.

import { formatCount, html } from "./html.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./columns.js").CategoryColumn} CategoryColumn
 */

const MAX_LINES = 8;

/**
 * @param {Session} session
 * @param {CategoryColumn} column
 * @returns {import("./charts.js").Chart}
 */
export function addCategoryChart(session, column) {
  const { about, levels } = column, list = html("ul", { className: "categories" });
  const rest = html("p", { className: "hint" });
  const element = html("section", { className: "chart" }, html("h3", { textContent: about.title }), list, rest);
  return {
    element,
    update(shown) {
      const counts = new Uint32Array(about.names.length + 1), picked = session.state.picks[about.name];
      shown.each((i) => { counts[levels[i]]++; });
      const isPicked = (/** @type {number} */ code) => Number(picked?.has(code) ?? false);
      const codes = [...about.names.keys()].sort((a, b) => isPicked(b) - isPicked(a)
        || counts[b + 1] - counts[a + 1] || about.counts[b] - about.counts[a] || a - b);
      const most = Math.max(...counts.subarray(1), 1);
      const focused = list.contains(document.activeElement) ? document.activeElement?.getAttribute("data-code") : null;
      list.replaceChildren(...codes.slice(0, MAX_LINES).map((code) =>
        lineOf(session, column, code, counts[code + 1], most)));
      /** @type {HTMLElement | null} */ (list.querySelector(`input[data-code="${focused}"]`))?.focus();
      rest.textContent = restOf(codes.length, counts[0]);
    },
  };
}

/**
 * @param {Session} session
 * @param {CategoryColumn} column
 * @param {number} code
 * @param {number} count its shown rows
 * @param {number} most shown rows of a category
 */
function lineOf(session, { about }, code, count, most) {
  const picked = session.state.picks[about.name] ?? new Set();
  const box = html("input", { type: "checkbox", checked: picked.has(code) });
  box.dataset.code = String(code);
  const swatch = html("span", { className: "swatch" }), bar = html("i");
  if (session.state.colour === about.name) swatch.style.background = `rgb(${about.colours[code]})`;
  bar.style.width = `${(100 * count) / most}%`;
  const text = count === about.counts[code] ? formatCount(count)
    : `${formatCount(count)} of ${formatCount(about.counts[code])}`;
  const name = html("span", { className: "name", title: about.names[code], textContent: about.names[code] });
  box.addEventListener("change", () => {
    const codes = new Set(picked);
    if (box.checked) codes.add(code); else codes.delete(code);
    session.update({ picks: { ...session.state.picks, [about.name]: codes } });
  });
  const total = html("span", { className: "count", textContent: text });
  return html("li", {}, html("label", {}, box, swatch, name, total), bar);
}

/**
 * @param {number} categories that have shown rows
 * @param {number} without shown rows without a category
 */
function restOf(categories, without) {
  const more = categories - MAX_LINES;
  return [more > 0 ? `${formatCount(more)} smaller ones` : "", without ? `${formatCount(without)} rows have none` : ""]
    .filter(Boolean).join("; ");
}
