"use strict";
// The other tabs. Plotly draws a figure when its tab is first shown, since it measures the space available.

function showTab(title) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const shown = tabs.find((tab) => tab.dataset.tab === title) ?? tabs[0];
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", tab === shown);
    tab.tabIndex = tab === shown ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== shown;
  }
  const draw = () => drawFigures(document.getElementById(shown.getAttribute("aria-controls")));
  if (globalThis.Plotly) draw(); else addEventListener("DOMContentLoaded", draw, { once: true });
}

function drawFigures(panel) {
  for (const figure of panel.querySelectorAll(".figure:not(.js-plotly-plot)")) {
    const { data, layout } = JSON.parse(document.getElementById(figure.dataset.figure).textContent);
    Plotly.newPlot(figure, data, { ...layout, ...themedLayout(layout) }, { displaylogo: false, responsive: true });
  }
}

function restyleFigures() {
  for (const figure of document.querySelectorAll(".figure.js-plotly-plot")) Plotly.relayout(figure, themedLayout(figure.layout, "."));
}

/** The parts of a layout that depend on the theme. */
function themedLayout(layout, separator) {
  const style = getComputedStyle(document.documentElement);
  const [ink, line] = [style.getPropertyValue("--ink").trim(), style.getPropertyValue("--line").trim()];
  const changed = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
  if (separator) changed["font.color"] = ink; else changed.font = { ...layout.font, color: ink };
  for (const axis of new Set(["xaxis", "yaxis", ...Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name))])) {
    for (const part of ["gridcolor", "zerolinecolor", "linecolor"]) {
      if (separator) changed[`${axis}.${part}`] = line;
      else changed[axis] = { ...layout[axis], ...changed[axis], [part]: line };
    }
  }
  return changed;
}
