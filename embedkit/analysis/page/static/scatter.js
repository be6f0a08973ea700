"use strict";
// Points on a WebGL 2 canvas: one draw call, two bytes per coordinate. A texture says which sources are shown, so that a
// click in the legend uploads a few bytes and no points.

const VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in float x;
layout(location = 1) in float y;
layout(location = 2) in uint source;
layout(location = 3) in uint shade;
layout(location = 4) in uint placed;
uniform vec2 centre, scale;
uniform float size, alpha;
uniform int highlighted;
uniform sampler2D shown, colours;
flat out vec4 colour;
flat out float hollow;
ivec2 cell(uint at) { return ivec2(int(at & 255u), int(at >> 8u)); }
void main() {
  bool on = texelFetch(shown, cell(source), 0).r > 0.5;
  gl_Position = on ? vec4((vec2(x, y) - centre) * scale, 0.0, 1.0) : vec4(2.0, 2.0, 2.0, 1.0);
  gl_PointSize = size;
  float dim = highlighted >= 0 && int(source) != highlighted ? 0.06 : 1.0;
  hollow = placed > 0u && size >= 4.0 ? 1.0 : 0.0;
  colour = vec4(texelFetch(colours, cell(shade), 0).rgb, alpha * dim);
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
const X = 0, Y = 1, SOURCE = 2, SHADE = 3, PLACED = 4;
const GL_TYPES = { Uint8Array: "UNSIGNED_BYTE", Uint16Array: "UNSIGNED_SHORT", Uint32Array: "UNSIGNED_INT" };
const MAX_SKIP = 60;  // WebGL allows strides of at most 255 bytes

class Scatter {
  /** Throws if the browser has no WebGL 2. */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: false, powerPreference: "high-performance" });
    if (!gl) throw new Error("no WebGL 2");
    this.gl = gl;
    this.canvas = canvas;
    this.buffers = [];
    this.count = 0;
    this.program = this.link();
    this.uniforms = Object.fromEntries(
      ["centre", "scale", "size", "alpha", "highlighted", "shown", "colours"].map((n) => [n, gl.getUniformLocation(this.program, n)]));
    this.textures = [gl.createTexture(), gl.createTexture()];
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  link() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [type, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(type);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    return program;
  }

  /** Upload the array of X, Y, SOURCE, SHADE or PLACED, one element per point; null for zeros. */
  upload(location, array) {
    const { gl } = this;
    if (this.buffers[location]) gl.deleteBuffer(this.buffers[location].buffer);
    this.buffers[location] = null;
    if (array === null) return;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.STATIC_DRAW);
    this.buffers[location] = { buffer, type: gl[GL_TYPES[array.constructor.name]], bytes: array.BYTES_PER_ELEMENT };
    if (location === X) this.count = array.length;
  }

  /** Set the colours by shade: [r, g, b], each from 0 to 255. */
  setColours(colours) { this.texture(1, colours); }

  /** Set whether each source is shown. */
  setShown(shown) { this.texture(0, shown.map((isShown) => [isShown ? 255 : 0, 0, 0])); }

  texture(unit, cells) {
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

  /** Draw every `skip`-th point. centre: of the window, in data units (0 to 1). scale: clip space per data unit. */
  draw({ centre, scale, size, alpha, highlighted, skip }) {
    const { gl, canvas, uniforms } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2fv(uniforms.centre, centre);
    gl.uniform2fv(uniforms.scale, scale);
    gl.uniform1f(uniforms.size, size);
    gl.uniform1f(uniforms.alpha, alpha);
    gl.uniform1i(uniforms.highlighted, highlighted);
    gl.uniform1i(uniforms.shown, 0);
    gl.uniform1i(uniforms.colours, 1);
    for (let location = X; location <= PLACED; location++) this.bindAttribute(location, skip);
    gl.drawArrays(gl.POINTS, 0, Math.ceil(this.count / skip));
  }

  bindAttribute(location, skip) {
    const { gl } = this;
    const attribute = this.buffers[location];
    if (!attribute) {
      gl.disableVertexAttribArray(location);
      gl.vertexAttribI4ui(location, 0, 0, 0, 0);
      return;
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, attribute.buffer);
    gl.enableVertexAttribArray(location);
    if (location <= Y) gl.vertexAttribPointer(location, 1, attribute.type, true, skip * attribute.bytes, 0);
    else gl.vertexAttribIPointer(location, 1, attribute.type, skip * attribute.bytes, 0);
  }

  /** Wait until everything is drawn. */
  finish() { this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4)); }
}
