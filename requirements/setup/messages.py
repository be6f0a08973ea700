"""What set-up prints. All of it goes to stderr: stdout belongs to the command that runs in the environment."""

import sys

USAGE, FAILURE = 2, 1


class SetUpError(Exception):
    """Set-up stops. The message says what is wrong and what to type next."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def say(message: str) -> None:
    """Print one message."""
    print(message, file=sys.stderr, flush=True)
