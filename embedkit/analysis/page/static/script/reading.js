// The tab "Worth reading": kinds of findings, the findings of one kind, and the open finding side by side with others.

import { addSteps, dataNote, markCurrent, tabOf, viewChoice } from "./browse.js";
import { META, carriedTexts, jsonOf } from "./data.js";
import { formatCount, html } from "./html.js";
import { sideBySide } from "./side_by_side.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {{ name: string, meaning: string, shown: number, found: number, skipped: string | null }} Kind
 *
 * @typedef {object} Finding
 * @property {number} rank
 * @property {string} kind
 * @property {number} kind_rank
 * @property {string} reason
 * @property {number} strength
 * @property {[number, number | null][]} pairs positions of the rows that are shown side by side
 * @property {Record<string, import("./side_by_side.js").Start[]>[]} starts of each pair
 *
 * @typedef {object} Reading the findings of a view
 * @property {string[]} names
 * @property {Kind[]} kinds
 * @property {import("./side_by_side.js").RowTable} rows
 * @property {Finding[]} findings by rank
 */

const FIRST = 10;  // findings to begin with, of all kinds

/** @param {Session} session */
export function addReading(session) {
  const place = document.getElementById("reading");
  if (!place) return;
  const { title } = tabOf(place);
  /** @type {Reading | null} */
  let reading = null;
  let listedFor = "";  // the view and kind of the list
  const step = (/** @type {number} */ by) => {
    if (!reading) return;
    const listed = listedOf(reading, session), next = listed[listed.indexOf(openOf(listed, session)) + by];
    if (next) session.update({ kind: chosenKind(reading, session), finding: next.rank, beside: 0 });
  };
  const { previous, next, keys } = addSteps(session, place, "finding", step);
  const kinds = html("ul", { className: "kinds" }), opened = html("div", { className: "opened" });
  const position = html("span", { ariaLive: "polite" });
  const list = html("details", { open: innerWidth > 760 }, html("summary", { textContent: "findings by kind" }), kinds);
  place.classList.add("browse");
  place.append(html("nav", { ariaLabel: "findings by kind" }, ...viewChoice(session), list),
    html("div", { className: "entry" }, html("div", { className: "steps" }, previous, next, position, keys), opened));

  const show = async () => {
    if (session.state.tab !== title) return;
    try {
      const [views, texts] = await Promise.all([jsonOf("reading"), carriedTexts()]);
      reading = /** @type {Reading} */ (views[session.state.view]);
      const listed = listedOf(reading, session), finding = openOf(listed, session);
      const wanted = `${session.state.view} ${chosenKind(reading, session)}`;
      if (listedFor !== wanted) showKinds(session, reading, kinds);
      listedFor = wanted;
      markCurrent(kinds, String(finding?.rank));
      const at = listed.indexOf(finding);
      [previous.disabled, next.disabled] = [at <= 0, at >= listed.length - 1];
      position.textContent = finding ? `${at + 1} of ${listed.length}` : "";
      const hadFocus = opened.querySelector(".choice")?.contains(document.activeElement);
      opened.replaceChildren(...(finding ? contentOf(session, reading, finding, texts)
        : [html("p", { textContent: "Nothing was found." })]));
      const chosen = opened.querySelector(".choice [aria-pressed=true]");
      if (hadFocus && chosen instanceof HTMLElement) chosen.focus();
    } catch (error) {
      opened.replaceChildren(dataNote(error));
    }
  };
  session.subscribe((changed) => {
    if (["tab", "view", "kind", "finding", "beside"].some((name) => changed.has(/** @type {"tab"} */ (name)))) show();
  });
  show();
}

/**
 * The findings of the chosen kind, or the first ones.
 * @param {Reading} reading
 * @param {Session} session
 */
function listedOf(reading, session) {
  const chosen = chosenKind(reading, session);
  return chosen ? reading.findings.filter(({ kind }) => kind === chosen) : reading.findings.slice(0, FIRST);
}

/**
 * The kind that is listed, "" for the first findings of all kinds. A link to a later finding lists its kind.
 * @param {Reading} reading
 * @param {Session} session
 */
function chosenKind({ findings }, { state }) {
  const isListed = findings.some(({ kind }) => kind === state.kind);
  return isListed ? state.kind : findings.find(({ rank }) => rank > FIRST && rank === state.finding)?.kind ?? "";
}

/**
 * @param {Finding[]} listed
 * @param {Session} session
 */
