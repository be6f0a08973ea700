// A spatial index of the points: a grid over the unit square, filled by a counting sort. Picking one of millions of
// points is as fast as picking one of a few.

/**
 * @typedef {[number, number]} Place in data units, from 0 to 1
 */

const CELLS = 512;

export class Grid {
  /**
   * @param {Float32Array} x from 0 to 1
   * @param {Float32Array} y of the same length
   */
  constructor(x, y) {
    this.x = x;
    this.y = y;
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let i = 0; i < x.length; i++) this.starts[cellOf(x[i], y[i]) + 1]++;
    for (let cell = 0; cell < CELLS * CELLS; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice(0, -1);
    this.order = new Uint32Array(x.length);
    for (let i = 0; i < x.length; i++) this.order[next[cellOf(x[i], y[i])]++] = i;
  }

  /**
   * Call `visit` with each point of the cells that touch a box in data units.
   * @param {number} left
   * @param {number} bottom
   * @param {number} right
   * @param {number} top
   * @param {(i: number) => void} visit
   */
  visitBox(left, bottom, right, top, visit) {
    for (let row = lineOf(bottom); row <= lineOf(top); row++) {
      const from = this.starts[row * CELLS + lineOf(left)], to = this.starts[row * CELLS + lineOf(right) + 1];
      for (let at = from; at < to; at++) visit(this.order[at]);
    }
  }

  /**
   * The accepted point nearest to (u, v) within `reach` pixels, the first of equal ones, or -1.
   * @param {number} u
   * @param {number} v
   * @param {[number, number]} scale pixels per data unit
   * @param {number} reach
   * @param {(i: number) => boolean} accept
   */
  nearest(u, v, scale, reach, accept) {
    let best = -1, bestDistance = reach * reach;
    const [du, dv] = [reach / scale[0], reach / scale[1]];
    this.visitBox(u - du, v - dv, u + du, v + dv, (i) => {
      const dx = (this.x[i] - u) * scale[0], dy = (this.y[i] - v) * scale[1];
      const distance = dx * dx + dy * dy;
      const isNearer = distance < bestDistance || (distance === bestDistance && i < best);
      if (isNearer && accept(i)) [best, bestDistance] = [i, distance];
    });
    return best;
  }

  /**
   * The accepted points within `reach` pixels of (u, v), ascending.
   * @param {number} u
   * @param {number} v
   * @param {[number, number]} scale pixels per data unit
   * @param {number} reach
   * @param {(i: number) => boolean} accept
   */
  around(u, v, scale, reach, accept) {
    const [du, dv] = [reach / scale[0], reach / scale[1]];
    /** @type {number[]} */
    const found = [];
    this.visitBox(u - du, v - dv, u + du, v + dv, (i) => {
      const isNear = Math.hypot((this.x[i] - u) * scale[0], (this.y[i] - v) * scale[1]) <= reach;
      if (isNear && accept(i)) found.push(i);
    });
    return found.sort((a, b) => a - b);
  }

  /**
   * The points inside a polygon, ascending.
   * @param {Place[]} polygon
   */
  within(polygon) {
    const us = polygon.map(([u]) => u), vs = polygon.map(([, v]) => v);
    /** @type {number[]} */
    const found = [];
    this.visitBox(Math.min(...us), Math.min(...vs), Math.max(...us), Math.max(...vs), (i) => {
      if (isInside(this.x[i], this.y[i], polygon)) found.push(i);
    });
    return Uint32Array.from(found).sort();
  }
}

/**
 * @param {number} x
 * @param {number} y
 */
function cellOf(x, y) { return lineOf(y) * CELLS + lineOf(x); }

/**
 * The row or column of cells that a coordinate is in, or the nearest one.
 * @param {number} u
 */
function lineOf(u) { return Math.min(Math.max(Math.floor(u * CELLS), 0), CELLS - 1); }

/**
 * Whether a ray from the point crosses the polygon's edges an odd number of times.
 * @param {number} u
 * @param {number} v
 * @param {Place[]} polygon
 */
function isInside(u, v, polygon) {
  let inside = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [ui, vi] = polygon[i], [uj, vj] = polygon[j];
    if (vi > v !== vj > v && u < ((uj - ui) * (v - vi)) / (vj - vi) + ui) inside = !inside;
  }
  return inside;
}
