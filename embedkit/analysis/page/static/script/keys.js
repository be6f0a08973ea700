// Keys: those of the map while it has the focus, and Escape anywhere.

/**
 * @param {import("./session.js").Session} session
 * @param {import("./map.js").MapView} map
 * @param {import("./pointer.js").Mode} mode
 */
export function addKeys(session, map, mode) {
  const pan = (/** @type {number} */ right, /** @type {number} */ up) => () => {
    const { u, v, zoom, scale } = map.viewport();
    map.move(u + right / scale[0], v + up / scale[1], zoom);
  };
  const zoom = (/** @type {number} */ factor) => () => {
    const { width, height } = map.viewport();
    map.zoomAt(width / 2, height / 2, factor);
  };
  /** @type {Record<string, () => void>} */
  const actions = {
    ArrowLeft: pan(-80, 0), ArrowRight: pan(80, 0), ArrowUp: pan(0, 80), ArrowDown: pan(0, -80),
    "+": zoom(1.5), "=": zoom(1.5), "-": zoom(1 / 1.5),
    0: () => { session.update({ at: null }); },
    v: () => map.selectInView(),
    Enter: () => {
      const { width, height } = map.viewport(), i = map.pick(width / 2, height / 2, width);
      if (session.rows && i >= 0) session.update({ row: session.rows.ids[i], stack: map.stackOf(i) });
    },
  };
  map.canvas.addEventListener("keydown", (event) => {
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  });
  for (const event of ["focus", "blur"]) map.canvas.addEventListener(event, () => map.draw());
  // In a field with text, Escape empties the field.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || (event.target instanceof HTMLInputElement && event.target.value)) return;
    if (mode.name !== "pan") mode.set("pan");
    else if (session.state.row !== null) session.update({ row: null });
    else if (session.state.area) session.update({ area: null });
  });
}
