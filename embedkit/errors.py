"""Errors for the person who reads them at 2 a.m.: what is wrong, where, and what to type next."""


class EmbedkitError(Exception):
    """Something failed or is incomplete. The command line prints the text alone and exits 1."""

    exit_code = 1


class UsageError(EmbedkitError):
    """Something was asked that cannot be done as asked. The command line exits 2."""

    exit_code = 2
