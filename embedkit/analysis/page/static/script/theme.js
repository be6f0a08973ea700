// Light and dark. Without a choice, the page follows the system.

import { restyleFigures } from "./figures.js";
import { byId } from "./html.js";

/** @param {import("./session.js").Session} session */
export function addTheme(session) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    document.documentElement.dataset.theme = session.state.theme || (system.matches ? "dark" : "light");
    restyleFigures();
  };
  byId("theme", HTMLButtonElement).addEventListener("click", () => {
    session.update({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" });
  });
  system.addEventListener("change", () => session.emit("theme"));
  session.subscribe((changed) => { if (changed.has("theme")) show(); });
  show();
}
