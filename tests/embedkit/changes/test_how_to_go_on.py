"""What a message says is finished, and which commands it has."""

from pathlib import Path

import pytest

from embedkit.changes.how_to_go_on import how_to_go_on
from embedkit.run import RunFolder
from tests.embedkit.changes.test_commands import config, folder

__all__ = ["folder"]  # a fixture
MADE = "embedkit run --dataset data --model model"


@pytest.mark.parametrize(
    ("parts", "shown"), [(0, "nothing of it is prepared yet"), (1, "1 part is prepared"), (2, "2 parts are prepared")]
)
def test_prepared_parts_are_counted(parts: int, shown: str, folder: Path) -> None:
    """prepare failed between its parts: a new run beside this one is proposed only if something would be lost."""
    run = RunFolder(folder / "run")
    run.parts.mkdir(parents=True)
    for part in range(parts):
        run.part_manifest(part).touch()
    (folder / "run-2").mkdir()
    message = how_to_go_on(run, config(folder, MADE))
    loss = "; --overwrite deletes that" if parts else ""
    first, command, *more = message.splitlines()
    assert first == f"to start the run again with these changes ({shown}{loss}):"
    assert command.endswith(f"{run.where} --overwrite")
    assert [line for line in more if "--run-name run-3 " in line] == more[1:2]
    assert more[-1:] == [f"to continue the run as it is, with its files as they were: {run.resume_command}"] * bool(
        parts
    )


def test_without_a_known_command_the_message_says_so(folder: Path) -> None:
    """A run that a script made has none. Where only settings differ, the run can go on."""
    run = RunFolder(folder / "run")
    assert how_to_go_on(run, config(folder, "script.py"), files=False) == (
        "to start the run again with these changes (nothing of it is prepared yet): type the command that made it, "
        f"with --overwrite\nto continue the run as it is: {run.resume_command}"
    )
