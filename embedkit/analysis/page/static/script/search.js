// The search field.

import { byId } from "./html.js";

// Milliseconds after the last key until the search begins. A search by meaning reads all vectors.
const TYPING_PAUSE = { words: 200, pattern: 400, meaning: 800 };

/** @param {import("./session.js").Session} session */
export function addSearch(session) {
  const field = byId("search", HTMLInputElement);
  /** @type {number | undefined} */
  let typing;
  const search = () => {
    clearTimeout(typing);
    if (field.value !== session.state.q) session.update({ q: field.value });
  };
  field.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(search, TYPING_PAUSE[session.state.by]);
  });
  field.addEventListener("change", search);
  const show = () => { if (field.value !== session.state.q) field.value = session.state.q; };
  session.subscribe((changed) => { if (changed.has("q")) show(); });
  show();
}
