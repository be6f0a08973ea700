// The tab of near-duplicates: counts at a threshold, the pairs that reach it, and the open pair side by side.

import { addSteps, dataNote, markCurrent, tabOf, viewChoice } from "./browse.js";
import { META, carriedTexts, jsonOf } from "./data.js";
import { formatCount, html } from "./html.js";
import { sideBySide } from "./side_by_side.js";
import { shellWord } from "./shell.js";

/**
 * @typedef {import("./session.js").Session} Session
 *
 * @typedef {object} Counts at a threshold
 * @property {number} threshold
 * @property {number | null} pairs null if the file does not list all of them
 * @property {number | null} across pairs across sources
 * @property {number} groups
 * @property {number} removed rows, if one of each group stays
 * @property {number} largest rows of the largest group
 *
 * @typedef {object} Near the near-duplicates of a view
 * @property {string[]} names of the texts
 * @property {import("./side_by_side.js").RowTable} rows
 * @property {number} all_rows
 * @property {string[]} notes
 * @property {number} total
 * @property {number} across
 * @property {Counts[]} counts by rising threshold
 * @property {number[]} a positions in `rows`: pairs across sources first, then by falling cosine
 * @property {number[]} b
 * @property {number[]} cosine
 * @property {Record<string, Record<string, import("./side_by_side.js").Start[]>>} starts by position of a pair
 */

const LISTED = 100;  // pairs that are listed at first, and with each click on `more`
const TYPING_PAUSE = 200;  // milliseconds

/** @param {Session} session */
export function addPairs(session) {
  const place = document.getElementById("pairs");
  if (!place) return;
  const { title } = tabOf(place), controls = controlsOf(session);
  /** @type {Near | null} */
  let near = null;
  /** @type {number[]} */
  let listed = [];
  let most = LISTED;
  let listedFor = "";  // the view, threshold, filter and order of the list
  const step = (/** @type {number} */ by) => {
    if (!near) return;
    const next = listed[listed.indexOf(openOf(near, listed, session)) + by];
    if (next !== undefined) session.update({ pair: nameOf(near, next) });
  };
  const { frame, heading, lines, more, previous, next, position, opened } = frameOf(session, place, step);
  const list = () => {
    if (!near) return;
    const one = near;
    lines.replaceChildren(...listed.slice(0, most).map((at) => lineOf(session, one, at)));
    more.hidden = listed.length <= most;
    more.textContent = `list ${Math.min(LISTED, listed.length - most)} more`;
  };
  more.addEventListener("click", () => { most += LISTED; list(); });
  place.append(...viewChoice(session), controls.element, frame);

  const show = async () => {
    if (session.state.tab !== title) return;
    try {
      const [views, texts] = await Promise.all([jsonOf("pairs"), carriedTexts()]);
      near = /** @type {Near | null} */ (views[session.state.view]);
      frame.hidden = !near?.total;
      controls.update(near);
      if (!near) return;
      const { view, near: least, of, order } = session.state, wanted = JSON.stringify([view, least, of, order]);
      if (listedFor !== wanted) {
        listedFor = wanted;
        listed = matching(near, session);
        most = LISTED;
        list();
        heading.textContent = headingOf(near, listed, session);
      }
      const open = openOf(near, listed, session), at = listed.indexOf(open);
      markCurrent(lines, String(open));
      [previous.disabled, next.disabled] = [at <= 0, at >= listed.length - 1];
      position.textContent = at < 0 ? "" : `${formatCount(at + 1)} of ${formatCount(listed.length)}`;
      opened.replaceChildren(...(at < 0 ? [] : contentOf(session, near, open, texts)));
    } catch (error) {
      opened.replaceChildren(dataNote(error));
    }
  };
  session.subscribe((changed) => {
    const names = ["tab", "view", "near", "of", "order", "pair"];
    if (names.some((name) => changed.has(/** @type {"tab"} */ (name)))) show();
  });
  show();
}

/**
 * The list of pairs, and beside it the open one.
 * @param {Session} session
 * @param {HTMLElement} place
 * @param {(by: number) => void} step
 */
