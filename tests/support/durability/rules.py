"""The rules of docs/guarantees.md ("Order of writes") as checks of a history. Each yields what breaks it, in words."""

import re
from collections.abc import Callable, Iterator

from tests.support.durability.history import TEMPORARY, History, Name, folder_of
from tests.support.faults.shim import Operation

IN_PLACE = re.compile(r"(.*/)?[^/]+\.(journal\.jsonl|safetensors\.partial)|/submissions\.jsonl")
"""Files that are written under the name that counts: their lines and chunks count one by one."""
JOURNAL = re.compile(r"(?P<attempt>/embeddings/shards/\d+/[^/]+)\.journal\.jsonl")
SHARD_FILE = re.compile(r"/embeddings/shards/\d+/[^/]+")
SUCCESS = "/embeddings/_SUCCESS.json"
REJECTED = "/embeddings/rejected.json"
MERGED = re.compile(r"/embeddings/(by_source/[^/]+/)?[^/.]+\.(safetensors|parquet)")
ANALYSIS_PAGE = "/analysis/index.html"

RETURNED = "/returned"
"""The beginning of the names of folders that a small program makes when a function has returned."""

Rule = Callable[[History], Iterator[str]]


def bytes_before_name(history: History) -> Iterator[str]:
    """A file gets its name by rename or link after its last bytes are durable, and is not written to any more."""
    for name in history.names:
        if name.step.operation == Operation.CREATE:
            continue
        if not history.bytes_are_durable(name.file, name.step.began):
            yield f"{name.path} got its name before its bytes were durable"
        if not IN_PLACE.fullmatch(name.path) and history.written_after(name.file, name.step.began):
            yield f"{name.path} was written to after it got its name"


def temporary_names_first(history: History) -> Iterator[str]:
    """A file is made under a temporary name, unless its lines or chunks count one by one."""
    for name in history.names:
        is_made_here = name.step.operation == Operation.CREATE
        if is_made_here and not TEMPORARY.fullmatch(name.path) and not IN_PLACE.fullmatch(name.path):
            yield f"{name.path} was made under its final name"


def files_before_document(history: History) -> Iterator[str]:
    """When a document gets its name, the bytes and names of all files that it names are durable."""
    for document in history.published():
        if history.last_name(document.path) != document:
            continue  # replaced later: what it named cannot be read any more
        for path in history.named.get(document.path, ()):
            yield from _named_file(history, document, path)


def _named_file(history: History, document: Name, path: str) -> Iterator[str]:
    began = document.step.began
    given = [name for name in history.names if name.path == path]
    there = [name for name in given if name.step.began < began]
    if given and not there:
        yield f"{document.path} got its name before {path}, which it names"
    elif there and not history.name_is_durable(there[-1], began):
        yield f"{document.path} got its name before that of {path} was durable"
    elif there and not history.bytes_are_durable(there[-1].file, began):
        yield f"{document.path} got its name before the bytes of {path} were durable"
    if len(there) != len(given) and there:
        yield f"{path} was replaced after {document.path}, which names it"


def durable_in_the_end(history: History) -> Iterator[str]:
    """When the program ends, the bytes and names of every file that counts are durable."""
    yield from (f"{what}: not durable" for what in history.unsynced())


def chunks_before_journal(history: History) -> Iterator[str]:
    """A line of a journal is written once the bytes of its chunk are durable, and the line before it is, too."""
    for name in history.names:
        journal = JOURNAL.fullmatch(name.path)
        if journal is None or name.step.operation != Operation.CREATE:
            continue
        lines = [step for step in history.done if step.operation == Operation.WRITE and step.file == name.file]
        lines = [step for step in lines if step.began > name.step.began]
        matrices = [one for one in history.names if one.path.startswith(f"{journal['attempt']}.") and one != name]
        matrices = [one for one in matrices if one.step.operation == Operation.CREATE]
        for line in lines[1:]:  # the first is the header
            for matrix in matrices:
                if not history.bytes_are_durable(matrix.file, line.began):
                    yield f"{name.path}: a line was written before the bytes of its chunk in {matrix.path} were durable"
            if not history.bytes_are_durable(name.file, line.began):
                yield f"{name.path}: a line was written before the one above it was durable"


