"use strict";
// The page: its state, and the actions that change it.

const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];  // five colours of viridis
const FILL = 0.94;  // share of the window that all points fill
const PICK_RADIUS = 14;  // pixels around the pointer in which a point is picked
const FRAME_BUDGET = 25;  // milliseconds per frame while the map moves
const SETTLE_DELAY = 150;  // milliseconds after the last move until all points are drawn
const $ = (id) => document.getElementById(id);

class Atlas {
  constructor() {
    this.state = fromLink(location.hash);
    this.highlighted = -1;
    this.skip = 1;
    this.outline = null;
    this.mode = "pan";
    this.hover = -1;
    this.hits = [];
    this.generation = 0;
    this.legend = new Legend($("sources"), $("filter"), {
      changed: (hidden) => { this.state.hidden = hidden; this.showSources(); this.save(); },
      highlighted: (code) => { this.highlighted = code; this.draw(); },
    });
    this.list = new RowList({ title: $("chosen"), list: $("rows"), save: $("csv"), clear: $("clear") }, {
      describe: (i) => this.describe(i),
      go: (i) => this.open(this.ids[i], true),
      cleared: () => { this.outline = null; this.hits = []; this.draw(); },
    });
  }

  get layer() { return META.layers[this.state.view]; }

  async start() {
    try {
      if (!globalThis.DecompressionStream) throw new Error("no DecompressionStream");
      this.scatter = new Scatter($("points"));
    } catch (error) {
      showNote(`There is no map in this browser (${error.message}); everything else is here.`);
    }
    addListeners(this);
    this.theme();
    try {
      await this.show();
    } catch (error) {
      showNote(`The data of this map cannot be read (${error.message}). Was the file cut off? \`embedkit analyze\` writes it again.`);
    }
  }

  /** Load and show everything that the state requests. */
  async show() {
    const now = ++this.generation, { state, layer } = this;
    this.updateControls();
    showTab(state.tab);
    if (!this.scatter || !(layer.axes.length || layer.map)) return;
    const name = (part) => `${state.view}-${part}`;
    const [x, y] = state.map === "umap" ? ["mapx", "mapy"] : [`pc${state.x}`, `pc${state.y}`];
    const found = await Promise.all([arrayOf(name(x)), arrayOf(name(y)), arrayOf(name("source"))]);
    if (now !== this.generation) return;
    [this.x, this.y, this.source] = found;
    [this.grid, this.outline, this.hits, this.hover] = [null, null, [], -1];
    [X, Y, SOURCE].forEach((location, at) => this.scatter.upload(location, found[at]));
    const hasPlaced = state.map === "umap" && META.types[name("placed")];
    this.scatter.upload(PLACED, null);
    this.showSources();
    await this.colours();
    if (now !== this.generation) return;
    this.paint(1);
    this.scatter.finish();
    $("stage").dataset.points = x;  // tests and the benchmark wait for this
    this.measureFrameTime();
    [this.ids, this.tokens, this.turns, this.texts, this.placed] = await Promise.all([
      decodeIds(name("id")), arrayOf(name("tokens")), arrayOf(name("turns")), carriedTexts(), hasPlaced ? arrayOf(name("placed")) : null,
    ]);
    if (now !== this.generation) return;
    this.scatter.upload(PLACED, this.placed);
    this.grid = new Grid(this.x, this.y);
    this.prefixes = new SharedPrefixes(this.texts, (id) => this.source[positionOf(this.ids, id)]);
    if (state.row !== null) this.open(state.row, false);
    if (state.q) this.search();
    this.draw();
    $("stage").dataset.ready = x;
  }

  /** Choose how many points to skip while the map moves. The first frame compiles shaders and is not measured. */
  measureFrameTime() {
    const began = performance.now();
    this.paint(1);
    this.scatter.finish();
    this.skip = Math.min(Math.max(Math.ceil((performance.now() - began) / FRAME_BUDGET), 1), MAX_SKIP);
  }

