"""Errors for people. A message says what is wrong, where, and what to do next."""


class EmbedkitError(Exception):
    """Something failed or is incomplete. The command line prints only the message and exits 1."""

    exit_code = 1


class UsageError(EmbedkitError):
    """The options or files given cannot be used as they are. The command line exits 2."""

    exit_code = 2
