"""The data set as a sequence of rows: files, formats, the Hub, sampling, sources."""
