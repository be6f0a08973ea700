"""Embed shards chunk by chunk, resumable, with a manifest written last. Also: which manifests count (shard_state)."""