def removed_after_replacement(history: History) -> Iterator[str]:
    """A file of a shard is removed once the other files of its folder are durable: it may have the only copy."""
    for removal in history.removals():
        if not SHARD_FILE.fullmatch(removal.path) or removal.path.endswith(".tmp"):
            continue
        folder = folder_of(removal.path)
        for name in history.living(removal.began):
            if folder_of(name.path) != folder or name.path == removal.path:
                continue
            if not history.name_is_durable(name, removal.began):
                yield f"{removal.path} was removed before the name of {name.path} was durable"
            if not history.bytes_are_durable(name.file, removal.began):
                yield f"{removal.path} was removed before the bytes of {name.path} were durable"


def success_away_while_merged(history: History) -> Iterator[str]:
    """All merged files are durable under temporary names, then `_SUCCESS.json` goes, durably; then they get names."""
    merged = [name for name in history.published() if MERGED.fullmatch(name.path)]
    if not merged:
        return
    first = min(name.step.began for name in merged)
    removals = [step for step in history.removals() if step.path == SUCCESS]
    renamed = [name for name in history.published() if name.path == SUCCESS]
    if renamed and renamed[-1].step.began < max(name.step.ended for name in merged):
        yield f"{SUCCESS} did not get its name last"
    if not removals:
        if SUCCESS in history.before:
            yield f"{SUCCESS} was not removed before the merged files were replaced"
        return
    removal = removals[-1]
    if removal.ended > first:
        yield f"{SUCCESS} was removed after the first merged file was replaced"
    if not history.is_synced(folder_of(SUCCESS), removal.ended, first):
        yield f"the removal of {SUCCESS} was not durable when the first merged file was replaced"
    for name in merged:
        if not history.bytes_are_durable(name.file, removal.began):
            yield f"{SUCCESS} was removed before the bytes of the new {name.path} were durable"


def rejected_until_merged(history: History) -> Iterator[str]:
    """`rejected.json` is removed once `_SUCCESS.json` is durable."""
    removal = next((step for step in history.removals() if step.path == REJECTED), None)
    if removal is None:
        if REJECTED in history.before and history.last_name(SUCCESS) is not None:
            yield f"{REJECTED} was not removed"
        return
    success = history.last_name(SUCCESS, removal.began)
    if success is None or not history.name_is_durable(success, removal.began):
        yield f"{REJECTED} was removed before {SUCCESS} was durable"


def durable_when_returned(history: History) -> Iterator[str]:
    """When a function returns, which a small program marks by a folder, all that it wrote is durable."""
    for step in history.done:
        if step.operation == Operation.MKDIR and step.path.startswith(RETURNED):
            yield from (f"{what}: not durable at {step.path}" for what in history.unsynced(step.began))


def page_last(history: History) -> Iterator[str]:
    """The page of an analysis gets its name after all other files of it."""
    names = [name.path for name in history.published() if name.path.startswith(f"{folder_of(ANALYSIS_PAGE)}/")]
    if names and names[-1] != ANALYSIS_PAGE:
        yield f"{names[-1]} got its name after {ANALYSIS_PAGE}"


RULES: tuple[Rule, ...] = (
    bytes_before_name,
    temporary_names_first,
    files_before_document,
    durable_in_the_end,
    chunks_before_journal,
    removed_after_replacement,
    success_away_while_merged,
    rejected_until_merged,
    durable_when_returned,
    page_last,
)


def broken_rules(history: History) -> list[str]:
    """What in a history breaks a rule; empty if all is in order."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in dict.fromkeys(rule(history))]
