"""What compares rows with each other: neighbors, search, duplicates, UMAP."""
