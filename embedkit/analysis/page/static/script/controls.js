// The bar above the map, the notes below it, and the colour ramp.

import { RAMP } from "./colouring.js";
import { formatNumber } from "./columns.js";
import { META } from "./data.js";
import { byId, html } from "./html.js";
import { SIMILARITY, defaultsOfView } from "./state.js";

/** @param {import("./session.js").Session} session */
export function addControls(session) {
  const select = (/** @type {string} */ id) => byId(id, HTMLSelectElement);
  const change = (/** @type {string} */ id, /** @type {(value: string) => Partial<import("./state.js").State>} */ to) =>
    select(id).addEventListener("change", () => session.update(to(select(id).value)));
  change("view", (view) => ({ ...defaultsOfView(Number(view)), view: Number(view), hidden: new Set() }));
  change("map", (map) => ({ map, at: null, area: null }));
  change("x", (x) => ({ x: Number(x), at: null, area: null }));
  change("y", (y) => ({ y: Number(y), at: null, area: null }));
  change("colour", (colour) => ({ colour }));
  byId("fit", HTMLButtonElement).addEventListener("click", () => session.update({ at: null }));

  const show = () => {
    const { state } = session, layer = META.layers[state.view];
    const options = [...(layer.map ? [["umap", "UMAP"]] : []), ["pc", "principal components"]];
    select("map").replaceChildren(...options.map(([value, text]) => html("option", { value, textContent: text })));
    for (const axis of /** @type {("x" | "y")[]} */ (["x", "y"])) {
      const components = layer.axes.map(({ label }, at) => html("option", { value: `${at + 1}`, textContent: label }));
      select(axis).replaceChildren(...components);
      select(axis).parentElement?.toggleAttribute("hidden", state.map === "umap");
    }
    const colours = [["source", "source"], ...layer.columns.map(({ name, title }) => [name, title])];
    if (session.similarity?.view === state.view) colours.push([SIMILARITY, SIMILARITY]);
    select("colour").replaceChildren(...colours.map(([value, text]) => html("option", { value, textContent: text })));
    for (const name of /** @type {("view" | "map" | "x" | "y" | "colour")[]} */ (["view", "map", "x", "y", "colour"])) {
      select(name).value = String(state[name]);
    }
    const notes = [...(state.map === "umap" ? layer.map?.notes ?? [] : []), ...layer.notes];
    byId("notes", HTMLElement).textContent = notes.join(" ");
  };
  session.subscribe((changed) => {
    if (["view", "map", "x", "y", "colour", "similarity"].some((name) => changed.has(/** @type {"view"} */ (name)))) show();
    if (changed.has("colouring")) showRamp(session);
  });
  show();
}

/** @param {import("./session.js").Session} session */
function showRamp({ colouring }) {
  const ramp = byId("ramp", HTMLElement), column = colouring?.ramp;
  ramp.hidden = !column;
  if (!column) return;
  const { about } = column, bar = html("i");
  bar.style.background = `linear-gradient(90deg, ${RAMP.map((colour) => `rgb(${colour})`)})`;
  const numbers = [about.low, column.numberAt(0.5), about.high].map((number) => formatNumber(number, about));
  const marks = [...new Set(numbers)].map((number) => html("span", { textContent: number }));
  ramp.replaceChildren(html("b", { textContent: about.title }), bar, html("div", {}, ...marks));
}
