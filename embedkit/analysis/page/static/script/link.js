// The state of the page as the fragment of its address (after #), so that a link or a bookmark restores it.

import { META } from "./data.js";
import { fromText, toText } from "./outline.js";
import { SERVED } from "./server.js";
import { defaultState } from "./state.js";

/** @typedef {import("./state.js").State} State */

const RANGE = "range.", PICK = "pick.";  // before the name of a column
const NAMES = /** @type {const} */ (["view", "map", "x", "y", "colour", "row", "tab", "theme", "q", "by", "kind",
  "finding", "beside", "near", "pair", "of", "order", "names", "intro"]);

/**
 * @param {State} state
 * @returns {string}
 */
export function toLink(state) {
  const defaults = defaultState(), link = new URLSearchParams();
  for (const name of NAMES) if (state[name] !== defaults[name]) link.set(name, String(state[name]));
  if (state.at) link.set("at", state.at.join(","));
  if (state.area) link.set("area", `${state.area.kind},${toText(state.area.polygon)}`);
  for (const [name, range] of Object.entries(state.ranges)) {
    const text = range.map((limit) => limit ?? "").join("..");
    if (text !== "..") link.set(`${RANGE}${name}`, text);
  }
  for (const [name, codes] of Object.entries(state.picks)) {
    if (codes.size) link.set(`${PICK}${name}`, [...codes].sort((a, b) => a - b).join(","));
  }
  const codes = [...META.layers[state.view].sources.keys()];
  if (state.hidden.size > codes.length / 2) {
    link.set("only", codes.filter((code) => !state.hidden.has(code)).join(","));
  } else if (state.hidden.size) {
    link.set("hide", [...state.hidden].sort((a, b) => a - b).join(","));
  }
  return `#${link}`;
}

/**
 * The state of an address. Missing and invalid parts get their defaults.
 * @param {string} hash
 * @returns {State}
 */
export function fromLink(hash) {
  const state = defaultState(), link = new URLSearchParams(hash.replace(/^#/, ""));
  const text = (/** @type {string} */ name, /** @type {string[]} */ allowed, /** @type {string} */ otherwise) => {
    const value = link.get(name);
    return value !== null && allowed.includes(value) ? value : otherwise;
  };
  const number = (/** @type {"view" | "x" | "y" | "row" | "finding" | "beside"} */ name, /** @type {number} */ min,
    /** @type {number} */ max) => {
    const value = Number(link.get(name));
    if (link.has(name) && Number.isInteger(value) && value >= min && value <= max) state[name] = value;
  };
  const named = META.layers.findIndex(({ view }) => view === link.get("view"));
  if (named >= 0) state.view = named; else number("view", 0, META.layers.length - 1);
  const layer = META.layers[state.view];
  state.map = text("map", layer.map ? ["umap", "pc"] : ["pc"], layer.map ? "umap" : "pc");
  number("x", 1, layer.axes.length);
  number("y", 1, layer.axes.length);
  number("row", 0, 2 ** 32);
  number("finding", 1, 2 ** 32);
  number("beside", 0, 2 ** 32);
  state.colour = text("colour", ["source", ...layer.columns.map(({ name }) => name)], state.colour);
  state.theme = text("theme", ["light", "dark"], state.theme);
  state.tab = link.get("tab") ?? "map";
  for (const name of /** @type {const} */ (["q", "kind", "pair", "of"])) state[name] = link.get(name) ?? "";
  const by = link.get("by");
  if (SERVED && (by === "pattern" || by === "meaning")) state.by = by;
  state.order = text("order", ["lowest"], "");
  state.near = Number(link.get("near")) || null;
  state.names = link.get("names") !== "false";
  state.intro = link.get("intro") !== "false";
  const [u, v, zoom, ...more] = (link.get("at") ?? "").split(",").map(Number);
  if ([u, v, zoom].every(Number.isFinite) && zoom > 0 && !more.length) state.at = [u, v, zoom];
  state.area = areaOf(link.get("area") ?? "");
  for (const column of layer.columns) {
    const range = rangeOf(link.get(`${RANGE}${column.name}`)), codes = numbersOf(link.get(`${PICK}${column.name}`));
    if (column.kind === "number" && range) state.ranges[column.name] = range;
    if (column.kind === "category" && codes.length) state.picks[column.name] = new Set(codes);
  }
  const codes = (/** @type {string} */ name) => new Set(numbersOf(link.get(name)));
  const only = codes("only"), all = [...layer.sources.keys()];
  state.hidden = link.has("only") ? new Set(all.filter((code) => !only.has(code))) : codes("hide");
  return state;
}

/**
 * An area from its text; null if there is none.
 * @param {string} text
 * @returns {import("./state.js").Area | null}
 */
function areaOf(text) {
  const [kind, ...rest] = text.split(","), polygon = fromText(rest.join(","));
  return polygon && (kind === "drawn" || kind === "view") ? { kind, polygon } : null;
}

/**
 * A range from its text, such as `10..200` or `0.5..`; null if there is none.
 * @param {string | null} text
 * @returns {import("./state.js").Range | null}
 */
function rangeOf(text) {
  const limits = (text ?? "").split("..").map((limit) => (limit === "" ? null : Number(limit)));
  if (limits.length !== 2 || limits.some(Number.isNaN)) return null;
  return /** @type {import("./state.js").Range} */ (limits);
}

/**
 * Whole numbers from their text, such as `1,20`.
 * @param {string | null} text
 */
const numbersOf = (text) => (text ?? "").split(",").filter((part) => /^\d+$/.test(part)).map(Number);

/**
 * The row of an address that names only a row, as links in tables do; else null.
 * @param {string} hash
 */
export function onlyRow(hash) {
  const match = /^#row=(\d+)$/.exec(hash);
  return match ? Number(match[1]) : null;
}
