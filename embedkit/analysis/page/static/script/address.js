// Keeps the address of the page in step with its state.

import { fromLink, onlyRow, toLink } from "./link.js";

const SAVE_DELAY = 100;  // milliseconds; browsers refuse a new address in every frame

/**
 * @param {import("./session.js").Session} session
 * @param {(id: number) => void} open shows a row on the map
 */
export function addAddress(session, open) {
  let link = "";
  /** @type {number | undefined} */
  let saving;
  session.subscribe(() => {
    clearTimeout(saving);
    saving = setTimeout(() => {
      const { at } = session.state;
      if (at) session.state.at = [+at[0].toPrecision(9), +at[1].toPrecision(9), +at[2].toPrecision(9)];
      link = toLink(session.state);
      history.replaceState(null, "", link);
    }, SAVE_DELAY);
  });
  addEventListener("hashchange", async () => {
    if (location.hash === link) return;
    const row = onlyRow(location.hash);
    if (row === null) await session.update(fromLink(location.hash));
    else {
      await session.update({ tab: "map" });
      open(row);
    }
  });
}