function frameOf(session, place, step) {
  const { previous, next, keys } = addSteps(session, place, "pair", step);
  const lines = html("ul", { className: "lines" }), more = html("button", { type: "button", className: "more" });
  const opened = html("div", { className: "opened" }), position = html("span", { ariaLive: "polite" });
  const heading = html("p", { className: "hint", ariaLive: "polite" });
  const frame = html("div", { className: "browse" }, html("nav", { ariaLabel: "pairs" }, heading, lines, more),
    html("div", { className: "entry" }, html("div", { className: "steps" }, previous, next, position, keys), opened));
  return { frame, heading, lines, more, previous, next, position, opened };
}

/**
 * The slider of the threshold with what it counts, and the filter by source.
 * @param {Session} session
 */
function controlsOf(session) {
  const slider = html("input", { type: "range", min: "0", step: "1", id: "near" });
  const value = html("output"), counts = html("div", { ariaLive: "polite" });
  const filter = html("input", { type: "search", placeholder: "sources", ariaLabel: "filter the pairs by source" });
  /** @type {Counts[]} */
  let steps = [];
  /** @type {number | undefined} */
  let typing;
  slider.addEventListener("input", () => {
    const at = Number(slider.value);
    session.update({ near: at ? steps[at].threshold : null, pair: "" });
  });
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => session.update({ of: filter.value, pair: "" }), TYPING_PAUSE);
  });
  const update = (/** @type {Near | null} */ near) => {
    bar.hidden = !near?.total;
    if (!near) return counts.replaceChildren("This view was not searched for near-duplicates.");
    counts.replaceChildren(...countsOf(near, session));
    steps = near.counts;
    const at = stepAt(near, session);
    slider.max = String(steps.length - 1);
    slider.value = String(at);
    value.textContent = shown(steps[at].threshold);
    slider.setAttribute("aria-valuetext", `cosine ${shown(steps[at].threshold)}`);
    if (filter.value !== session.state.of) filter.value = session.state.of;
    order.value = session.state.order;
  };
  const order = html("select", {}, html("option", { value: "", textContent: "the nearest" }),
    html("option", { value: "lowest", textContent: "the lowest cosine" }));
  order.addEventListener("change", () => session.update({ order: order.value, pair: "" }));
  const bar = html("p", { className: "bar" }, html("label", {}, "cosine of a pair, at least ", slider), value,
    html("label", {}, "first ", order), filter);
  return { element: html("div", {}, bar, counts), update };
}

/** @param {number} cosine */
const shown = (cosine) => String(+cosine.toFixed(4));

/**
 * The position of the highest step that is not above the chosen threshold.
 * @param {Near} near
 * @param {Session} session
 */
function stepAt({ counts }, { state }) {
  const { near } = state;
  return near === null ? 0 : Math.max(counts.findLastIndex(({ threshold }) => threshold <= near), 0);
}

/**
 * @param {Near} near
 * @param {Session} session
 */
function countsOf(near, session) {
  const { threshold, pairs, across, groups, removed, largest } = near.counts[stepAt(near, session)];
  const sentence = (/** @type {string} */ textContent, className = "") => html("p", { textContent, className });
  if (!near.total) return near.notes.map((note) => sentence(note));
  const acrossAll = across ?? (pairs === near.total ? near.across : null);
  const found = pairs === null ? `fewer than ${formatCount(near.total)} pairs`
    : `${formatCount(pairs)} ${pairs === 1 ? "pair" : "pairs"}`;
  const ofSources = acrossAll === null ? "" : ` (${acrossAll ? formatCount(acrossAll) : "none"} across sources)`;
  const size = groups ? ` in ${formatCount(groups)} groups, the largest of ${formatCount(largest)} rows` : "";
  const command = `embedkit dedup ${shellWord(META.run)} --threshold ${shown(threshold)}`;
  return [
    sentence(`At ${shown(threshold)} or more: ${found}${ofSources}${size}. If one row of each group stayed, `
      + `${formatCount(removed)} of ${formatCount(near.all_rows)} rows would be removed.`, "counts"),
    ...near.notes.map((note) => sentence(note, "hint")),
    sentence("What a threshold means depends on the model: read pairs near it before you choose one. "
      + `To decide which rows stay: ${command}`, "hint"),
  ];
}

