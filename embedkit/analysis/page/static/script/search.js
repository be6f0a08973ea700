// The search field.

import { byId } from "./html.js";

const TYPING_PAUSE = 200;  // milliseconds after the last key until the search begins

/** @param {import("./session.js").Session} session */
export function addSearch(session) {
  const field = byId("search", HTMLInputElement);
  /** @type {number | undefined} */
  let typing;
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => session.update({ q: field.value }), TYPING_PAUSE);
  });
  const show = () => { if (field.value !== session.state.q) field.value = session.state.q; };
  session.subscribe((changed) => { if (changed.has("q")) show(); });
  show();
}
