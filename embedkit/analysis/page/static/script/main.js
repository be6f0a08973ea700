// Puts the page together: one session, and the views that show it.

import { addAddress } from "./address.js";
import { addCharts } from "./charts.js";
import { addChosen } from "./chosen.js";
import { addContours } from "./contours.js";
import { addControls } from "./controls.js";
import { META } from "./data.js";
import { addGroupList } from "./group_list.js";
import { byId, html } from "./html.js";
import { addIntro } from "./intro.js";
import { addKeys } from "./keys.js";
import { addLegend } from "./legend.js";
import { fromLink } from "./link.js";
import { addLinked } from "./linked.js";
import { MapView } from "./map.js";
import { addNames } from "./names.js";
import { addPairs } from "./pairs.js";
import { addPicture } from "./picture.js";
import { Mode, addPointer } from "./pointer.js";
import { addReading } from "./reading.js";
import { addRowPanel } from "./row_panel.js";
import { addSearch } from "./search.js";
import { addServerSearch } from "./server_search.js";
import { Session } from "./session.js";
import { addTabs } from "./tabs.js";
import { addTheme } from "./theme.js";

export const session = new Session(fromLink(location.hash));
export const map = makeMap();
start();

/** The map, or null with a note on the page if the browser has none. */
function makeMap() {
  try {
    if (!globalThis.DecompressionStream) throw new Error("no DecompressionStream");
    return new MapView(session);
  } catch (error) {
    showNote(`There is no map in this browser (${messageOf(error)}); everything else is here.`);
    return null;
  }
}

function start() {
  const open = (/** @type {number} */ id) => (map ? map.open(id) : session.update({ row: id }));
  addTheme(session);
  addTabs(session);
  addControls(session);
  addLegend(session);
  addGroupList(session, map);
  addIntro(session, map);
  addSearch(session);
  addCharts(session);
  addChosen(session, open);
  addRowPanel(session, open);
  addServerSearch(session, open);
  addReading(session);
  addPairs(session);
  addAddress(session, open);
  addLinked(session, open);
  if (!map) return;
  const mode = new Mode();
  addContours(session, map);
  const names = addNames(session, map);
  addPointer(session, map, mode, names);
  addPicture(session, map, names);
  addKeys(session, map, mode);
  byId("inview", HTMLButtonElement).addEventListener("click", () => map.selectInView());
  const { axes, map: umap } = META.layers[session.state.view];
  if (!axes.length && !umap) return;
  session.subscribe((changed) => {
    if (!changed.has("error")) return;
    showNote(`The data of this map cannot be read (${messageOf(session.error)}). Was the file cut off? `
      + "`embedkit analyze` writes it again.");
  });
  session.load();
}

/** @param {unknown} error */
function messageOf(error) { return error instanceof Error ? error.message : String(error); }

/** @param {string} text */
function showNote(text) { byId("stage", HTMLElement).append(html("p", { className: "note", textContent: text })); }
