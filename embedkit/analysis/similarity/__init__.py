"""Comparisons between rows: nearest neighbours, search, near-duplicates, neighbourhoods, UMAP."""
