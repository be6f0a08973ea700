"""The data set as a sequence of rows: files, the Hub, sampling, sources."""
