// Two maps side by side: two pages as frames, and what each of them sends handed to the other one.

import { byId } from "./html.js";
import { listen, post } from "./link_messages.js";
import { loadTranslation } from "./translation.js";

/**
 * @typedef {import("./link_messages.js").Parts} Parts
 * @typedef {import("./translation.js").Translate} Translate
 */

const SIDES = ["left", "right"];
start();

async function start() {
  const translate = await loadTranslation(), frames = SIDES.map((side) => byId(side, HTMLIFrameElement));
  /** @type {Parts[]} by side, for a page that is loaded later than the other one */
  const known = [{}, {}], isLoaded = [false, false];
  frames.forEach((frame, side) => {
    const other = 1 - side;
    frame.addEventListener("load", () => {
      isLoaded[side] = true;
      if (frame.contentWindow) post(frame.contentWindow, known[side]);
    });
    listen(frame.contentWindow, ({ ids, clear, ...parts }) => {
      const message = translated({ ids, ...parts }, (id) => translate(side, id));
      Object.assign(known[side], parts);
      Object.assign(known[other], message);
      showTheme(parts.theme);
      if (parts.row !== undefined) showNote(parts.row !== null && message.row === null ? [parts.row, side] : null);
      const to = frames[other].contentWindow;
      if (to && isLoaded[other]) post(to, clear ? { ...message, clear } : message);
    });
    frame.src = addressOf(frame);
  });
}

/**
 * A server has the page under the name of its folder alone.
 * @param {HTMLIFrameElement} frame
 */
function addressOf({ dataset: { page = "", link } }) {
  return `${location.protocol === "file:" ? page : page.replace(/index\.html$/, "") || "./"}#${link}`;
}

/**
 * Parts with the ids of the other side. Ids that it does not have are left out.
 * @param {Parts} parts
 * @param {(id: number) => number | null} translate
 * @returns {Parts}
 */
function translated({ row, ids, ...parts }, translate) {
  const found = ids && [...ids].map(translate).filter((id) => id !== null);
  return {
    ...parts,
    ...(row === undefined ? {} : { row: row === null ? null : translate(row) }),
    ...(ids === undefined ? {} : { ids: found && Uint32Array.from(found) }),
  };
}

/** @param {string | undefined} theme */
function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

/** @param {[number, number] | null} missing the row of a side that the other side does not have */
function showNote(missing) {
  byId("note", HTMLElement).textContent = missing
    ? `The row with id ${missing[0]} of the ${SIDES[missing[1]]} map is not on the other one.` : "";
}
