"""The file formats of a run: every JSON document, sets of new files, matrices."""
