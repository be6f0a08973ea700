"""Which nodes a rerun excludes: those where the canary moved, by the error code or, in older runs, by the message."""

import pytest

from embedkit.documents.codec import sealed
from embedkit.errors import CanaryMoved
from embedkit.job import JobContext
from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from jobs.submit.adapt_profile import _nodes_with_moved_canary


@pytest.mark.parametrize(
    ("why", "code", "excluded"),
    [
        ("the GPU gives different vectors", CanaryMoved.code, {"n3"}),
        ("shard 1: the canary's vectors moved by 0.01", "", {"n3"}),  # as runs before 0.2.0 have it
        ("CUDA error", "", set()),
        ("model: x; the canary's vectors moved", "preflight-failed", set()),
    ],
)
def test_nodes_are_excluded_by_error_code_or_old_message(
    why: str, code: str, excluded: set[str], run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.job._current", JobContext(name="7_1", id="7", node="n3"))
    attempts = Attempts(run, "embed", 1)
    attempts.add("started", 0, "")
    attempts.add("failed", 0, why, code)
    assert _nodes_with_moved_canary(run, [1, 2]) == excluded


def test_events_of_older_versions_have_no_error_code(run: RunFolder) -> None:
    attempts = Attempts(run, "embed", 1)
    attempts.add("started", 0, "")
    path = run.logs / "embed-00001.attempts.jsonl"
    (line,) = path.read_bytes().splitlines(keepends=True)
    seal_length = len(b'"seal":"",') + 64
    older = (line[:1] + line[1 + seal_length :]).replace(b'"error_code":"",', b"")
    assert b"error_code" not in older
    path.write_bytes(sealed(older, b'"seal":"%s",'))
    (attempt,) = attempts.attempts()
    assert (attempt.error_code, attempt.started.error_code) == ("", "")
    newer = older.replace(b'"done"', b'"added":1,"done"')
    path.write_bytes(path.read_bytes() + sealed(newer, b'"seal":"%s",'))
    assert len(attempts.attempts()) == 1  # a line of a newer version is skipped, not an error


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.logs.mkdir()
    return folder
