"use strict";
// The state of the page as the fragment of its address (after #), so that a link or a bookmark restores it.

/** The state of a page without a fragment. at: [u, v, zoom], or null to show everything. hidden: codes of sources. */
function defaultState() {
  const { map, axes } = META.layers[0];
  return { view: 0, map: map ? "umap" : "pc", x: 1, y: Math.min(2, axes.length), colour: "source", at: null, hidden: new Set(), row: null, tab: "map", theme: "", q: "" };
}

function toLink(state) {
  const defaults = defaultState(), link = new URLSearchParams();
  for (const name of ["view", "map", "x", "y", "colour", "row", "tab", "theme", "q"]) {
    if (state[name] !== defaults[name]) link.set(name, state[name]);
  }
  if (state.at) link.set("at", state.at.join(","));
  const all = META.layers[state.view].sources.length;
  if (state.hidden.size > all / 2) {
    link.set("only", [...Array(all).keys()].filter((code) => !state.hidden.has(code)).join(","));
  } else if (state.hidden.size) {
    link.set("hide", [...state.hidden].sort((a, b) => a - b).join(","));
  }
  return `#${link}`;
}

/** The state of an address. Missing and invalid parts get their defaults. */
function fromLink(hash) {
  const state = defaultState(), link = new URLSearchParams(hash.replace(/^#/, ""));
  const oneOf = (name, allowed) => { if (allowed.includes(link.get(name))) state[name] = link.get(name); };
  const number = (name, min, max) => {
    const value = Number(link.get(name));
    if (link.has(name) && Number.isInteger(value) && value >= min && value <= max) state[name] = value;
  };
  number("view", 0, META.layers.length - 1);
  const layer = META.layers[state.view];
  if (!layer.map) state.map = "pc";
  oneOf("map", layer.map ? ["umap", "pc"] : ["pc"]);
  number("x", 1, layer.axes.length);
  number("y", 1, layer.axes.length);
  oneOf("colour", ["source", "tokens", "turns"]);
  oneOf("theme", ["light", "dark"]);
  number("row", 0, 2 ** 32);
  state.tab = link.get("tab") ?? "map";
  state.q = link.get("q") ?? "";
  const at = (link.get("at") ?? "").split(",").map(Number);
  if (at.length === 3 && at.every(Number.isFinite) && at[2] > 0) state.at = at;
  const codes = (name) => new Set((link.get(name) ?? "").split(",").filter(Boolean).map(Number));
  const only = codes("only");
  state.hidden = link.has("only") ? new Set([...Array(layer.sources.length).keys()].filter((code) => !only.has(code))) : codes("hide");
  return state;
}

/** The row of an address that names only a row, as links in tables do; else null. */
function onlyRow(hash) {
  const match = /^#row=(\d+)$/.exec(hash);
  return match ? Number(match[1]) : null;
}
