// Figures, drawn by plotly when their tab is first shown, since it measures the space available.

/**
 * @typedef {Record<string, any>} Layout of plotly
 * @typedef {{ newPlot: (element: Element, data: unknown, layout: Layout, config: object) => void,
 *   relayout: (element: Element, layout: Layout) => void }} Plotly
 */

const plotly = () => /** @type {{ Plotly?: Plotly }} */ (globalThis).Plotly;

/**
 * Draw the figures of a panel that are not drawn yet, once plotly is there.
 * @param {Element} panel
 */
export function drawFigures(panel) {
  const Plotly = plotly();
  if (!Plotly) {
    addEventListener("DOMContentLoaded", () => drawFigures(panel), { once: true });
    return;
  }
  for (const figure of panel.querySelectorAll(".figure:not(.js-plotly-plot)")) {
    const id = figure.getAttribute("data-figure") ?? "";
    const { data, layout } = JSON.parse(document.getElementById(id)?.textContent ?? "{}");
    Plotly.newPlot(figure, data, { ...layout, ...themed(layout) }, { displaylogo: false, responsive: true });
  }
}

export function restyleFigures() {
  for (const figure of document.querySelectorAll(".figure.js-plotly-plot")) {
    const { layout } = /** @type {Element & { layout: Layout }} */ (figure);
    plotly()?.relayout(figure, themed(layout));
  }
}

/**
 * The parts of a layout that depend on the theme.
 * @param {Layout} layout
 */
function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  /** @type {Layout} */
  const changed = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { ...layout.font, color: ink },
  };
  for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))])) {
    changed[axis] = { ...layout[axis], gridcolor: line, zerolinecolor: line, linecolor: line };
  }
  return changed;
}
