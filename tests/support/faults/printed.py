"""Types what a message says: the commands that it prints, and nothing else."""

import re
import shutil
from pathlib import Path

from tests.support.faults.case import SHOWN, Case
from tests.support.faults.commands import Ended
from tests.support.faults.end_state import promised_files
from tests.support.faults.rerun import rerun

_COMMAND = re.compile(
    r"embedkit (?:run|prepare) --resume --run-name \S+ --output-dir \S+(?: --allow-mixed)?"
    r"|embedkit (?:merge|embed|prepare|rerun|verify) /\S+(?: --(?:allow-mixed|shard \d+))*"
    r"|`embedkit verify`"
    r"|(?:\brm(?: -r)?|\bmv -n|\bdelete|\bremove)(?: /\S+)+"
)
TIMES = 4
"""How often a person types what was printed before giving up."""


def printed_commands(text: str) -> list[str]:
    """What a message says to type: every fix that verify lists, else what to remove and then the last command."""
    fixes = [line for line in text.splitlines() if line.startswith("to fix it: ")]
    commands = []
    for line in fixes or text.splitlines():
        found = [match.rstrip(",.;:)`'\"") for match in _COMMAND.findall(line)]
        commands += found if fixes else found[-1:]
    commands = list(dict.fromkeys(commands))
    removals = [command for command in commands[:-1] if command.startswith(("rm ", "mv ", "delete "))]
    return commands if fixes else [*removals, *commands[-1:]]


def follow(case: Case, ended: Ended) -> bool:
    """Type what a refusal prints until nothing is refused any more. Returns whether that happened.

    A refusal that prints no command, or the same again and again, is a failure.
    """
    for _ in range(TIMES):
        commands = printed_commands(ended.text)
        if not commands and _is_about_config(case, ended.text):
            return _put_config_back(case)
        if not commands and not case.run.config.exists():
            return case.finish("run")  # nothing was made yet, so the same command is typed again
        if not commands:
            case.fail(f"{ended.name}: exit {ended.code}, and no command to type: {ended.text[-SHOWN:]}")
            return False
        case.result.facts.setdefault("typed", []).extend(commands)
        for command in commands:
            ended = _type(case, command) or ended
        if not any(command.startswith(("embedkit", "`embedkit")) for command in commands):
            ended = case.do("verify")  # something was removed, and nothing else was printed
        if ended.code == 0:
            return True
    case.fail(f"{ended.name}: still refused after {TIMES} times what was printed: {ended.text[-SHOWN:]}")
    return False


def follow_to_the_end(case: Case, ended: Ended) -> bool:
    """As `follow`, until verify finds nothing; then type what is left of the run. Returns whether all went well.

    Nothing else is typed before verify finds nothing: a printed command that repairs too little would be hidden.
    """
    for _ in range(TIMES):
        if not follow(case, ended):
            return False
        if case.result.facts.get("typed", [""])[-1].startswith("embedkit run"):
            return True  # the case's end compares all files, and types verify
        ended = case.do("verify")
        if ended.code == 0:
            return _finish_unchanged(case)
    case.fail(f"verify still finds something after {TIMES} times what was printed: {ended.text[-SHOWN:]}")
    return False


def _finish_unchanged(case: Case) -> bool:
    """Type `embedkit run` where verify finds nothing: it adds what is left, and changes no file that is there."""
    before = promised_files(case.run)
    if not case.finish("run"):
        return False
    after = promised_files(case.run)
    for name in sorted(before):
        if after.get(name) != before[name]:
            case.fail(f"verify found nothing, but `embedkit run` changed {name}")
    return True


def _is_about_config(case: Case, text: str) -> bool:
    if not case.run.data_index.exists():  # nothing was made yet
        return False
    return f"{case.run.config}: its bytes are not" in text or f"put back a copy of {case.run.config}" in text


def _put_config_back(case: Case) -> bool:
    """Put back `run_config.json`, the only file that no command can make again: it is what a person asked for."""
    case.result.outcome = "refused, put back"
    case.run.config.write_bytes(case.world.original_config(case.run))
    return case.finish("run")


def _type(case: Case, command: str) -> Ended | None:
    """Type one command. Returns how it ended; None for a file that was removed."""
    name, *words = command.strip("`").split()
    if words[0] == "rerun":
        return rerun(case)
    if name == "embedkit":
        return case.do(words if len(words) > 1 else [*words, str(case.run.path)])
    paths = [Path(word) for word in words if not word.startswith("-")]
    assert all(path.is_relative_to(case.folder) for path in paths), command
    if name == "mv":
        paths[0].rename(paths[1])
        return None
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return None
