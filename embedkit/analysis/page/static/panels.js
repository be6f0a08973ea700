"use strict";
// What stands beside the map: legend, rows that were chosen, one row's texts. Texts come from data and are only ever set
// as textContent.

const MOST_LISTED = 200;

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const counted = (number) => number.toLocaleString("en-US");
const cut = (text, length) => (text.length > length ? `${text.slice(0, length)} ...` : text);

const SHARED = 40;  // characters from which a beginning that a source's prompts share is left out

/** How the prompts of each source begin, if many of them do so: what tells them apart stands behind that. */
class Beginnings {
  /** texts: as carried; sourceOf: a row's source by its id. */
  constructor(texts, sourceOf) {
    this.shared = new Map();
    texts.id.forEach((id, at) => {
      const source = sourceOf(id), prompt = texts.columns.prompt[at], before = this.shared.get(source);
      let same = 0;
      if (before === undefined) same = prompt.length;
      else while (same < before.length && before[same] === prompt[same]) same++;
      this.shared.set(source, prompt.slice(0, same));
    });
  }

  /** A prompt's start, or what follows the beginning that it shares with its source. */
  start(prompt, source, length) {
    const shared = this.shared.get(source) ?? "";
    const from = shared.length < SHARED || shared.length >= prompt.length ? 0 : Math.max(shared.lastIndexOf(" ") + 1, 0);
    return (from ? "... " : "") + cut(prompt.slice(from), length);
  }
}

/** The text around the first of the words, whatever its case. */
function around(text, word, length) {
  const from = Math.max(text.toLowerCase().indexOf(word) - 16, 0);
  return (from ? "... " : "") + cut(text.slice(from), length);
}

/** The sources, the largest first, each with a box. changed(hidden), lit(code or -1) are told what is done. */
class Legend {
  constructor(list, filter, { changed, lit }) {
    Object.assign(this, { list, filter, changed, lit });
    filter.addEventListener("input", () => this.narrow());
  }

  show(layer, hidden, byColour) {
    const largestFirst = [...layer.sources.keys()].sort((a, b) => layer.counts[b] - layer.counts[a] || a - b);
    this.boxes = new Map();
    this.list.replaceChildren(...largestFirst.map((code) => this.line(layer, code, hidden, byColour)));
    this.filter.hidden = layer.sources.length < 12;
    this.narrow();
  }

  line(layer, code, hidden, byColour) {
    const box = make("input", { type: "checkbox", checked: !hidden.has(code) });
    const swatch = make("span", { className: "swatch" });
    if (byColour) swatch.style.background = `rgb(${layer.colours[code]})`;
    const name = make("span", { className: "name", textContent: layer.sources[code], title: layer.sources[code] });
    const only = make("button", { type: "button", className: "only", textContent: "only", title: `only ${layer.sources[code]}` });
    const line = make("li", {}, make("label", {}, box, swatch, name, make("span", { className: "count", textContent: counted(layer.counts[code]) })), only);
    line.dataset.source = layer.sources[code].toLowerCase();
    this.boxes.set(code, box);
    box.addEventListener("change", () => this.tell());
    only.addEventListener("click", () => this.setAll((each) => each === code));
    for (const [event, lit] of [["pointerenter", code], ["pointerleave", -1], ["focusin", code], ["focusout", -1]]) {
      line.addEventListener(event, () => this.lit(lit));
    }
    return line;
  }

  narrow() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const line of this.list.children) line.hidden = !line.dataset.source.includes(wanted);
  }

  setAll(shown) {
    for (const [code, box] of this.boxes) box.checked = shown(code);
    this.tell();
  }

  tell() { this.changed(new Set([...this.boxes].filter(([, box]) => !box.checked).map(([code]) => code))); }
}

/** Rows that were found or chosen, the first of them to click. */
class RowList {
  constructor({ title, list, save, clear }, { describe, go, cleared }) {
    Object.assign(this, { title, list, save, clear, describe, go });
    this.positions = new Uint32Array(0);
    clear.addEventListener("click", () => { this.show("", new Uint32Array(0)); cleared(); });
  }

  show(title, positions) {
    this.positions = positions;
    const further = positions.length > MOST_LISTED ? `; the first ${MOST_LISTED} are listed, the CSV has all` : "";
    this.title.textContent = title && `${counted(positions.length)} ${title}${further}`;
    this.save.hidden = !positions.length;
    this.clear.hidden = !title;
    this.list.replaceChildren(...[...positions.slice(0, MOST_LISTED)].map((i) => {
      const button = make("button", { type: "button", textContent: this.describe(i) });
      button.addEventListener("click", () => this.go(i));
      return make("li", {}, button);
    }));
  }
}

/** One row: what is known of it, and its texts or the command that prints them. */
function showRow(panel, row, texts) {
  const facts = [["source", row.source], ["tokens", counted(row.tokens)], ["turns", counted(row.turns)], ...row.scores];
  const close = make("button", { type: "button", id: "close", textContent: "close" });
  panel.replaceChildren(
    make("h2", { textContent: `Row with id ${row.id}` }), close,
    make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })])),
  );
  const at = texts.at.get(row.id);
  if (at === undefined) {
    panel.append(make("p", { textContent: "This page does not carry its texts. To print them:" }));
  } else {
    for (const [name, column] of Object.entries(texts.columns)) {
      const length = texts.lengths[name][at];
      if (!length) continue;
      const more = length > column[at].length ? `, ${counted(length)} characters, cut here` : "";
      panel.append(make("h3", { textContent: name + more }), make("pre", { textContent: column[at] }));
    }
    panel.append(make("p", { textContent: "To print it whole, with the rows nearest to it:" }));
  }
  panel.append(make("pre", { className: "command", textContent: `embedkit neighbors ${META.run} --id ${row.id} --full-texts` }));
  panel.hidden = false;
  return close;
}

/** Rows as a CSV file that the browser saves. */
function saveCsv(name, header, lines) {
  const quoted = (value) => (typeof value === "number" ? value : `"${String(value).replaceAll('"', '""')}"`);
  const text = [header, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
