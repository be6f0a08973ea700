"""The page of an analyzed run: figures, sections, the packed map, and the page's scripts."""
