// What two linked maps send each other, by way of the page that has both as frames.

/**
 * @typedef {object} Parts of a half's state; one that is missing has not changed
 * @property {number | null} [row] id of the open row
 * @property {Uint32Array | null} [ids] of the rows that are selected without the search, null for no selection
 * @property {string} [q] the search
 * @property {import("./state.js").State["by"]} [by] what it looks for
 * @property {string} [theme]
 * @property {true} [clear] whether nothing shall be selected any more
 */

// Pages from disk have the origin "null", to which nothing can be posted.
const TARGET = self.origin === "null" ? "*" : self.origin;
/** @type {Record<string, (value: any) => boolean>} */
const CHECKS = {
  row: (value) => value === null || (Number.isInteger(value) && value >= 0 && value < 2 ** 32),
  ids: (value) => value === null || value instanceof Uint32Array,
  q: (value) => typeof value === "string",
  by: (value) => ["words", "pattern", "meaning"].includes(value),
  theme: (value) => ["", "light", "dark"].includes(value),
  clear: (value) => value === true,
};

/**
 * @param {Window} to
 * @param {Parts} parts
 */
export function post(to, parts) { to.postMessage({ linked: parts }, TARGET); }

/**
 * Call a function with the valid parts of each message of one window.
 * @param {Window | null} from
 * @param {(parts: Parts) => void} onParts
 */
export function listen(from, onParts) {
  addEventListener("message", ({ source, origin, data }) => {
    if (source !== from || origin !== self.origin || typeof data?.linked !== "object") return;
    onParts(Object.fromEntries(Object.entries(data.linked ?? {})
      .filter(([name, value]) => Object.hasOwn(CHECKS, name) && CHECKS[name](value))));
  });
}
