"""What a run will take: rows, time, bytes and files."""
