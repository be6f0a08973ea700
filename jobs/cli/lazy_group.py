"""A click group that imports the module of a command only when that command is used."""

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click


@dataclass(frozen=True)
class LazyCommand:
    """A command that is imported on use.

    module: the module that defines it, under the name of the command. short_help: its line in the help of the group.
    """

    name: str
    module: str
    short_help: str


class LazyGroup(click.Group):
    """A group whose commands are known by name and short help, and are imported on use.

    Its help lists them under headings and imports none of them.
    """

    def __init__(self, sections: Mapping[str, Sequence[LazyCommand]], **settings: Any) -> None:
        """`sections`: the commands by heading, in the order of the help. `settings`: as for click.Group."""
        super().__init__(**settings)
        self.sections = sections
        self._lazy = {command.name: command for commands in sections.values() for command in commands}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of the help."""
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of that name."""
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return None
        command = getattr(importlib.import_module(lazy.module), lazy.name)
        assert isinstance(command, click.Command), lazy
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed. A name that does not exist fails with the nearest name that does."""
        name = args[0]
        if name not in self._lazy and not name.startswith("-"):
            near = difflib.get_close_matches(name, self._lazy, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list of commands per heading, with aligned columns."""
        width = max(map(len, self._lazy))
        for heading, commands in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(command.name.ljust(width), command.short_help) for command in commands])
