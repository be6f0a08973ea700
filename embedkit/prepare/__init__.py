"""Choose rows, extract texts, count tokens, drop what does not fit, and plan the shards."""