  /** Make the controls show the state. */
  updateControls() {
    const { state, layer } = this;
    $("view").value = state.view;
    $("map").replaceChildren(...(layer.map ? [htmlElement("option", { value: "umap", textContent: "UMAP" })] : []), htmlElement("option", { value: "pc", textContent: "principal components" }));
    $("map").value = state.map;
    for (const axis of ["x", "y"]) {
      $(axis).replaceChildren(...layer.axes.map((each, at) => htmlElement("option", { value: at + 1, textContent: each.label })));
      $(axis).value = state[axis];
      $(axis).parentElement.hidden = state.map === "umap";
    }
    $("colour").value = state.colour;
    $("search").value = state.q;
    $("notes").textContent = [...(state.map === "umap" ? layer.map.notes : []), ...layer.notes].join(" ");
    this.legend.show(layer, state.hidden, state.colour === "source");
  }

  async colours() {
    const { state, layer, scatter } = this;
    $("ramp").hidden = state.colour === "source";
    if (state.colour === "source") {
      scatter.setColours(layer.colours);
      scatter.upload(SHADE, this.source);
      return;
    }
    const numbers = await arrayOf(`${state.view}-${state.colour}`);
    const [min, max] = layer[state.colour];
    const [low, high] = [Math.log1p(min), Math.log1p(max)];
    const shades = Uint8Array.from(numbers, (number) => high > low ? 255 * ((Math.log1p(number) - low) / (high - low)) : 0);
    scatter.setColours([...Array(256).keys()].map((shade) => rampAt(shade / 255)));
    scatter.upload(SHADE, shades);
    const middle = Math.round(Math.expm1((low + high) / 2));
    $("ramp").replaceChildren(htmlElement("i"), ...[min, middle, max].map((number) => htmlElement("span", { textContent: formatCount(number) })), htmlElement("b", { textContent: state.colour }));
    $("ramp").firstChild.style.background = `linear-gradient(90deg, ${RAMP.map((colour) => `rgb(${colour})`)})`;
  }

  showSources() {
    if (!this.scatter) return;
    this.scatter.setShown(this.layer.sources.map((_, code) => !this.state.hidden.has(code)));
    this.draw();
  }

  /** The window on the data: its centre in data units, and its scale in pixels per data unit. */
  window() {
    const { clientWidth: width, clientHeight: height } = $("points");
    const [u, v, zoom] = this.state.at ?? [0.5, 0.5, 1];
    const [across, up] = this.state.map === "umap" ? [Math.min(width, height), Math.min(width, height)] : [width, height];
    return { width, height, u, v, zoom, scale: [across * FILL * zoom, up * FILL * zoom] };
  }

  /** Convert data units to pixels from the left and top edge of the canvas. `toData` converts back. */
  toScreen(u, v, window = this.window()) {
    return [window.width / 2 + (u - window.u) * window.scale[0], window.height / 2 - (v - window.v) * window.scale[1]];
  }

  toData(x, y, window = this.window()) {
    return [window.u + (x - window.width / 2) / window.scale[0], window.v - (y - window.height / 2) / window.scale[1]];
  }

  move(u, v, zoom) {
    const max = 20_000;
    this.state.at = [Math.min(Math.max(u, -0.5), 1.5), Math.min(Math.max(v, -0.5), 1.5), Math.min(Math.max(zoom, 0.3), max)];
    this.draw(true);
    this.save();
  }

  /** Zoom and keep the point under the pixel in place. */
  zoomAt(x, y, factor) {
    const window = this.window(), [u, v] = this.toData(x, y, window);
    const zoom = Math.min(Math.max(window.zoom * factor, 0.3), 20_000), kept = window.zoom / zoom;
    this.move(u + (window.u - u) * kept, v + (window.v - v) * kept, zoom);
  }