/**
 * Positions of the pairs that reach the threshold and have a source of that name.
 * @param {Near} near
 * @param {Session} session
 */
function matching(near, session) {
  const least = near.counts[stepAt(near, session)].threshold, part = session.state.of.trim().toLowerCase();
  const names = (/** @type {number} */ at) => [near.a[at], near.b[at]].map((one) => sourceOf(session, near, one));
  const found = [...near.a.keys()].filter((at) => near.cosine[at] >= least - 1e-9
    && (!part || names(at).some((name) => name.toLowerCase().includes(part))));
  if (!session.state.order) return found;
  return found.sort((one, other) => Number(isAcross(near, other)) - Number(isAcross(near, one))
    || near.cosine[one] - near.cosine[other] || one - other);
}

/**
 * @param {Near} near
 * @param {number} at
 */
function isAcross({ rows, a, b }, at) { return rows.source[a[at]] !== rows.source[b[at]]; }

/**
 * @param {Session} session
 * @param {Near} near
 * @param {number} row a position in `rows`
 */
function sourceOf({ state }, { rows }, row) { return META.layers[state.view].sources[rows.source[row]]; }

/**
 * @param {Near} near
 * @param {number[]} listed
 * @param {Session} session
 */
function headingOf(near, listed, session) {
  const isAll = near.a.length === near.total, of = session.state.of.trim();
  const carried = isAll ? "" : `. This file has ${formatCount(near.a.length)} of ${formatCount(near.total)} pairs, `
    + "some near every threshold; near_duplicates.parquet has more";
  const ofSources = of ? ` of sources with "${of}"` : "";
  const what = listed.length === 1 ? "pair" : "pairs", across = listed.filter((at) => isAcross(near, at)).length;
  const first = across ? `${formatCount(across)} across sources first` : "none across sources";
  return `${formatCount(listed.length)} ${what}${ofSources}, ${first}${carried}`;
}

/**
 * @param {Near} near
 * @param {number} at
 */
function nameOf({ rows, a, b }, at) { return `${rows.id[a[at]]}-${rows.id[b[at]]}`; }

/**
 * @param {Near} near
 * @param {number[]} listed
 * @param {Session} session
 */
function openOf(near, listed, { state }) { return listed.find((at) => nameOf(near, at) === state.pair) ?? listed[0]; }

/**
 * @param {Session} session
 * @param {Near} near
 * @param {number} at
 */
function lineOf(session, near, at) {
  const { rows, a, b } = near, [one, other] = [a[at], b[at]].map((row) => sourceOf(session, near, row));
  const sources = one === other ? one : `${one} / ${other}`;
  const text = `${near.cosine[at].toFixed(4)}  ${rows.row[a[at]]}, ${rows.row[b[at]]}  ${sources}`;
  const button = html("button", { type: "button", textContent: text, title: text });
  button.dataset.entry = String(at);
  button.addEventListener("click", () => session.update({ pair: nameOf(near, at) }));
  return html("li", {}, button);
}

/**
 * @param {Session} session
 * @param {Near} near
 * @param {number} at
 * @param {import("./data.js").Texts} texts
 */
function contentOf(session, near, at, texts) {
  const { names, rows, a, b, starts } = near;
  const pair = { view: session.state.view, names, rows, at: [a[at], b[at]], starts: starts[at] ?? {}, isAlike: true };
  const [one, other] = pair.at.map((row) => sourceOf(session, near, row));
  const where = one === other ? `two rows of ${one}` : `a row of ${one} and a row of ${other}`;
  return [html("h3", { textContent: `cosine ${near.cosine[at].toFixed(6)}, ${where}` }), sideBySide(pair, texts)];
}
