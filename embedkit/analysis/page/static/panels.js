"use strict";
// The panels beside the map: legend, selected rows, texts of one row. Texts come from the data and are set only as
// textContent.

const MAX_LISTED = 200;

/** An element with properties and children. */
function htmlElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const formatCount = (number) => number.toLocaleString("en-US");
const truncate = (text, length) => (text.length > length ? `${text.slice(0, length)} ...` : text);

const MIN_SHARED = 40;  // characters; a shorter shared prefix is not left out

/** The prefix that all carried prompts of a source share. The part that differs comes after it. */
class SharedPrefixes {
  /** texts: as `carriedTexts` returns them. sourceOf(id): the source of a row. */
  constructor(texts, sourceOf) {
    this.shared = new Map();
    const prompts = firstTexts(texts);
    texts.id.forEach((id, at) => {
      const source = sourceOf(id), prompt = prompts[at], prefix = this.shared.get(source);
      let sharedLength = 0;
      if (prefix === undefined) sharedLength = prompt.length;
      else while (sharedLength < prefix.length && prefix[sharedLength] === prompt[sharedLength]) sharedLength++;
      this.shared.set(source, prompt.slice(0, sharedLength));
    });
  }

  /** The start of a prompt, without the prefix that its source shares. */
  start(prompt, source, length) {
    const shared = this.shared.get(source) ?? "";
    const from = shared.length < MIN_SHARED || shared.length >= prompt.length ? 0 : Math.max(shared.lastIndexOf(" ") + 1, 0);
    return (from ? "... " : "") + truncate(prompt.slice(from), length);
  }
}

/** The text around the first occurrence of a word, in any case. */
function excerpt(text, word, length) {
  const from = Math.max(text.toLowerCase().indexOf(word) - 16, 0);
  return (from ? "... " : "") + truncate(text.slice(from), length);
}

/** The sources, the largest first, each with a box. Calls changed(hidden codes) and highlighted(code or -1). */
class Legend {
  constructor(list, filter, { changed, highlighted }) {
    Object.assign(this, { list, filter, changed, highlighted });
    filter.addEventListener("input", () => this.applyFilter());
  }

  show(layer, hidden, byColour) {
    const largestFirst = [...layer.sources.keys()].sort((a, b) => layer.counts[b] - layer.counts[a] || a - b);
    this.boxes = new Map();
    this.list.replaceChildren(...largestFirst.map((code) => this.line(layer, code, hidden, byColour)));
    this.filter.hidden = layer.sources.length < 12;
    this.applyFilter();
  }

  line(layer, code, hidden, byColour) {
    const box = htmlElement("input", { type: "checkbox", checked: !hidden.has(code) });
    const swatch = htmlElement("span", { className: "swatch" });
    if (byColour) swatch.style.background = `rgb(${layer.colours[code]})`;
    const name = htmlElement("span", { className: "name", textContent: layer.sources[code], title: layer.sources[code] });
    const only = htmlElement("button", { type: "button", className: "only", textContent: "only", title: `only ${layer.sources[code]}` });
    const line = htmlElement("li", {}, htmlElement("label", {}, box, swatch, name, htmlElement("span", { className: "count", textContent: formatCount(layer.counts[code]) })), only);
    line.dataset.source = layer.sources[code].toLowerCase();
    this.boxes.set(code, box);
    box.addEventListener("change", () => this.notify());
    only.addEventListener("click", () => this.setAll((each) => each === code));
    for (const [event, highlighted] of [["pointerenter", code], ["pointerleave", -1], ["focusin", code], ["focusout", -1]]) {
      line.addEventListener(event, () => this.highlighted(highlighted));
    }
    return line;
  }

  applyFilter() {
    const wanted = this.filter.value.trim().toLowerCase();
    for (const line of this.list.children) line.hidden = !line.dataset.source.includes(wanted);
  }

  setAll(shown) {
    for (const [code, box] of this.boxes) box.checked = shown(code);
    this.notify();
  }

  notify() { this.changed(new Set([...this.boxes].filter(([, box]) => !box.checked).map(([code]) => code))); }
}

/** Rows that were found or selected. The first ones are listed and can be clicked. */
class RowList {
  constructor({ title, list, save, clear }, { describe, go, cleared }) {
    Object.assign(this, { title, list, save, clear, describe, go });
    this.positions = new Uint32Array(0);
    clear.addEventListener("click", () => { this.show("", new Uint32Array(0)); cleared(); });
  }

  show(title, positions) {
    this.positions = positions;
    const remark = positions.length > MAX_LISTED ? `; the first ${MAX_LISTED} are listed, the CSV has all` : "";
    this.title.textContent = title && `${formatCount(positions.length)} ${title}${remark}`;
    this.save.hidden = !positions.length;
    this.clear.hidden = !title;
    this.list.replaceChildren(...[...positions.slice(0, MAX_LISTED)].map((i) => {
      const button = htmlElement("button", { type: "button", textContent: this.describe(i) });
      button.addEventListener("click", () => this.go(i));
      return htmlElement("li", {}, button);
    }));
  }
}

/** Show one row: its facts, and its texts or the command that prints them. */
function showRow(panel, row, texts) {
  const facts = [["source", row.source], ["tokens", formatCount(row.tokens)], ...(row.turns ? [["turns", formatCount(row.turns)]] : []), ...row.scores];
  const close = htmlElement("button", { type: "button", id: "close", textContent: "close" });
  panel.replaceChildren(
    htmlElement("h2", { textContent: `Row with id ${row.id}` }), close,
    htmlElement("dl", {}, ...facts.flatMap(([name, value]) => [htmlElement("dt", { textContent: name }), htmlElement("dd", { textContent: value })])),
  );
  const at = texts.at.get(row.id);
  if (at === undefined) {
    panel.append(htmlElement("p", { textContent: "This page does not carry its texts. To print them:" }));
  } else {
    for (const [name, column] of Object.entries(texts.columns)) {
      const length = texts.lengths[name][at];
      if (!length) continue;
      const more = length > column[at].length ? `, ${formatCount(length)} characters, cut here` : "";
      panel.append(htmlElement("h3", { textContent: name + more }), htmlElement("pre", { textContent: column[at] }));
    }
    panel.append(htmlElement("p", { textContent: "To print it whole, with the rows nearest to it:" }));
  }
  panel.append(htmlElement("pre", { className: "command", textContent: `embedkit neighbors ${shellWord(META.run)} --id ${row.id} --full-texts` }));
  panel.hidden = false;
  return close;
}

/** A run's name as a word for the shell. `./` keeps a leading dash from being an option. */
function shellWord(name) {
  const word = name.startsWith("-") ? `./${name}` : name;
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** Text for a cell of a spreadsheet. An apostrophe keeps text that begins like a formula from being run as one. */
const asText = (text) => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);

/** Have the browser save lines as a CSV file. */
function saveCsv(name, header, lines) {
  const quoted = (value) => (typeof value === "number" ? value : `"${asText(String(value)).replaceAll('"', '""')}"`);
  const text = [header, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  htmlElement("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
