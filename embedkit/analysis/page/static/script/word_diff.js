// The words in which two texts differ: the shortest edit script, by the greedy algorithm of Myers, "An O(ND) Difference
// Algorithm and Its Variations", Algorithmica 1 (1986). Its work is at most the square of the number of edits.

/**
 * @typedef {object} Piece a part of both texts, or of one
 * @property {"same" | "removed" | "added"} kind
 * @property {string} first the part in the first text, "" if it was added
 * @property {string} second the part in the second text; of the same words, white space may differ
 */

// A word is a run of letters and digits, perhaps with a minus, or with points within it; or any other character.
// Thai, Lao, Burmese, Khmer, kana and Han: each character is a word, as in embedkit.analysis.findings.words.
const UNSPACED = "\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff"
  + "\\uf900-\\ufaff";
const LETTER = `(?:(?![${UNSPACED}])[\\p{L}\\p{N}\\p{M}_])`;
const WORD = new RegExp(`\\s*(?:[-−]?${LETTER}+(?:[.'’]${LETTER}+)*|\\S)(?:\\s+$)?|^\\s+$`, "gu");
const MAX_EDITS = 1500;  // under a tenth of a second of work
const SHORT = 40;  // words of two texts that are compared however much they differ
const MOST_DIFFERENT = 0.5;  // share of the words of longer texts that may differ
const [SAME, REMOVED, ADDED] = [0, 1, 2];

/**
 * The pieces of two texts, in order: the `first` parts together are the first text, the `second` parts the second.
 * White space does not count. null if the texts differ in too many words.
 * @param {string} first
 * @param {string} second
 * @returns {Piece[] | null}
 */
export function wordDiff(first, second) {
  const a = wordsOf(first), b = wordsOf(second);
  /** @type {Map<string, number>} */
  const codes = new Map();
  const encode = (/** @type {string[]} */ words) => Int32Array.from(words, (word) => {
    const key = word.trim(), code = codes.get(key) ?? codes.size;
    codes.set(key, code);
    return code;
  });
  const x = encode(a), y = encode(b), begin = commonBegin(x, y);
  const end = commonBegin(x.subarray(begin).toReversed(), y.subarray(begin).toReversed());
  const total = a.length + b.length;
  const most = total <= SHORT ? total : Math.min(MAX_EDITS, Math.floor(MOST_DIFFERENT * total));
  const edits = shortestEdits(x.subarray(begin, x.length - end), y.subarray(begin, y.length - end), most);
  return edits && piecesOf(a, b, [...Array(begin).fill(SAME), ...edits, ...Array(end).fill(SAME)]);
}

/**
 * The words of a text with the white space before them. Together they are the text.
 * @param {string} text
 * @returns {string[]}
 */
export function wordsOf(text) { return text.match(WORD) ?? []; }

/**
 * Numbers that both begin with.
 * @param {Int32Array} x
 * @param {Int32Array} y
 */
function commonBegin(x, y) {
  let at = 0;
  while (at < x.length && at < y.length && x[at] === y[at]) at++;
  return at;
}

/**
 * The edits that make y of x, or null if they are more than `most`.
 * @param {Int32Array} x
 * @param {Int32Array} y
 * @param {number} most
 */
function shortestEdits(x, y, most) {
  // On diagonal k = i - j, the furthest i that d edits reach.
  const furthest = new Int32Array(2 * most + 3), middle = most + 1;
  const rounds = [];
  for (let d = 0; d <= most; d++) {
    rounds.push(furthest.slice(middle - d - 1, middle + d + 2));
    for (let k = -d; k <= d; k += 2) {
      let i = isAddition(rounds[d], d, k) ? furthest[middle + k + 1] : furthest[middle + k - 1] + 1;
      while (i < x.length && i - k < y.length && x[i] === y[i - k]) i++;
      furthest[middle + k] = i;
      if (i >= x.length && i - k >= y.length) return backwards(rounds, x.length, y.length);
    }
  }
  return null;
}

/**
 * Whether the furthest path to a diagonal ends with an addition.
 * @param {Int32Array} before the furthest places before round d, of diagonals -d - 1 to d + 1
 * @param {number} d
 * @param {number} k
 */
function isAddition(before, d, k) { return k === -d || (k !== d && before[k + d] < before[k + d + 2]); }

/**
 * The edits of the path that ends at (i, j).
 * @param {Int32Array[]} rounds
 * @param {number} i
 * @param {number} j
 */
function backwards(rounds, i, j) {
  const edits = [];
  for (let d = rounds.length - 1; d > 0; d--) {
    const before = rounds[d], k = i - j, isAdded = isAddition(before, d, k), from = isAdded ? k + 1 : k - 1;
    const start = before[from + d + 1];
    for (; i > start && j > start - from; i--, j--) edits.push(SAME);
    edits.push(isAdded ? ADDED : REMOVED);
    [i, j] = [start, start - from];
  }
  return [...edits, ...Array(i).fill(SAME)].reverse();
}

/**
 * Pieces of as many words as possible; what was removed comes before what was added in its place.
 * @param {string[]} a
 * @param {string[]} b
 * @param {number[]} edits
 */
function piecesOf(a, b, edits) {
  /** @type {Piece[]} */
  const pieces = [];
  let i = 0, j = 0;
  for (let at = 0; at < edits.length;) {
    const [startA, startB, isSame] = [i, j, edits[at] === SAME];
    for (; at < edits.length && (edits[at] === SAME) === isSame; at++) {
      if (edits[at] !== ADDED) i++;
      if (edits[at] !== REMOVED) j++;
    }
    const first = a.slice(startA, i).join(""), second = b.slice(startB, j).join("");
    if (isSame) pieces.push({ kind: "same", first, second });
    if (!isSame && i > startA) pieces.push({ kind: "removed", first, second: "" });
    if (!isSame && j > startB) pieces.push({ kind: "added", first: "", second });
  }
  return pieces;
}
