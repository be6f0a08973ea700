"""The prepare stage: choose rows, extract texts, count tokens, drop rows that do not fit, and plan the shards."""
