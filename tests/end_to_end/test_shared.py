"""A run folder that is shared with a group, and what others may put there."""

import os
import pickle
import shutil
import stat
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.local.queue import Job, LocalQueue, make_slots
from tests.conftest import ROOT, chat, embedkit, hash_request, write_chats

GROUP = 4242


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "umask"), [(0o2770, 0o077), (0o2750, 0o022), (0o700, 0o022), (0o755, 0o077)])
def test_files_are_as_open_as_the_run_folder(mode: int, umask: int, tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(f"{i}", "a") for i in range(20)], ["a", "b"] * 10)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    if os.geteuid() == 0:
        os.chown(run.path, -1, GROUP)
    run.path.chmod(mode)
    before = os.umask(umask)
    try:
        embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path))
        embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
        run.success.unlink()
        shutil.rmtree(run.shard(1))
        embedkit("embed", run.path)
        embedkit("merge", run.path)
    finally:
        os.umask(before)
    paths = list(run.path.rglob("*"))
    assert len(paths) > 30
    for path in paths:
        found = path.lstat()
        wanted = mode & 0o2077 if path.is_dir() else mode & 0o066
        assert stat.S_IMODE(found.st_mode) & 0o7077 == wanted, f"{path}: {stat.filemode(found.st_mode)}"
        if mode & stat.S_ISGID:
            assert found.st_gid == run.path.stat().st_gid, path
    assert not (run.logs / "submitit").exists()


class Marker:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> "tuple[object, tuple[object, ...]]":
        return (os.mkdir, (str(self._path),))


def work(path: Path) -> None:
    path.touch()


def die(path: Path) -> None:
    os.kill(os.getpid(), 9)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    return folder


def test_a_foreign_pickle_is_never_loaded(run: RunFolder, tmp_path: Path) -> None:
    """submitit's files have names made of process ids, which can be guessed."""
    marker = tmp_path / "marker"
    there = run.logs / "submitit"
    there.mkdir()
    evil = pickle.dumps(Marker(marker))
    newest = int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[-1])
    for pid in range(newest, newest + 3000):
        for name in ("submitted", "0_result"):
            (there / f"{pid}_{name}.pkl").write_bytes(evil)
    queue = LocalQueue(run, make_slots(1, []))
    failures = queue.run([Job("a", work, (tmp_path / "done",)), Job("b", die, (tmp_path,))], lambda: None)
    assert list(failures) == ["b"]
    assert failures["b"].startswith("it ended without logging an error (killed?)\n")
    assert stat.S_IMODE(there.stat().st_mode) == 0o700
    assert (tmp_path / "done").exists()
    assert not marker.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_pickles_of_another_user_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (run.logs / "submitit").mkdir()
    os.chown(run.logs / "submitit", GROUP, -1)
    with pytest.raises(EmbedkitError, match=r"logs/submitit is not yours, .*; move it away, and resume"):
        LocalQueue(run, make_slots(1, [])).run([Job("a", work, (tmp_path / "done",))], lambda: None)
    assert not (tmp_path / "done").exists()


def test_nothing_but_submitit_unpickles() -> None:
    """No module of ours loads pickles, directly or through numpy or torch."""
    for path in [*(ROOT / "embedkit").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")]:
        text = path.read_text().replace("allow_pickle=False", "")
        # In commands for people, which run no code.
        for shown in ('torch.load(f, "cpu", weights_only=True)', 'f"X = np.load({str(within / VECTORS)!r}'):
            text = text.replace(shown, "")
        for loader in ("import pickle", "cloudpickle", "np.load", "torch.load", "allow_pickle", "joblib", "marshal"):
            assert loader not in text, f"{path}: {loader}"