  /** Draw in the next frame. While the map moves, skip points to keep frames short. */
  draw(moving = false) {
    clearTimeout(this.resting);
    if (moving && this.skip > 1) this.resting = setTimeout(() => this.draw(), SETTLE_DELAY);
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.paint(moving ? this.skip : 1); });
  }

  paint(skip) {
    const canvas = $("points");
    if (!this.scatter || !canvas.clientWidth || !this.x) return;
    const ratio = devicePixelRatio, window = this.window();
    const [width, height] = [Math.round(window.width * ratio), Math.round(window.height * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const count = this.x.length;
    const size = Math.min(Math.max(7 - 1.25 * Math.log10(count / 100), 1.4) * window.zoom ** 0.3, 11) * ratio;
    this.scatter.draw({
      centre: [window.u, window.v], scale: window.scale.map((pixels, at) => (2 * pixels) / [window.width, window.height][at]),
      size, alpha: count > 100_000 ? 0.55 : 0.8, highlighted: this.highlighted, skip,
    });
    this.overlay(window);
  }

  overlay(window) {
    const parts = [];
    if (this.state.map === "pc") {
      const [x, y] = [this.layer.axes[this.state.x - 1], this.layer.axes[this.state.y - 1]];
      const value = (axis, unit) => axis.low + unit * (axis.high - axis.low);
      const [[left, top], [right, bottom]] = [this.toData(0, 0, window), this.toData(window.width, window.height, window)];
      const range = { left: value(x, left), right: value(x, right), bottom: value(y, bottom), top: value(y, top) };
      parts.push(...tickMarks(range, window.width, window.height));
      parts.push(svgElement("text", { x: window.width - 8, y: window.height - 22, class: "axis x" }, x.label));
      parts.push(svgElement("text", { x: 8, y: 16, class: "axis y" }, y.label));
    }
    if (this.outline) parts.push(svgElement("polygon", { points: this.outline.map(([u, v]) => this.toScreen(u, v, window)).join(" "), class: "outline" }));
    const ring = (i, kind) => {
      const [cx, cy] = this.toScreen(this.x[i] / LEVELS, this.y[i] / LEVELS, window);
      parts.push(svgElement("circle", { cx, cy, r: kind === "hit" ? 5 : 9, class: kind }));
    };
    for (const i of this.hits) ring(i, "hit");
    if (this.hover >= 0) ring(this.hover, "hover");
    const at = this.ids && this.state.row !== null ? positionOf(this.ids, this.state.row) : -1;
    if (at >= 0) ring(at, "open");
    if (document.activeElement === $("points")) parts.push(svgElement("path", { d: `M${window.width / 2 - 8} ${window.height / 2}h16m-8-8v16`, class: "cross" }));
    $("over").replaceChildren(...parts);
  }

  isShown(i) { return !this.state.hidden.has(this.source[i]); }

  /** The point at a pixel of the canvas, or -1. */
  pick(x, y) {
    if (!this.grid) return -1;
    const window = this.window(), [u, v] = this.toData(x, y, window);
    return this.grid.nearest(u, v, window.scale, PICK_RADIUS, (i) => this.isShown(i));
  }

  hoverAt(x, y) {
    const at = x === null ? -1 : this.pick(x, y);
    const tip = $("tip");
    tip.hidden = at < 0;
    if (at >= 0) {
      const texts = this.texts.at.get(this.ids[at]), placed = this.placed?.[at] ? ", placed among its nearest" : "";
      tip.replaceChildren(htmlElement("b", { textContent: this.layer.sources[this.source[at]] }), htmlElement("div", { textContent: `id ${this.ids[at]}, ${formatCount(this.tokens[at])} tokens${placed}` }),
        htmlElement("div", { textContent: texts === undefined ? "" : this.promptOf(at, texts, 160) }));
      const left = x > $("points").clientWidth / 2 ? x - tip.offsetWidth - 14 : x + 14;
      tip.style.transform = `translate(${Math.max(left, 0)}px, ${Math.max(Math.min(y + 12, $("points").clientHeight - tip.offsetHeight), 0)}px)`;
    }
    if (at !== this.hover) { this.hover = at; if (this.x) this.overlay(this.window()); }
  }

  describe(i) {
    const at = this.texts.at.get(this.ids[i]), name = `${this.ids[i]}  ${this.layer.sources[this.source[i]]}`;
    if (at === undefined) return name;
    const word = this.words?.[0], columns = Object.values(this.texts.columns);
    const found = word && columns.find((column) => column[at].toLowerCase().includes(word));
    return `${name}  ${found ? excerpt(found[at], word, 90) : this.promptOf(i, at, 90)}`;
  }

  /** The start of a row's prompt, without its source's shared prefix. at: its position in the carried texts. */
  promptOf(i, at, length) { return this.prefixes.start(firstTexts(this.texts)[at], this.source[i], length); }

  isInWindow(u, v) {
    const window = this.window(), [x, y] = this.toScreen(u, v, window);
    return x > 0 && y > 0 && x < window.width && y < window.height;
  }

  /** Show a row by its id. centre: move the map to the row if it is outside the window. */
  open(id, centre) {
    const panel = $("row"), i = this.ids ? positionOf(this.ids, id) : -1;
    this.state.row = id;
    if (i < 0) {
      panel.replaceChildren(htmlElement("p", { textContent: `No row of this page has the id ${id}.` }));
      panel.hidden = false;
    } else {
      const scores = this.state.map === "pc" ? [["x", this.x], ["y", this.y]].map(([axis, units]) => {
        const { label, low, high } = this.layer.axes[this.state[axis] - 1];
        return [label.split(" ")[0], (low + (units[i] / LEVELS) * (high - low)).toPrecision(3)];
      }) : [];
      const row = { id, source: this.layer.sources[this.source[i]], tokens: this.tokens[i], turns: this.turns[i], scores };
      showRow(panel, row, this.texts).addEventListener("click", () => this.close());
      const [u, v] = [this.x[i] / LEVELS, this.y[i] / LEVELS];
      if (centre && !this.isInWindow(u, v)) this.move(u, v, this.window().zoom);
    }
    this.save();
    this.draw();
  }

  close() {
    this.state.row = null;
    $("row").hidden = true;
    this.save();
    this.draw();
  }

  choose(polygon, title) {
    if (!this.grid) return;
    this.outline = polygon;
    [this.hits, this.words] = [[], []];
    this.list.show(title, this.grid.within(polygon, (i) => this.isShown(i)));
    this.draw();
  }

  inView() {
    const window = this.window();
    const [[left, top], [right, bottom]] = [this.toData(0, 0, window), this.toData(window.width, window.height, window)];
    this.choose([[left, top], [right, top], [right, bottom], [left, bottom]], "rows in view");
  }

  /** Find the rows whose carried texts contain every word, in any case. */
  search() {
    if (!this.grid) return;
    const words = this.words = this.state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const { id, columns } = this.texts;
    const found = words.length ? id.filter((_, at) => {
      const all = Object.values(columns).map((column) => column[at]).join("\n").toLowerCase();
      return words.every((word) => all.includes(word));
    }) : [];
    const positions = Uint32Array.from(found.map((each) => positionOf(this.ids, each)).filter((i) => i >= 0 && this.isShown(i)));
    this.outline = null;
    this.hits = [...positions.slice(0, MAX_LISTED)];
    this.list.show(words.length ? `of ${formatCount(id.length)} rows with texts have ${words.map((word) => `"${word}"`).join(" and ")}` : "", positions);
    this.draw();
  }

  saveRows() {
    const lines = Array.from(this.list.positions, (i) => [this.ids[i], this.layer.sources[this.source[i]], this.tokens[i], this.turns[i]]);
    saveCsv(`${META.run}-rows.csv`, ["id", "dataset_source", "num_tokens", "num_turns"], lines);
  }

  /** Write the state to the address, but not in every frame, which browsers refuse. */
  save() {
    clearTimeout(this.saving);
    this.saving = setTimeout(() => {
      this.state.at &&= this.state.at.map((number) => +number.toPrecision(9));  // as in the link
      this.link = toLink(this.state);
      history.replaceState(null, "", this.link);
    }, 100);
  }

  /** Follow an address that a link or a person changed. */
  async follow() {
    if (location.hash === this.link) return;
    clearTimeout(this.saving);
    const row = onlyRow(location.hash);
    if (row === null) this.state = fromLink(location.hash);
    else Object.assign(this.state, { row, tab: "map" });
    this.theme();
    await this.show();
    if (row !== null && this.ids) this.open(row, true);
  }

  theme() {
    document.documentElement.dataset.theme = this.state.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    restyleFigures();
  }
}

function showNote(text) { $("stage").append(htmlElement("p", { className: "note", textContent: text })); }

function rampAt(share) {
  const at = Math.min(Math.floor(share * (RAMP.length - 1)), RAMP.length - 2), rest = share * (RAMP.length - 1) - at;
  return RAMP[at].map((low, part) => Math.round(low + (RAMP[at + 1][part] - low) * rest));
}

/** Ids from their stored differences. */
async function decodeIds(name) {
  const ids = Uint32Array.from(await arrayOf(name));
  for (let i = 1; i < ids.length; i++) ids[i] += ids[i - 1];
  return ids;
}

/** The position of an id among ascending ids, or -1. */
function positionOf(ids, id) {
  let low = 0, high = ids.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ids[middle] < id) low = middle + 1; else high = middle;
  }
  return ids[low] === id ? low : -1;
}

const atlas = new Atlas();
atlas.start();
