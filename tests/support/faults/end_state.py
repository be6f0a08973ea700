"""Compares the end state of a run with the undisturbed one, byte for byte apart from what differs between any two runs.

Differing by nature: times, hosts, versions and attempt names in manifests, journals and `_SUCCESS.json`; logs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from embedkit.documents import RunConfig, ShardManifest, Success, View, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.conftest import snapshot

VIEWS: tuple[View, ...] = ("combined", "response")

NOT_PROMISED = {
    "logs": re.compile(r"logs/.*"),  # for people; no step reads them, except to quote an error
    "lease": re.compile(r"(.*/)?[^/]*\.lease"),  # names a living process; means nothing once it has ended
    "journal": re.compile(r".*\.journal\.jsonl"),  # read up to the first damaged line; of a finished shard never
    "partial matrix": re.compile(r".*\.safetensors\.partial"),  # chunks count one by one, by the hashes in the journal
    "temporary": re.compile(r"(.*/)?\.[^/]*\.tmp"),  # a file that does not exist yet
    "rejected": re.compile(r"embeddings/rejected\.json"),  # what the last merge refused; the next one decides anew
    "refused": re.compile(r".*/refused\.json"),  # a manifest that does not count, kept for people
}
"""Files whose damage verify may miss. Whatever happens to them, the end state must be right."""

MAY_STAY_WITHOUT_RUN = ("left over: logs/submitit/", "left over: run.lease", "left over: .run.lease.")
"""What a killed `embedkit run` leaves: the next `embedkit run` removes it; the command of a stage does not."""

_ATTEMPT = re.compile(r"(shards/\d+/)[^/]+?(\.journal\.jsonl|(\.\w+)?\.safetensors(\.partial)?)$")


def is_promised(name: str) -> bool:
    """Whether a file of a run must be found by verify when it is damaged."""
    return not any(pattern.fullmatch(name) for pattern in NOT_PROMISED.values())


def without_attempt(name: str) -> str:
    """A file's name without the attempt's random part."""
    return _ATTEMPT.sub(r"\1*\2", name)


def files_of(run: RunFolder) -> list[str]:
    """All files of a run except its logs, relative to it, sorted."""
    names = (path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    return sorted(name for name in names if not re.fullmatch(r"logs/[^/]+\.(log|attempts\.jsonl)", name))


def promised_files(run: RunFolder) -> dict[str, bytes]:
    """The bytes of the files of a run that verify must find when they are damaged, by name without the attempt."""
    return {without_attempt(name): (run.path / name).read_bytes() for name in files_of(run) if is_promised(name)}


class EndState:
    """The undisturbed run's end state, to compare others with."""

    def __init__(self, run: RunFolder, again: RunFolder) -> None:
        """`again`: a second undisturbed run. Files that are equal in both have the same bytes in every run."""
        self._bytes = snapshot(run, *VIEWS)
        once, twice = promised_files(run), promised_files(again)
        self._same = {name: data for name, data in once.items() if twice.get(name) == data}
        self._fields = _fields(run)
        self._names = sorted(map(without_attempt, files_of(run)))

    def wrong_files(self, run: RunFolder, only: str = "") -> list[str]:
        """Files that differ from the undisturbed run's. `only`: those whose names begin with it."""
        try:
            found = snapshot(run, *VIEWS)
        except OSError as error:
            return [f"incomplete: {error}"]
        names = [name for name in sorted(found.keys() | self._bytes.keys()) if name.startswith(only)]
        return [
            f"{name}: {'bytes differ' if name in found and name in self._bytes else 'exists in only one of the two'}"
            for name in names
            if found.get(name) != self._bytes.get(name)
        ]

    def wrong_so_far(self, run: RunFolder) -> list[str]:
        """Files of a run, finished or not, that differ from the undisturbed run's although every run has them equal."""
        found = promised_files(run)
        return [f"{name}: bytes differ" for name, data in found.items() if data != self._same.get(name, data)]

    def differences(self, run: RunFolder, may_stay: Sequence[str] = ()) -> list[str]:
        """How a finished run differs from the undisturbed one; empty if they are equal.

        may_stay: beginnings of differences that are accepted, as `left over: run.lease`.
        """
        wrong = self.wrong_files(run)
        try:
            fields = _fields(run)
        except (OSError, EmbedkitError) as error:
            return [*wrong, f"incomplete: {error}"]
        wrong += [f"a different {name}" for name in self._fields if fields.get(name) != self._fields[name]]
        wrong += self._leftovers(run)
        return [what for what in wrong if not what.startswith(tuple(may_stay))]

    def _leftovers(self, run: RunFolder) -> list[str]:
        """Files that only one of a finished run and the undisturbed run has."""
        expected = list(self._names)
        extra = []
        for name in files_of(run):
            if without_attempt(name) in expected:
                expected.remove(without_attempt(name))
            else:
                extra.append(f"left over: {name}")
        return extra + [f"missing: {name}" for name in expected]


def _fields(run: RunFolder) -> dict[str, object]:
    """What documents must say, whatever happened on the way."""
    success = read(run.success, Success)
    names = ("request_sha256", "plan_sha256", "rows", "dim", "dropped", "tokens", "sources", "engines", "files")
    fields: dict[str, object] = {f"_SUCCESS.json: {name}": getattr(success, name) for name in names}
    fields["run_config.json: request"] = read(run.config, RunConfig).request
    for path in sorted(run.embeddings.glob("shards/*/manifest.json")):
        fields |= _shard_fields(path)
    return fields


def _shard_fields(path: Path) -> dict[str, object]:
    manifest = read(path, ShardManifest)
    names = ("plan_sha256", "request", "engine", "start", "stop", "tokens", "inputs_sha256", "canary")
    fields = {f"shard {manifest.shard}: {name}": getattr(manifest, name) for name in names}
    for view, matrix in manifest.matrices.items():
        fields[f"shard {manifest.shard}: {view}"] = (matrix.file.sha256, matrix.file.bytes, matrix.shape)
    chunks = [(chunk.start, chunk.inputs_sha256, chunk.views) for chunk in manifest.chunks]
    return fields | {f"shard {manifest.shard}: chunks": chunks}
