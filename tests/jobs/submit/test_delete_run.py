"""`--overwrite` deletes a run completely, and only one on which nobody works."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from embedkit.embed.embed_lock import embed_lock
from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder
from embedkit.storage import holder_of, require_held, run_lock
from embedkit.storage.holder import Holder
from jobs.profiles.schema import Resources
from jobs.records import Submissions
from jobs.records.submission import new_submission
from jobs.submit import cancel_run, delete_run
from jobs.submit import delete_run as function
from tests.conftest import ROOT, embedkit, hash_request

module = sys.modules[function.__module__]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that has finished work, on a machine without Slurm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    made = RunFolder(tmp_path / "a [run]")
    for folder in (made.parts, made.embeddings, made.logs):
        folder.mkdir(parents=True)
    (made.embeddings / "work").touch()
    return made


@pytest.mark.parametrize("stage", ["run_lock", "submit_lock", "prepare_lock", "merge_lock", "analysis_lock", "embed"])
def test_a_run_on_which_a_process_works_is_kept(stage: str, run: RunFolder) -> None:
    lock = embed_lock(run) if stage == "embed" else run_lock(getattr(run, stage), "at this run")
    with lock, pytest.raises(EmbedkitError, match=rf"is not deleted: process {os.getpid()} on .* this run since 2"):
        delete_run(run)
    assert (run.embeddings / "work").exists()
    delete_run(run)
    assert list(run.path.parent.iterdir()) == []


@pytest.mark.parametrize("stage", ["merge_lock", "embed"])
def test_a_run_is_kept_while_its_lock_is_renamed(stage: str, run: RunFolder) -> None:
    """The process that looks whose lock it is may have been killed then; the holder goes on."""
    path = run.embed_lock("1") if stage == "embed" else run.merge_lock
    with run_lock(path, "at this run"):
        path.rename(path.with_name(f".{path.name}.0.aside"))
        require_held(path)
        assert holder_of(path)
        with pytest.raises(EmbedkitError, match=rf"is not deleted: process {os.getpid()} on "):
            delete_run(run)
    delete_run(run)
    assert list(run.path.parent.iterdir()) == []


def test_locks_of_killed_embeds_are_removed_by_the_next(run: RunFolder) -> None:
    with embed_lock(run):
        held = run.embed_lock(next(path.stem.removeprefix("embed-") for path in run.path.glob("embed-*.lease")))
        living = held.read_bytes()
        ended = msgspec.json.encode(msgspec.structs.replace(msgspec.json.decode(living, type=Holder), pid=2**22 + 1))
        for name in ("embed-1.lease", ".embed-2.lease.a.aside"):
            (run.path / name).write_bytes(ended)
        (run.path / ".embed-3.lease.b.new.tmp").write_bytes(b"{")
        with embed_lock(run):
            assert held.read_bytes() == living
            assert len([path for path in run.path.iterdir() if "embed-" in path.name]) == 2
    assert not [path for path in run.path.iterdir() if "embed-" in path.name]


def test_a_lock_that_cannot_be_judged_is_named(run: RunFolder) -> None:
    run.merge_lock.write_bytes(msgspec.json.encode(Holder("elsewhere", 1, "then", "token")))
    with pytest.raises(EmbedkitError, match=r"merging this run\..* a different host.* type: rm '.*merge\.lease'"):
        delete_run(run)
    run.merge_lock.write_bytes(b"")
    with pytest.raises(EmbedkitError, match="its lock cannot be read"):
        delete_run(run)
    assert (run.embeddings / "work").exists()


def test_a_process_that_begins_at_that_moment_keeps_its_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = run_lock(run.merge_lock, "merging this run")
    begins = SimpleNamespace(token_hex=lambda count: lock.__enter__() or "0" * 2 * count)
    monkeypatch.setattr(module, "secrets", begins)  # the last step before the rename
    with pytest.raises(EmbedkitError, match=r"is not deleted: process .* is merging this run"):
        delete_run(run)
    assert (run.embeddings / "work").exists()
    lock.__exit__(None, None, None)


def test_a_killed_deletion_leaves_nothing_under_the_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = module.shutil.rmtree

    def killed(path: Path) -> None:
        (path / "embeddings" / "work").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        delete_run(run)
    assert not run.path.exists()
    monkeypatch.setattr(module.shutil, "rmtree", honest)
    run.path.mkdir()
    (left,) = run.path.parent.glob(".deleting-*")
    with run_lock(RunFolder(left).merge_lock, "merging this run"):  # the command was killed before it could put it back
        delete_run(run)
        assert list(run.path.parent.iterdir()) == [left]
        assert "is merging this run since 2" in capsys.readouterr().err
    run.path.mkdir()
    delete_run(run)
    assert list(run.path.parent.iterdir()) == []


def test_a_run_that_another_command_deletes_first_is_named(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = SimpleNamespace(token_hex=lambda count: run.path.rename(run.path.with_name("renamed")) and "0" * 2 * count)
    monkeypatch.setattr(module, "secrets", first)  # the last step before the rename
    for _ in range(2):
        with pytest.raises(EmbedkitError, match=r"is not there any more: another command is deleting it; type this"):
            delete_run(run)


def test_submitted_jobs_without_an_end_are_asked_for(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Slurm nobody can say that they have ended; a recorded end, or a cancellation, says so."""
    record = Submissions(run)
    for stage, job in (("prepare", "7"), ("merge", "8")):
        line = new_submission(stage, "", "", "submit", "test", Resources(time=60, mem=1, cpus=1))  # type: ignore[arg-type]
        record.add(line)
        record.add_answer(line, "submitted", job)
    with pytest.raises(UsageError, match="its jobs 7 8 may be queued or running, and there is no Slurm here"):
        delete_run(run)
    run.plan.touch()
    with pytest.raises(UsageError, match="its jobs 8 may be queued"):
        delete_run(run)
    run.success.touch()
    delete_run(run)
    assert not run.path.exists()


def test_cancel_signals_only_a_process_that_it_can_see(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pid on a host of the same name, or after a restart, is a different process."""
    with run_lock(run.run_lock, "running this run"):
        held = msgspec.json.decode(run.run_lock.read_bytes(), type=Holder)
        run.run_lock.write_bytes(msgspec.json.encode(msgspec.structs.replace(held, boot="another")))
        monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("a signal"))
        with pytest.raises(EmbedkitError, match="interrupt it there"):
            cancel_run(run)


def test_overwrite_names_a_living_embed(damaged_run: RunFolder, small_chats: Path, tokenizer_only: Path) -> None:
    """Two real commands; a stand-in stops the first one at its first chunk."""
    stand_in = (
        "from embedkit.engines.hash import HashEngine; HashEngine.embed = lambda *_: print(flush=True) or input()"
    )
    (damaged_run.shard(1) / "manifest.json").unlink()
    command = f"{stand_in}; from embedkit.embed import embed_shards; from embedkit.run import RunFolder; import sys; "
    command += "from pathlib import Path; embed_shards(RunFolder(Path(sys.argv[1])), [1])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", command, str(damaged_run.path)], cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        process.stdout.readline()
        request = hash_request(small_chats, tokenizer_only, damaged_run.path.parent)
        refused = embedkit("prepare", *request, "--overwrite", check=False)
        process.kill()
        assert process.wait() == -signal.SIGKILL  # it was alive until now
    assert refused.returncode == 1
    assert f"process {process.pid} on " in refused.stderr
    assert "is embedding shards of this run since" in refused.stderr
    assert damaged_run.shard(0).exists()
