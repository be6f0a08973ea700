"""Embed one shard: chunk by chunk, resumable, with a manifest written last."""
