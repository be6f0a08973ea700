// One tab stop for a list of many controls (the roving tabindex of the ARIA Authoring Practices).
// Up, down, Home and End move between the lines, left and right between the controls of a line.

const CONTROLS = "input, button";

/** @param {HTMLElement} list its lines are `li`, or the first child of an `li` that has a list of its own */
export function addRovingFocus(list) {
  /** @type {HTMLElement | null} */
  let current = null;
  const lines = () => [...list.querySelectorAll("li:not(.group), .group > div")].filter((line) => {
    const hidden = line.closest("[hidden]");
    return !hidden || !list.contains(hidden);
  }).map((line) => controlsOf(line));

  /** @param {HTMLElement} control */
  const setCurrent = (control) => {
    if (current) current.tabIndex = -1;
    current = control;
    current.tabIndex = 0;
  };
  const update = () => {
    for (const control of controlsOf(list)) control.tabIndex = -1;
    const shown = lines(), kept = shown.flat().find((control) => control === current);
    const next = kept ?? shown[0]?.[0];
    if (next) setCurrent(next);
  };
  list.addEventListener("click", update);  // a group may have closed
  list.addEventListener("focusin", ({ target }) => { if (target instanceof HTMLElement) setCurrent(target); });
  list.addEventListener("keydown", (event) => {
    const shown = lines(), row = shown.findIndex((line) => line.includes(/** @type {HTMLElement} */ (event.target)));
    if (row < 0) return;
    const line = shown[row], column = line.indexOf(/** @type {HTMLElement} */ (event.target));
    const last = shown.length - 1, kept = (/** @type {number} */ at) => mainOf(shown[Math.min(Math.max(at, 0), last)]);
    const next = {
      ArrowDown: kept(row + 1), ArrowUp: kept(row - 1), Home: kept(0), End: kept(last),
      ArrowRight: line[column + 1], ArrowLeft: line[column - 1],
    }[event.key];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  return { update };
}

/** @param {Element} element */
function controlsOf(element) {
  return /** @type {HTMLElement[]} */ ([...element.querySelectorAll(CONTROLS)]);
}

/**
 * The box of a line, or else its first control that is no toggle.
 * @param {HTMLElement[]} line
 */
function mainOf(line) {
  return line.find((control) => control instanceof HTMLInputElement)
    ?? line.find((control) => !control.classList.contains("toggle")) ?? line[0];
}
