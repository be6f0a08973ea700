// Names that are cut in the middle, as their ends often tell them apart.

const GRAPHEMES = "Segmenter" in Intl ? new Intl.Segmenter() : null;  // not in every browser of 2023

/** @param {string} text */
const charactersOf = (text) => (GRAPHEMES ? Array.from(GRAPHEMES.segment(text), ({ segment }) => segment) : [...text]);

/**
 * A name with at most `length` characters, as people count them.
 * @param {string} name
 * @param {number} length
 */
export function shortName(name, length) {
  if (name.length <= length) return name;
  const characters = charactersOf(name);
  if (characters.length <= length) return name;
  const tail = Math.floor((length - 1) / 3), head = length - 1 - tail;
  return `${characters.slice(0, head).join("").trimEnd()}…${characters.slice(-tail).join("").trimStart()}`;
}
