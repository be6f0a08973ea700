"""What the cases use: data, a model, an undisturbed run, and copies of it after each stage."""

import os
import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import Success
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.conftest import EMBEDKIT, ROOT, chat, snapshot, write_chats
from tests.support.models import make_tiny_qwen, make_tokenizer

CRASH = str(ROOT / "tests" / "support" / "crash")
MARK = "EMBEDKIT_FAULTS_CASE"
COMMAND_SECONDS = 240
TOLERANCE = {"hash": 0.0, "vllm": 1e-6}
ROWS = {"hash": 12_400, "vllm": 600}
"""Rows of the data: with the hash engine four parts, and four shards of six chunks."""

NOT_PROMISED = {
    "logs": re.compile(r"logs/.*"),  # for people; no step reads them, except to quote an error
    "lease": re.compile(r".*\.lease"),  # names a living process; means nothing once it has ended
    "journal": re.compile(r".*\.journal\.jsonl"),  # read up to the first damaged line; of a finished shard never
    "partial matrix": re.compile(r".*\.safetensors\.partial"),  # chunks count one by one, by the hashes in the journal
}
"""Files whose damage verify may miss. Whatever happens to them, the end state must be right."""

_ATTEMPT = re.compile(r"(shards/\d+/)[^/]+?(\.journal\.jsonl|\.safetensors|\.safetensors\.partial)$")


def is_promised(name: str) -> bool:
    """Whether a file of a run must be found by verify when it is damaged."""
    return not any(pattern.fullmatch(name) for pattern in NOT_PROMISED.values())


def without_attempt(name: str) -> str:
    """A file's name without the attempt's random part."""
    return _ATTEMPT.sub(r"\1*\2", name)


def files_of(run: RunFolder) -> list[str]:
    """All files of a run except its logs, relative to it, sorted."""
    names = (path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file())
    return sorted(name for name in names if not re.fullmatch(r"logs/[^/]+\.log", name))


def make_chats(path: Path, rows: int) -> Path:
    """Short chats of three sources; some are dropped for each reason."""
    rng = random.Random(1)
    words = ["river", "stone", "lamp", "π", "漢字", "engine", "seven", "9 8 7", "🙂", "so"]
    chats: list[Any] = []
    for i in range(rows):
        text = " ".join(rng.choices(words, k=rng.randint(1, 8)))
        if i % 301 == 5:
            chats.append([{"role": "user", "content": text}])
        elif i % 307 == 6:
            chats.append(chat(" ", "\n"))
        elif i % 311 == 7:
            chats.append(chat("long", text * 300))
        else:
            chats.append(chat(text, f"<think>{i}</think> {text}" if i % 5 == 0 else text))
    return write_chats(path, chats, [f"source {i % 3}" if i % 3 else "a/b" for i in range(rows)])


