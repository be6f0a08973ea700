// A page with one map by regl-scatterplot, which benchmarks/bench_atlas.py measures beside the project's page.

import createScatterplot from "regl-scatterplot";

/** The bytes of an element with base64. */
const bytesOf = (id) => Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
const floats = (id) => new Float32Array(bytesOf(id).buffer);

const canvas = document.querySelector("canvas"), { width, height } = canvas.getBoundingClientRect();
const codes = new Uint16Array(bytesOf("source").buffer), sources = 1 + codes.reduce((a, b) => Math.max(a, b), 0);
const plot = createScatterplot({ canvas, width, height, pointSize: 2, opacity: 0.5 });
plot.set({
  colorBy: "category",
  pointColor: Array.from({ length: sources }, (_, at) => {
    const part = (shift) => Math.round(127 + 100 * Math.sin(at * 2.4 + shift)).toString(16).padStart(2, "0");
    return `#${part(0)}${part(2)}${part(4)}`;
  }),
});
plot.draw({ x: floats("x"), y: floats("y"), z: Float32Array.from(codes) }, { zDataType: "categorical" }).then(() => {
  canvas.dataset.drawn = "true";
});
