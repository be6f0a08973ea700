// Points on a WebGL 2 canvas. A texture says which sources are shown, so that a click in the legend uploads a few bytes
// and no points. If some points are lit, all are drawn in grey first and the lit ones last.

/**
 * @typedef {import("./data.js").Colour} Colour
 * @typedef {import("./data.js").Numbers} Numbers
 */

const VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in float x;
layout(location = 1) in float y;
layout(location = 2) in uint source;
layout(location = 3) in uint shade;
layout(location = 4) in uint placed;
uniform vec2 centre, scale;
uniform float size, ringed, alpha, greyness;
uniform vec3 grey;
uniform sampler2D shown, colours;
flat out vec4 colour;
flat out float hollow;
ivec2 cell(uint at) { return ivec2(int(at & 255u), int(at >> 8u)); }
void main() {
  bool on = texelFetch(shown, cell(source), 0).r > 0.5;
  gl_Position = on ? vec4((vec2(x, y) - centre) * scale, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = size;
  hollow = placed > 0u && ringed > 0.5 ? 1.0 : 0.0;
  colour = vec4(mix(texelFetch(colours, cell(shade), 0).rgb, grey, greyness), alpha);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
uniform float size;
flat in vec4 colour;
flat in float hollow;
out vec4 pixel;
void main() {
  float from = length(gl_PointCoord - 0.5);
  if (size > 2.0 && (from > 0.5 || (hollow > 0.5 && from < 0.3))) discard;
  pixel = vec4(colour.rgb * colour.a, colour.a);
}`;
// Locations of the attributes.
export const X = 0;
export const Y = 1;
export const SOURCE = 2;
export const SHADE = 3;
export const PLACED = 4;
const UNIFORMS = ["centre", "scale", "size", "ringed", "alpha", "grey", "greyness", "shown", "colours"];
// UNSIGNED_BYTE, UNSIGNED_SHORT, UNSIGNED_INT, FLOAT
const GL_TYPES = { Uint8Array: 5121, Uint16Array: 5123, Uint32Array: 5125, Float32Array: 5126 };
const GOLDEN_RATIO = 0.618034;
export const MAX_SAMPLE = 262_144;  // points of the sample that is drawn while there is no time for all
const RING_PIXELS = 4;  // from this size on, placed rows are rings
const GREYNESS = 0.88;  // how far points that are not lit are mixed towards grey

/**
 * The colour of a point that is not lit.
 * @param {Colour} colour
 * @param {Colour} grey
 */
export const greyed = (colour, grey) =>
  /** @type {Colour} */ (colour.map((part, at) => part + (grey[at] - part) * GREYNESS));

/** @typedef {{ buffer: WebGLBuffer, type: number }} Attribute an array on the graphics card */

/**
 * @typedef {object} Frame
 * @property {[number, number]} centre of the window, in data units (0 to 1)
 * @property {[number, number]} scale clip space per data unit
 * @property {number} size of a point in pixels
 * @property {number} litSize of a lit point
 * @property {number} alpha
 * @property {Colour} grey of the points that are not lit
 */

export class Scatter {
  /**
   * @param {HTMLCanvasElement} canvas
   * Throws if the browser has no WebGL 2.
   */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("no WebGL 2");
    this.gl = gl;
    this.canvas = canvas;
    /** @type {(Attribute | null)[]} of all points, by location */
    this.attributes = [];
    /** @type {(Attribute | null)[]} of a sample of the points, together in memory so that drawing them is quick */
    this.sampled = [];
    this.sample = new Uint32Array(0);
    this.count = 0;
    const program = linkProgram(gl);
    this.uniforms = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(program, name)]));
    this.textures = [gl.createTexture(), gl.createTexture()];
    this.litBuffer = gl.createBuffer();
    /** @type {number | null} the number of lit points, null if none in particular is lit */
    this.lit = null;
    this.offscreen = { framebuffer: gl.createFramebuffer(), texture: gl.createTexture(), width: 0, height: 0 };
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /**
   * Upload the array of X, Y, SOURCE, SHADE or PLACED, one element per point; null for zeros.
   * @param {number} location
   * @param {Numbers | Float32Array<ArrayBuffer> | null} array
   */
  upload(location, array) {
    if (location === X && array && array.length !== this.count) {
      this.count = array.length;
      this.sample = evenly(this.count).subarray(0, MAX_SAMPLE);
    }
    const sampled = array && array.slice(0, this.sample.length);
    if (array && sampled) for (let i = 0; i < sampled.length; i++) sampled[i] = array[this.sample[i]];
    this.attributes[location] = this.#newAttribute(this.attributes[location], array);
    this.sampled[location] = this.#newAttribute(this.sampled[location], sampled);
  }

  /**
   * @param {Attribute | null} before
   * @param {Numbers | Float32Array<ArrayBuffer> | null} array
   * @returns {Attribute | null}
   */
  #newAttribute(before, array) {
    const { gl } = this;
    if (before) gl.deleteBuffer(before.buffer);
    if (!array) return null;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
    return { buffer, type: GL_TYPES[/** @type {keyof typeof GL_TYPES} */ (array.constructor.name)] };
  }

  /**
   * Light some points and grey the others, or light none in particular.
   * @param {Uint32Array<ArrayBuffer> | null} positions
   */
  setLit(positions) {
    const { gl } = this, lit = positions ?? new Uint32Array(0);
    this.lit = positions && positions.length;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.litBuffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, evenly(lit.length).map((at) => lit[at]), gl.DYNAMIC_DRAW);
  }

  /**
   * Set the colours by shade.
   * @param {Colour[]} colours
   */
  setColours(colours) { this.#texture(1, colours); }

  /**
   * Set whether each source is shown.
   * @param {boolean[]} shown
   */
  setShown(shown) { this.#texture(0, shown.map((isShown) => [isShown ? 255 : 0, 0, 0])); }

  /**
   * @param {number} unit
   * @param {Colour[]} cells
   */
  #texture(unit, cells) {
    const { gl } = this;
    const rows = Math.max(Math.ceil(cells.length / 256), 1);
    const pixels = new Uint8Array(rows * 256 * 4);
    cells.forEach((cell, at) => pixels.set(cell, at * 4));
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, this.textures[unit]);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, rows, 0, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  /**
   * Draw all points, or `count` of the sample, and at most as many of the lit ones.
   * @param {Frame} frame
   * @param {number} count at most MAX_SAMPLE, or all
   */
  draw(frame, count) {
    const { gl } = this;
    this.#clear();
    this.#set(frame, false);
    this.#bind(count < this.count ? this.sampled : this.attributes);
    gl.drawArrays(gl.POINTS, 0, count);
    if (!this.lit) return;
    this.#set(frame, true);
    this.#bind(this.attributes);
    gl.drawElements(gl.POINTS, Math.min(this.lit, count), gl.UNSIGNED_INT, 0);
  }

  /**
   * Draw all points off screen, as many in each step as its `next` gets, and show them after the last. Each step
   * yields the number of points drawn; the first draws none.
   * @param {Frame} frame
   * @returns {Generator<number, void, number>}
   */
  *drawInSteps(frame) {
    const { gl } = this;
    this.#bindOffscreen();
    this.#clear();
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    let wanted = yield 0;
    for (const isLit of [false, true]) {
      const all = (isLit ? this.lit : this.count) ?? 0;
      for (let from = 0; from < all;) {
        const count = Math.min(wanted, all - from);
        this.#bindOffscreen();
        this.#bind(this.attributes);
        this.#set(frame, isLit);
        if (isLit) gl.drawElements(gl.POINTS, count, gl.UNSIGNED_INT, 4 * from);
        else gl.drawArrays(gl.POINTS, from, count);
        this.finish();
        gl.bindFramebuffer(gl.FRAMEBUFFER, null);
        from += count;
        wanted = yield count;
      }
    }
    const { width, height } = this.offscreen;
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.offscreen.framebuffer);
    gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    gl.bindFramebuffer(gl.READ_FRAMEBUFFER, null);
  }

  #clear() {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
  }

  /** Draw to a picture as large as the canvas instead of the canvas. */
  #bindOffscreen() {
    const { gl, offscreen, canvas: { width, height } } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, offscreen.framebuffer);
    if (offscreen.width === width && offscreen.height === height) return;
    gl.activeTexture(gl.TEXTURE2);
    gl.bindTexture(gl.TEXTURE_2D, offscreen.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, offscreen.texture, 0);
    Object.assign(offscreen, { width, height });
  }

  /**
   * @param {Frame} frame
   * @param {boolean} isLit whether lit points are drawn next
   */
  #set({ centre, scale, size, litSize, alpha, grey }, isLit) {
    const { gl, uniforms } = this;
    gl.uniform2fv(uniforms.centre, centre);
    gl.uniform2fv(uniforms.scale, scale);
    gl.uniform3fv(uniforms.grey, grey.map((part) => part / 255));
    gl.uniform1f(uniforms.size, isLit ? litSize : size);
    gl.uniform1f(uniforms.ringed, size >= RING_PIXELS ? 1 : 0);
    gl.uniform1f(uniforms.alpha, isLit ? Math.max(alpha, 0.8) : alpha);
    gl.uniform1f(uniforms.greyness, this.lit === null || isLit ? 0 : GREYNESS);
    gl.uniform1i(uniforms.shown, 0);
    gl.uniform1i(uniforms.colours, 1);
  }

  /** @param {(Attribute | null)[]} attributes */
  #bind(attributes) {
    const { gl } = this;
    for (let location = X; location <= PLACED; location++) {
      const attribute = attributes[location];
      if (!attribute) {
        gl.disableVertexAttribArray(location);
        gl.vertexAttribI4ui(location, 0, 0, 0, 0);
        continue;
      }
      gl.bindBuffer(gl.ARRAY_BUFFER, attribute.buffer);
      gl.enableVertexAttribArray(location);
      if (location <= Y) gl.vertexAttribPointer(location, 1, attribute.type, true, 0, 0);
      else gl.vertexAttribIPointer(location, 1, attribute.type, 0, 0);
    }
  }

  /** Wait until everything is drawn. */
  finish() { this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4)); }
}

/**
 * The numbers below `count` in an order in which the first of them, however many, come evenly from all.
 * @param {number} count
 */
function evenly(count) {
  let step = Math.max(Math.round(count * GOLDEN_RATIO), 1);
  while (greatestCommonDivisor(step, count) > 1) step++;
  const order = new Uint32Array(count);
  for (let i = 1; i < count; i++) order[i] = (order[i - 1] + step) % count;
  return order;
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function greatestCommonDivisor(a, b) { return b ? greatestCommonDivisor(b, a % b) : a; }

/** @param {WebGL2RenderingContext} gl */
function linkProgram(gl) {
  const program = gl.createProgram();
  for (const text of [VERTEX, FRAGMENT]) {
    const shader = gl.createShader(text === VERTEX ? gl.VERTEX_SHADER : gl.FRAGMENT_SHADER);
    if (!shader) throw new Error("no shader");
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "no program");
  gl.useProgram(program);
  return program;
}
