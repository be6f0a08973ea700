"""Commands without the second that their imports take: a fork server that has imported them, and its client.

A forked command is a real process with its own output, environment, signals and session. Only the imports are shared,
and the seed of Python's hashes. What an interpreter reads at its start cannot change, so a command whose environment
differs in that gets an interpreter of its own (`reads_at_start`).
"""
