"""Commands that a message prints on lines of their own, and how they are typed."""

import subprocess

from tests.conftest import embedkit


def printed(message: str) -> list[str]:
    """The commands of embedkit that a message has on lines of their own."""
    return [line.strip() for line in message.splitlines() if line.startswith("  embedkit ")]


def paste(command: str, **environment: str) -> str:
    """Type a command. bash finds its words. Returns what it printed."""
    split = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, text=True, check=True)
    name, *words = split.stdout.removesuffix("\0").split("\0")
    assert name == "embedkit"
    return embedkit(*words, **environment).stdout


def start_again(message: str, commands: int, **environment: str) -> None:
    """Type the command with --overwrite that a message prints, which has so many commands."""
    assert len(printed(message)) == commands, message
    (again,) = [line for line in printed(message) if line.endswith(" --overwrite")]
    paste(again, **environment)
