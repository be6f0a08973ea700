"""The kinds of findings, one module each: a function from the evidence about a view to its findings of that kind."""
