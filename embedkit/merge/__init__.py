"""Check every manifest, and stream the shards into one matrix with one metadata row per vector."""
