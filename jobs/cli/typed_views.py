"""The values of `--view`: the name of a view, or NAME=TEMPLATE for a view of the user."""

from collections.abc import Sequence
from typing import NamedTuple

import click

from embedkit.errors import UsageError


class TypedView(NamedTuple):
    """A view as it was typed. The template is None for a name alone; its \\n are new lines already."""

    name: str
    template: str | None


def typed_views(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[TypedView, ...]:
    """Callback of the option: each view once, as typed. Raises UsageError for one name with two meanings."""
    views = tuple(dict.fromkeys(map(_typed, values)))
    names = [view.name for view in views]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--view {name} has two meanings; choose another name for one of them")
    return views


def _typed(value: str) -> TypedView:
    name, equals, template = value.partition("=")
    return TypedView(name, template.replace("\\n", "\n") if equals else None)


def view_names(views: Sequence[TypedView]) -> tuple[str, ...]:
    """The names of the views, as typed."""
    return tuple(view.name for view in views)


def view_templates(views: Sequence[TypedView]) -> dict[str, str]:
    """The templates by name, of the views that have one."""
    return {view.name: view.template for view in views if view.template is not None}
