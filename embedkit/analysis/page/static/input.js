"use strict";
// Pointer, wheel, touch and keys.

const CLICK_PIXELS = 4;  // pixels that the pointer may move during a click

function addListeners(atlas) {
  const change = (id, set) => $(id).addEventListener("change", () => { set($(id).value); atlas.save(); });
  const setAndShow = (name, value, others = {}) => { Object.assign(atlas.state, { [name]: value, ...others }); atlas.show(); };
  change("view", (value) => setAndShow("view", Number(value), { ...defaultsOfView(Number(value)), at: null, hidden: new Set() }));
  change("map", (value) => setAndShow("map", value, { at: null }));
  for (const axis of ["x", "y"]) change(axis, (value) => setAndShow(axis, Number(value), { at: null }));
  change("colour", async (value) => {
    atlas.state.colour = value;
    atlas.legend.show(atlas.layer, atlas.state.hidden, value === "source");
    await atlas.colours();
    atlas.draw();
  });
  const click = (id, action) => $(id).addEventListener("click", action);
  click("all", () => atlas.legend.setAll(() => true));
  click("none", () => atlas.legend.setAll(() => false));
  click("csv", () => atlas.saveRows());
  click("fit", () => { atlas.state.at = null; atlas.draw(); atlas.save(); });
  click("inview", () => atlas.inView());
  for (const mode of ["lasso", "box"]) click(mode, () => setMode(atlas, atlas.mode === mode ? "pan" : mode));
  click("theme", () => {
    atlas.state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    atlas.theme();
    atlas.save();
  });
  let typing;
  $("search").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { atlas.state.q = $("search").value; atlas.search(); atlas.save(); }, 200);
  });
  for (const tab of document.querySelectorAll("[role=tab]")) {
    tab.addEventListener("click", () => { atlas.state.tab = tab.dataset.tab; showTab(tab.dataset.tab); atlas.draw(); atlas.save(); });
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: tab.nextElementSibling, ArrowLeft: tab.previousElementSibling }[event.key];
      if (next) { next.focus(); next.click(); }
    });
  }
  addEventListener("hashchange", () => atlas.follow());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => atlas.theme());
  new ResizeObserver(() => atlas.draw()).observe($("stage"));
  addPointerListeners(atlas, $("points"));
  addKeyListeners(atlas, $("points"));
}

/** The parts of the state that depend on the view. */
function defaultsOfView(view) {
  const { map, axes } = META.layers[view];
  return { map: map ? "umap" : "pc", x: 1, y: Math.min(2, axes.length) };
}

function setMode(atlas, mode) {
  atlas.mode = mode;
  for (const each of ["lasso", "box"]) $(each).setAttribute("aria-pressed", each === mode);
  $("stage").dataset.mode = mode;
}

function addPointerListeners(atlas, canvas) {
  const down = new Map();  // last position of each pointer
  let path = null, moved = 0, fingerDistance = 0;
  const pixelOf = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, pixelOf(event));
    [moved, fingerDistance] = [0, distance(down)];
    path = down.size === 1 && (atlas.mode !== "pan" || event.shiftKey) ? [atlas.toData(...pixelOf(event))] : null;
    atlas.hoverAt(null);
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = pixelOf(event), before = down.get(event.pointerId);
    if (!before) { if (event.pointerType === "mouse") atlas.hoverAt(...at); return; }
    moved += Math.hypot(at[0] - before[0], at[1] - before[1]);
    down.set(event.pointerId, at);
    if (path) {
      const data = atlas.toData(...at);
      if (atlas.mode === "box") path = [path[0], [data[0], path[0][1]], data, [path[0][0], data[1]]]; else path.push(data);
      atlas.outline = path;
      atlas.draw(true);
      return;
    }
    const window = atlas.window();
    const share = 1 / down.size;  // each of two fingers moves the map by half
    atlas.move(window.u - ((at[0] - before[0]) * share) / window.scale[0], window.v + ((at[1] - before[1]) * share) / window.scale[1], window.zoom);
    if (down.size === 2) {
      const now = distance(down);
      if (fingerDistance && now) atlas.zoomAt(...middle(down), now / fingerDistance);
      fingerDistance = now;
    }
  });
  const up = (event) => {
    if (!down.delete(event.pointerId) || event.type === "pointercancel") return;
    if (moved <= CLICK_PIXELS) {
      const found = atlas.pick(...pixelOf(event));
      if (path) { path = null; atlas.outline = null; }
      if (found >= 0) atlas.open(atlas.ids[found], false); else atlas.close();
    } else if (path && path.length > 2) {
      atlas.choose(path, "rows chosen");
      setMode(atlas, "pan");
    }
    path = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => atlas.hoverAt(null));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    atlas.zoomAt(...pixelOf(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => atlas.zoomAt(...pixelOf(event), 2));
  canvas.addEventListener("webglcontextlost", () => setTimeout(() => location.reload(), 1000));  // the address keeps the view
}

function distance(down) {
  const [a, b] = [...down.values()];
  return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
}

function middle(down) {
  const [a, b] = [...down.values()];
  return [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
}

function addKeyListeners(atlas, canvas) {
  const pan = (right, up) => () => { const { u, v, zoom, scale } = atlas.window(); atlas.move(u + right / scale[0], v + up / scale[1], zoom); };
  const zoom = (factor) => () => { const { width, height } = atlas.window(); atlas.zoomAt(width / 2, height / 2, factor); };
  const actions = {
    ArrowLeft: pan(-80, 0), ArrowRight: pan(80, 0), ArrowUp: pan(0, 80), ArrowDown: pan(0, -80), "+": zoom(1.5), "=": zoom(1.5), "-": zoom(1 / 1.5),
    0: () => $("fit").click(), v: () => atlas.inView(), Escape: () => { setMode(atlas, "pan"); atlas.close(); },
    Enter: () => {
      const window = atlas.window();
      const found = atlas.grid ? atlas.grid.nearest(window.u, window.v, window.scale, window.width, (i) => atlas.isShown(i)) : -1;
      if (found >= 0) atlas.open(atlas.ids[found], false);
    },
  };
  canvas.addEventListener("keydown", (event) => {
    if (!actions[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    actions[event.key]();
  });
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, () => atlas.draw());
}
