"""What a merged run looks like: functions that return arrays, frames and figures."""
