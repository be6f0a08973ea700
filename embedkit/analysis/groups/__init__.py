"""Groups of similar rows on up to three levels, with names from their words."""
