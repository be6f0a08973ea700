"""What to type once the files of a run have changed, and what of the run that would cost."""

from itertools import count

from embedkit.changes.commands import command_again
from embedkit.documents import Plan, RunConfig, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder


def how_to_go_on(run: RunFolder, config: RunConfig, now: RunConfig | None = None, *, files: bool = True) -> str:
    """Lines of a message: what is finished, and the commands that start the run again, make a new one, or go on.

    Each line begins with `to` or is indented, by which `embedkit status` finds the end of a message in a log.

    Args:
        run: the run, which stays as it is.
        config: its configuration.
        now: what the present command made of its own options; None for a command without them.
        files: whether files differ, and not settings alone.
    """
    done = _done(run)
    begin = f"to start the run again with these changes ({done or 'nothing of it is prepared yet'}"
    begin += "; --overwrite deletes that):" if done else "):"
    command = command_again(run, config, now)
    if command is None:
        lines = [f"{begin} type the command that made it, with --overwrite"]
    else:
        lines = [begin, f"  {command} --overwrite"]
    if command is not None and done:
        beside = command_again(_beside(run), config, now)
        lines += ["to keep it, and make a new run beside it:", f"  {beside}"]
    if done or not files:
        as_before = ", with its files as they were" if files else ""
        lines.append(f"to continue the run as it is{as_before}: {run.resume_command}")
    return "\n".join(lines)


def _done(run: RunFolder) -> str | None:
    """What is finished of a run, in words; None if nothing is."""
    if run.success.exists():
        return "it is finished and merged"
    try:
        shards = len(read(run.plan, Plan).shards)
        finished = sum(run.shard_manifest(shard).exists() for shard in range(shards))
        return f"it is prepared, and {finished} of {shards} shards are finished"
    except EmbedkitError:
        pass  # not prepared, or the plan is damaged
    parts = len(list(run.parts.glob("part-*.json")))
    return f"{parts} {'part is' if parts == 1 else 'parts are'} prepared" if parts else None


def _beside(run: RunFolder) -> RunFolder:
    """A folder beside the run that is not there yet: its name, and the first number from 2 on that is free."""
    paths = (run.path.with_name(f"{run.name}-{number}") for number in count(2))
    return RunFolder(next(path for path in paths if not path.exists()))
