// The fields for the least and the most tokens and turns of selected rows.

import { META } from "./data.js";
import { byId, formatCount, html } from "./html.js";

/**
 * @typedef {import("./session.js").Session} Session
 * @typedef {"tokens" | "turns"} Name
 */

const TYPING_PAUSE = 300;  // milliseconds after the last key until the selection follows

/** @param {Session} session */
export function addRanges(session) {
  const place = byId("ranges", HTMLElement), lines = [lineOf(session, "tokens"), lineOf(session, "turns")];
  place.replaceChildren(...lines.map(({ line }) => line));
  const show = () => lines.forEach(({ update }) => update());
  session.subscribe((changed) => { if (changed.has("ranges") || changed.has("view")) show(); });
  show();
}

/**
 * @param {Session} session
 * @param {Name} name
 */
function lineOf(session, name) {
  const fields = ["least", "most"].map((limit) =>
    html("input", { type: "number", min: "0", ariaLabel: `${limit} ${name} of selected rows` }));
  const line = html("span", { className: "range" }, `${name} `, fields[0], " to ", fields[1]);
  /** @type {number | undefined} */
  let typing;
  const read = () => {
    const limits = fields.map(({ value }) => (value === "" ? null : Number(value)));
    const range = /** @type {import("./state.js").Range} */ (limits);
    session.update({ ranges: { ...session.state.ranges, [name]: range } });
  };
  for (const field of fields) {
    field.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(read, TYPING_PAUSE);
    });
  }
  const update = () => {
    const numbers = META.layers[session.state.view][name];
    line.hidden = numbers[0] === numbers[1];
    fields.forEach((field, at) => {
      const value = String(session.state.ranges[name][at] ?? "");
      field.placeholder = formatCount(numbers[at]);
      if (field.value !== value) field.value = value;
    });
  };
  return { line, update };
}
