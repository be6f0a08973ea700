// The groups of a view, on one to three levels: which rows they have, which are selected, and how to select one.

import { META } from "./data.js";

/**
 * @typedef {import("./state.js").State} State
 * @typedef {[number, number]} Place in data units
 *
 * @typedef {object} LevelDescription
 * @property {string} level coarse, middle or fine
 * @property {string[]} names by group
 * @property {number[]} rows
 * @property {[number, number][][]} sources code and share of the largest ones
 * @property {(number | null)[]} examples id of a row
 * @property {number[]} ofFine the group of each fine group
 * @property {(Place | null)[] | null} places on the UMAP
 *
 * @typedef {LevelDescription & { members: number[][] }} Level members: the fine groups of each group
 * @typedef {{ depth: number, group: number }} Group a position among the levels, and a number on that level
 */

export const COLUMN = "group";  // of the fine groups
const TIP_SOURCES = 3;
const SPREAD_ROWS = 4000;  // of a group, from which its extent is measured
const TAIL = 0.02;  // share of the rows on each side that an extent leaves out
const SAMPLED_ROWS = 400;  // of a group, from which its place among components is measured

/** @type {Map<number, Level[]>} */
const known = new Map();

/**
 * The levels of a view, the coarsest first; none without groups.
 * @param {number} view
 */
export function levelsOf(view) {
  const found = known.get(view) ?? META.layers[view].groups.map((level) => ({ ...level, members: membersOf(level) }));
  known.set(view, found);
  return found;
}

/** @param {LevelDescription} level */
function membersOf({ names, ofFine }) {
  /** @type {number[][]} */
  const members = names.map(() => []);
  ofFine.forEach((group, fine) => members[group].push(fine));
  return members;
}

/**
 * The groups of the next level in a group, or of the coarsest level, the largest first.
 * @param {Level[]} levels
 * @param {Group | null} parent
 * @returns {Group[]}
 */
export function childrenOf(levels, parent) {
  const depth = parent ? parent.depth + 1 : 0, level = levels[depth];
  if (!level) return [];
  const fine = parent ? levels[parent.depth].members[parent.group] : level.ofFine.keys();
  const found = [...new Set(Array.from(fine, (each) => level.ofFine[each]))];
  return found.sort((a, b) => level.rows[b] - level.rows[a] || a - b).map((group) => ({ depth, group }));
}

/**
 * Whether exactly the rows of a group are selected by their group.
 * @param {State} state
 * @param {number[]} members its fine groups
 */
export function isSelected({ picks }, members) {
  const picked = picks[COLUMN];
  return Boolean(picked) && picked.size === members.length && members.every((fine) => picked.has(fine));
}

/**
 * The name of the coarsest group that has exactly these fine groups, or null if none has.
 * @param {number} view
 * @param {Set<number>} fine
 */
export function selectedName(view, fine) {
  for (const { members, names } of levelsOf(view)) {
    const at = members.findIndex((each) => each.length === fine.size && each.every((one) => fine.has(one)));
    if (at >= 0) return names[at];
  }
  return null;
}

/**
 * Select a group, or no group if it is selected.
 * @param {import("./session.js").Session} session
 * @param {number[]} members its fine groups
 */
export function toggleGroup(session, members) {
  const { [COLUMN]: _, ...others } = session.state.picks;
  const picks = isSelected(session.state, members) ? others : { ...others, [COLUMN]: new Set(members) };
  session.update({ picks });
}

/**
 * Rows of shown sources by fine group.
 * @param {import("./rows.js").Rows} rows
 * @param {Set<number>} hidden codes of sources
 * @param {Level} finest
 */
export function shownByFine({ columns, source }, hidden, finest) {
  if (!hidden.size) return Uint32Array.from(finest.rows);
  const counts = new Uint32Array(finest.names.length + 1), levels = columns.get(COLUMN)?.levels ?? [];
  for (let i = 0; i < levels.length; i++) if (!hidden.has(source[i])) counts[levels[i]]++;
  return counts.subarray(1);
}

/**
 * The place of each group of a level on the map that is shown: the one in the file for the UMAP, else the median of
 * some of its rows.
 * @param {import("./rows.js").Rows} rows
 * @param {Level} level
 * @returns {(Place | null)[]}
 */
export function placesOf({ map, columns, x, y }, level) {
  if (map === "umap" && level.places) return level.places;
  const of = columns.get(COLUMN)?.levels ?? [], seen = new Uint32Array(level.names.length);
  const strides = level.rows.map((count) => Math.ceil(count / SAMPLED_ROWS));
  /** @type {number[][]} */
  const found = level.names.map(() => []);
  for (let i = 0; i < of.length; i++) {
    if (!of[i]) continue;
    const group = level.ofFine[of[i] - 1];
    if (seen[group]++ % strides[group] === 0) found[group].push(i);
  }
  return found.map((at) => (at.length ? [quantile(x, at, 0.5), quantile(y, at, 0.5)] : null));
}

/**
 * The box, as [left, bottom, right, top], that has nearly all rows of some fine groups; null without rows.
 * @param {import("./rows.js").Rows} rows
 * @param {number[]} members
 * @returns {[number, number, number, number] | null}
 */
export function extentOf({ columns, x, y }, members) {
  const of = columns.get(COLUMN)?.levels ?? [], wanted = new Set(members.map((fine) => fine + 1));
  /** @type {number[]} */
  const all = [];
  for (let i = 0; i < of.length; i++) if (of[i] && wanted.has(of[i])) all.push(i);
  if (!all.length) return null;
  const stride = Math.ceil(all.length / SPREAD_ROWS), at = all.filter((_, each) => each % stride === 0);
  return [quantile(x, at, TAIL), quantile(y, at, TAIL), quantile(x, at, 1 - TAIL), quantile(y, at, 1 - TAIL)];
}

/**
 * @param {Float32Array} values
 * @param {number[]} at positions of some of them
 * @param {number} share
 */
function quantile(values, at, share) {
  const sorted = Float32Array.from(at, (i) => values[i]).sort();
  return sorted[Math.round(share * (sorted.length - 1))];
}

/**
 * The largest sources of a group, each with its share.
 * @param {import("./data.js").Layer} layer
 * @param {Level} level
 * @param {number} group
 */
export function sourcesText({ sources }, level, group) {
  return level.sources[group].slice(0, TIP_SOURCES)
    .map(([code, share]) => `${sources[code]} ${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`).join(", ");
}
