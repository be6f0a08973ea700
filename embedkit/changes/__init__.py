"""What changed since a run was created: the files that differ, by name, and the commands that go on from there."""

from embedkit.changes.commands import NOT_OF_THE_REQUEST, VALUELESS
from embedkit.changes.files import Change, data_changes, file_changes, order_of_run, show_changes
from embedkit.changes.how_to_go_on import how_to_go_on

__all__ = [
    "NOT_OF_THE_REQUEST",
    "VALUELESS",
    "Change",
    "data_changes",
    "file_changes",
    "how_to_go_on",
    "order_of_run",
    "show_changes",
]
