// Figures, drawn by plotly when their tab is first shown, since it measures the space available. Plotly itself takes a
// second to start, so its source lies in the page as data until a tab with figures is shown.

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
  const figures = panel.querySelectorAll(".figure:not(.js-plotly-plot)");
  if (!figures.length) return;
  const Plotly = plotly() ?? startPlotly();
  if (!Plotly) {
    addEventListener("DOMContentLoaded", () => drawFigures(panel), { once: true });
    return;
  }
  for (const figure of figures) {
    const id = figure.getAttribute("data-figure") ?? "";
    const { data, layout } = JSON.parse(document.getElementById(id)?.textContent ?? "{}");
    Plotly.newPlot(figure, data, { ...layout, ...themed(layout) }, { displaylogo: false, responsive: true });
  }
}

/** Run plotly's source, once the page is loaded as far as that. */
function startPlotly() {
  const source = document.getElementById("plotly");
  if (!source?.nextSibling) return undefined;
  const script = document.createElement("script");
  script.textContent = source.textContent;
  source.replaceWith(script);
  return plotly();
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
