"""What `embedkit verify` finds: every kind of file, changed in every way, at every stage of a run."""
