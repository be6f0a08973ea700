// What the map is, its largest groups, and where to begin: for whoever opens the page for the first time.

import { META } from "./data.js";
import { goToGroup } from "./group_list.js";
import { childrenOf, isSelected, levelsOf } from "./groups.js";
import { byId, formatCount, html } from "./html.js";
import { shortName } from "./short_name.js";

const LARGEST = 4;  // groups
const MAX_CHARACTERS = 40;
const FIRST_TAB = "Worth reading";

/**
 * @param {import("./session.js").Session} session
 * @param {import("./map.js").MapView | null} map
 */
export function addIntro(session, map) {
  const panel = byId("intro", HTMLElement);
  const show = () => {
    const { state } = session;
    panel.hidden = !state.intro;
    if (state.intro) panel.replaceChildren(...contentOf(session, map));
  };
  session.subscribe((changed) => {
    if (["intro", "view", "map", "picks"].some((name) => changed.has(/** @type {"view"} */ (name)))) show();
  });
  show();
}

/**
 * @param {import("./session.js").Session} session
 * @param {import("./map.js").MapView | null} map
 */
function contentOf(session, map) {
  const { state } = session, layer = META.layers[state.view], levels = levelsOf(state.view), [coarsest] = levels;
  const close = html("button", { type: "button", id: "close-intro", textContent: "×", title: "close this note" });
  close.setAttribute("aria-label", "close this note");
  close.addEventListener("click", () => {
    session.update({ intro: false });
    byId("points", HTMLElement).focus();
  });
  const parts = [close, html("p", { textContent: aboutMap(layer, state.map) })];
  if (coarsest) {
    const buttons = childrenOf(levels, null).slice(0, LARGEST).map(({ group }) => {
      const name = coarsest.names[group], members = coarsest.members[group], text = shortName(name, MAX_CHARACTERS);
      const button = html("button", { type: "button", dir: "auto", title: name, textContent: text });
      button.setAttribute("aria-pressed", String(isSelected(state, members)));
      button.addEventListener("click", () => goToGroup(session, map, members));
      return button;
    });
    const count = coarsest.names.length;
    const what = count > LARGEST ? `The largest of ${formatCount(count)} groups:` : "Its groups:";
    parts.push(html("p", { className: "largest" }, what, ...buttons));
  }
  if (document.querySelector(`[role=tab][data-tab="${FIRST_TAB}"]`)) {
    const button = html("button", { type: "button", className: "link", textContent: FIRST_TAB });
    button.addEventListener("click", () => session.update({ tab: FIRST_TAB }));
    parts.push(html("p", {}, "Begin with ", button, "."));
  }
  return parts;
}

/**
 * @param {import("./data.js").Layer} layer
 * @param {string} map
 */
function aboutMap({ counts, rows }, map) {
  const sources = counts.filter(Boolean).length;
  const what = `Each point is one of ${formatCount(rows)} rows from ${formatCount(sources)} `
    + `source${sources === 1 ? "" : "s"}.`;
  return `${what} ${map === "umap"
    ? "Rows with similar texts are close together; long distances mean little."
    : "The axes are the directions in which the rows differ most."}`;
}
