// The beginning of each row's prompt, on one line. All are one array of UTF-8 bytes in the file, and strings of some
// thousand rows here: a string for each row would need several times the memory.

const SEPARATOR = "\x1e";  // between snippets: ASCII's record separator, which no snippet has
const CHUNK_BYTES = 1 << 20;

/** @typedef {{ first: number, text: string }} Chunk snippets of the rows from `first` on, each before a separator */

export class Snippets {
  /**
   * @param {Uint8Array} bytes of all snippets
   * @param {number} count of the snippets
   * @param {number} characters to which they were cut
   */
  constructor(bytes, count, characters) {
    this.characters = characters;
    /** @type {Chunk[]} */
    this.chunks = [];
    /** Where each snippet begins in the text of its chunk. */
    this.starts = new Uint32Array(count);
    let row = 0;
    for (const text of decoded(bytes)) {
      this.chunks.push({ first: row, text });
      for (let start = 0; start < text.length; start = text.indexOf(SEPARATOR, start) + 1) this.starts[row++] = start;
    }
  }

  /**
   * The snippet of a row, at most `length` characters of it.
   * @param {number} i
   * @param {number} length
   */
  at(i, length) {
    const { text } = this.chunks[this.chunks.findLastIndex(({ first }) => first <= i)], start = this.starts[i];
    const whole = text.slice(start, text.indexOf(SEPARATOR, start)), shown = whole.slice(0, length);
    return shown + (whole.length > shown.length || whole.length >= this.characters ? " ..." : "");
  }

  /**
   * Whether each row's snippet matches, 1 or 0.
   * @param {string} pattern of a regular expression; upper and lower case are the same
   */
  matching(pattern) {
    const { chunks, starts } = this, found = new Uint8Array(starts.length), regex = new RegExp(pattern, "giu");
    chunks.forEach(({ first, text }, at) => {
      const stop = chunks[at + 1]?.first ?? starts.length;
      regex.lastIndex = 0;
      for (let row = first; row < stop && regex.test(text); row++) {
        while (row + 1 < stop && starts[row + 1] < regex.lastIndex) row++;
        found[row] = 1;
        regex.lastIndex = starts[row + 1];  // one match in a row is enough
      }
    });
    return found;
  }
}

/**
 * The texts of the chunks. The last one gets the separator that the file does not have.
 * @param {Uint8Array} bytes
 */
function* decoded(bytes) {
  const code = SEPARATOR.charCodeAt(0);
  for (let start = 0; start <= bytes.length;) {
    const last = bytes.indexOf(code, start + CHUNK_BYTES), end = last < 0 ? bytes.length : last;
    yield new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(start, end)) + SEPARATOR;
    start = end + 1;
  }
}
