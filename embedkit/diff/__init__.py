"""Compare the vectors of two runs, or of a run with those of the engine that is installed; and certify an engine."""