function openOf(listed, { state }) { return listed.find(({ rank }) => rank === state.finding) ?? listed[0]; }

/** @param {string} kind */
const inWords = (kind) => kind.replaceAll("_", " ");

/**
 * @param {Session} session
 * @param {Reading} reading
 * @param {HTMLElement} place
 */
function showKinds(session, reading, place) {
  const hadFocus = place.contains(document.activeElement), listed = listedOf(reading, session);
  const chosen = chosenKind(reading, session);
  const lines = html("ul", { className: "lines" },
    ...listed.map((finding) => lineOf(session, reading, finding, chosen)));
  const entry = (/** @type {string} */ kind, /** @type {string} */ name, /** @type {string} */ count) => {
    const button = html("button", { type: "button", ariaExpanded: String(kind === chosen) },
      html("span", { textContent: name }), html("span", { className: "count", textContent: count }));
    button.addEventListener("click", () => session.update({ kind, finding: null, beside: 0 }));
    return html("li", {}, button, ...(kind === chosen ? [lines] : []));
  };
  const without = (/** @type {Kind} */ { name, skipped }) => {
    const textContent = `${inWords(name)}: ${skipped ? `not computed, ${skipped}` : "none"}`;
    return html("li", { className: "none", textContent });
  };
  const { findings } = reading, first = Math.min(FIRST, findings.length);
  place.replaceChildren(entry("", "begin here", `first ${first} of all kinds`), ...reading.kinds.map((kind) =>
    (kind.shown ? entry(kind.name, inWords(kind.name), countOf(kind)) : without(kind))));
  const button = place.querySelector("[aria-expanded=true]");
  if (hadFocus && button instanceof HTMLElement) button.focus();
}

/** @param {Kind} kind */
function countOf({ shown, found }) {
  return shown < found ? `${formatCount(shown)} of ${formatCount(found)}` : formatCount(found);
}

/**
 * @param {Session} session
 * @param {Reading} reading
 * @param {Finding} finding
 * @param {string} chosen the kind that is listed
 */
function lineOf(session, { rows }, { rank, kind, reason, pairs }, chosen) {
  const [at] = pairs[0], source = META.layers[session.state.view].sources[rows.source[at]];
  const what = chosen ? "" : `${inWords(kind)}: `;
  const textContent = `${what}row ${rows.row[at]} of ${source}`;
  const button = html("button", { type: "button", textContent, title: reason });
  button.dataset.entry = String(rank);
  button.addEventListener("click", () => session.update({ kind: chosen, finding: rank, beside: 0 }));
  return html("li", {}, button);
}

/**
 * @param {Session} session
 * @param {Reading} reading
 * @param {Finding} finding
 * @param {import("./data.js").Texts} texts
 */
function contentOf(session, { kinds, names, rows }, finding, texts) {
  const { state } = session, kind = /** @type {Kind} */ (kinds.find(({ name }) => name === finding.kind));
  const beside = Math.min(state.beside, finding.pairs.length - 1), at = finding.pairs[beside];
  const pair = {
    view: state.view, names, rows, at: /** @type {number[]} */ (at.filter((one) => one !== null)),
    starts: finding.starts[beside] ?? {}, isAlike: finding.kind !== "survivors",
  };
  return [
    html("h3", { textContent: finding.reason }),
    html("p", { className: "hint", textContent:
      `${inWords(kind.name)} ${finding.kind_rank} of ${formatCount(kind.found)} found: ${kind.meaning}` }),
    ...choiceOf(session, finding, rows, beside), sideBySide(pair, texts),
  ];
}

/**
 * Buttons for the rows that a finding is compared with, if there are several.
 * @param {Session} session
 * @param {Finding} finding
 * @param {import("./side_by_side.js").RowTable} rows
 * @param {number} beside
 */
function choiceOf(session, { pairs }, rows, beside) {
  if (pairs.length < 2) return [];
  const buttons = pairs.map(([left, right], at) => {
    const isOther = left !== pairs[0][0], row = (/** @type {number} */ one) => rows.row[one];
    const name = isOther ? `rows ${row(left)} and ${row(right ?? left)}` : `row ${row(right ?? left)}`;
    const button = html("button", { type: "button", textContent: name, ariaPressed: String(at === beside) });
    button.addEventListener("click", () => session.update({ beside: at }));
    return button;
  });
  return [html("p", { className: "choice" }, html("span", { textContent: "beside " }), ...buttons)];
}