class World:
    """The undisturbed run, its request, and copies of it."""

    def __init__(self, folder: Path, engine: str = "hash") -> None:
        self.folder = folder
        self.engine = engine
        folder.mkdir(parents=True)
        self._data = make_chats(folder / "chats.parquet", ROWS[engine])
        self._model = folder / "model"
        if engine == "hash":
            make_tokenizer(self._model)
        else:
            make_tiny_qwen(self._model)
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self.states: dict[str, Path] = {}
        self._make_states()
        self.undisturbed = RunFolder(self.states["merged"])
        self._snapshot = snapshot(self.undisturbed)
        self.files = sorted(map(without_attempt, files_of(self.undisturbed)))

    def request(self, run: Path) -> list[object]:
        """Options that request the run at that path, or resume it."""
        return [
            *("--dataset", self._data, "--model", self._model, "--engine", self.engine, "--max-length", 512, "--full"),
            *("--shards", 4, "--output-dir", run.parent, "--run-name", run.name, "--resume"),
        ]

    def command(self, name: str, run: Path) -> list[str]:
        """A stage's command for a run, whatever exists of it."""
        arguments = {
            "prepare": ["prepare", *self.request(run), "--workers", 2],
            "embed": ["embed", run],
            "merge": ["merge", run],
            "run": ["run", *self.request(run), "--num-gpus", 2],
        }
        return [*EMBEDKIT, *map(str, arguments[name])]

    def seconds(self, name: str) -> float:
        """How many seconds a stage takes undisturbed."""
        with self._lock:
            if name not in self._seconds:
                self._timed(name, self.folder / "timed")
            return self._seconds[name]

    def copy(self, state: str, to: Path) -> RunFolder:
        """A fresh copy of the run in a state; the state "nothing" has no file."""
        if state != "nothing":
            shutil.copytree(self.states[state], to)
        return RunFolder(to)

    def difference(self, run: RunFolder) -> list[str]:
        """How a finished run differs from the undisturbed one; empty if they are equal."""
        try:
            found = snapshot(run)
            success, expected = read(run.success, Success), read(self.undisturbed.success, Success)
        except (OSError, EmbedkitError) as error:
            return [f"incomplete: {error}"]
        names = sorted(found.keys() ^ self._snapshot.keys())
        wrong = [f"{name}: exists in only one of the two" for name in names]
        wrong += [
            f"{name}: bytes differ from the undisturbed run's"
            for name in sorted(found.keys() & self._snapshot.keys())
            if not self._same(name, found[name], self._snapshot[name])
        ]
        fields = ["request_sha256", "plan_sha256", "rows", "dim", "dropped", "tokens", "sources", "engines"]
        fields += ["files"] if self.engine == "hash" else []
        wrong += [f"_SUCCESS.json: a different {f}" for f in fields if getattr(success, f) != getattr(expected, f)]
        report = verify(run)
        wrong += [f"verify: {problem.file}: {problem.what}" for problem in report.problems]
        if report.stage != "done":
            wrong.append(f"verify: stage {report.stage}")
        return wrong

    def leftovers(self, run: RunFolder) -> list[str]:
        """Files that only one of a finished run and the undisturbed run has."""
        expected = list(self.files)
        extra = []
        for name in files_of(run):
            if without_attempt(name) in expected:
                expected.remove(without_attempt(name))
            else:
                extra.append(f"left over: {name}")
        return extra + [f"missing: {name}" for name in expected]

    def _same(self, name: str, one: bytes, other: bytes) -> bool:
        if one == other or not TOLERANCE[self.engine] or not name.endswith(".safetensors"):
            return one == other
        a, b = load(one)["embeddings"], load(other)["embeddings"]
        return a.shape == b.shape and bool(np.abs(a - b).max() <= TOLERANCE[self.engine])

    def _make_states(self) -> None:
        run = self.folder / "undisturbed"
        for stage, state in (("prepare", "prepared"), ("embed", "embedded"), ("merge", "merged")):
            self._timed(stage, run)
            self.states[state] = self.folder / state
            shutil.copytree(run, self.states[state])
        # Between two chunks of a shard: two shards are finished, one is begun, one is not.
        begun = RunFolder(self.folder / "begun")
        shutil.copytree(self.states["embedded"], begun.path)
        for shard in (2, 3):
            shutil.rmtree(begun.shard(shard))
        environment = os.environ | {"PYTHONPATH": CRASH, "EMBEDKIT_TEST_KILL_AT": "11"}
        subprocess.run(
            [*EMBEDKIT, "embed", str(begun.path), "--shard", "2"], cwd=ROOT, env=environment, capture_output=True
        )
        assert any(begun.shard(2).glob("*.partial"))
        self.states["begun"] = begun.path

    def _timed(self, name: str, run: Path) -> None:
        began = time.monotonic()
        done = subprocess.run(self.command(name, run), cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"undisturbed {name} failed: {done.stderr}")
        self._seconds[name] = time.monotonic() - began


def processes_of(mark: str) -> list[int]:
    """Ids of the living processes that a case started, without zombies."""
    return list(_marked(f"{MARK}={mark}".encode()))


def _marked(mark: bytes) -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name)
        except OSError:
            continue
