"""Analysis of a merged run: functions that return arrays, frames and figures, and the page made of them."""
