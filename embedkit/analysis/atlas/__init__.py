"""The page of an analysis: a map of all rows beside all else, in one file that needs no network and no server."""
