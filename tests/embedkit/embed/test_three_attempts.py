"""Three attempts at one shard at once, in any order of their steps: one manifest counts, and its files are there."""

import errno
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.documents import open_matrix
from embedkit.documents.codec import digest, read
from embedkit.documents.schema import Plan, RunConfig, ShardManifest
from embedkit.embed.publish import finished_manifest, publish_manifest, remove_unnamed
from embedkit.embed.shard_file import ShardFile
from embedkit.embed.shard_state import shard_state
from embedkit.errors import AttemptReplaced, EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from tests.support.interleave import Actor, Killed, in_steps, run_in_order


class Shard:
    """Shard 0 of a real run, whose vectors are known, and attempts at it as an embed task makes them."""

    def __init__(self, whole: RunFolder, run: RunFolder) -> None:
        self.run = run
        self.plan: Plan = read_plan(whole, read(whole.config, RunConfig))
        self.folder = run.shard(0)
        self.whole = read(whole.shard_manifest(0), ShardManifest)
        matrix = self.whole.matrices["combined"]
        self.vectors = np.array(open_matrix(whole.shard(0) / matrix.file.name, *matrix.shape))

    def attempt(self, name: str) -> str:
        """What `embed_shards` does, with vectors that are there already."""
        finished = finished_manifest(self.run, self.plan, 0)
        if finished is None:
            try:
                self._embed(name)
                return "published"
            except (OSError, AttemptReplaced) as error:
                if isinstance(error, OSError) and error.errno != errno.ENOENT:
                    raise
                finished = finished_manifest(self.run, self.plan, 0)
                if finished is None:
                    raise
        remove_unnamed(self.folder, finished)
        return "finished by another"

    def _embed(self, name: str) -> None:
        whole, planned = self.whole, self.plan.shards[0]
        arguments: Any = (0, planned, ["combined"], digest(self.plan), whole.engine, whole.canary.before, name)
        with ShardFile(self.folder, *arguments) as file:
            file.adopt(lambda chunk, data: True)
            for chunk in whole.chunks:
                if chunk.start not in file.chunks:
                    file.append(chunk, {"combined": self.vectors[chunk.start : chunk.stop]})
            assert file.read_back() == []
            record = file.finish()["combined"]
        matrices = {"combined": msgspec.structs.replace(whole.matrices["combined"], file=record)}
        publish_manifest(self.run, self.plan, msgspec.structs.replace(whole, attempt=name, matrices=matrices))

    def is_sound(self) -> bool:
        return shard_state(self.run, self.plan, 0, "bytes").manifest is not None


class Watch:
    """After every step: who removed a finished matrix, and might it have been needed?"""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._actors: dict[str, Actor] = {}
        self._before: set[str] = set()
        self.wrong: list[str] = []

    def after(self, actor: Actor) -> None:
        self._actors[actor.name] = actor
        found = self._finished_matrices()
        for name in self._before - found:
            owner = name.partition(".")[0]
            if owner == actor.name or self._has_manifest_without(name):
                continue
            if self._actors[owner].result == "published" or not self._has_manifest():
                self.wrong.append(f"{actor.name} removed {name}")
        self._before = found

    def _finished_matrices(self) -> set[str]:
        names = [path.name for path in self._shard.folder.iterdir()] if self._shard.folder.is_dir() else []
        return {re.sub(r"^removing-\w+\.", "", name) for name in names if name.endswith(".safetensors")}

    def _has_manifest(self) -> bool:
        return (self._shard.folder / "manifest.json").exists()

    def _has_manifest_without(self, name: str) -> bool:
        try:
            manifest = read(self._shard.folder / "manifest.json", ShardManifest)
        except EmbedkitError:
            return False
        return manifest.matrices["combined"].file.name != name


ORDERS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=14)
KILLS = st.dictionaries(st.integers(0, 2), st.integers(0, 120), max_size=2)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=ORDERS, kills=st.one_of(st.just({}), KILLS), is_damaged=st.booleans())
def test_three_attempts_in_any_order(
    order: list[tuple[int, int]],
    kills: dict[int, int],
    is_damaged: bool,
    hash_run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.rmtree(run.path, ignore_errors=True)
    shard = Shard(hash_run, run)
    if is_damaged:  # all three find a manifest that does not count
        shutil.copytree(hash_run.shard(0), shard.folder)
        matrix = shard.folder / shard.whole.matrices["combined"].file.name
        matrix.write_bytes(matrix.read_bytes()[:-1] + b"?")
    names = ("a", "b", "c")
    actors = {i: Actor(name, lambda name=name: shard.attempt(name), kills.get(i)) for i, name in enumerate(names)}  # type: ignore[misc]
    watch = Watch(shard)
    with in_steps(actors.values(), monkeypatch):
        run_in_order(actors, order, watch.after)
    results = [actor.result for actor in actors.values()]
    assert watch.wrong == []
    for result in results:
        assert isinstance(result, str | Killed | AttemptReplaced | FileNotFoundError), result
    if not any(isinstance(result, Killed) for result in results):
        assert any(isinstance(result, str) for result in results)
        assert shard.is_sound()
    assert shard.attempt("last") in ("published", "finished by another")
    assert shard.is_sound()
    assert len(list(shard.folder.iterdir())) == 3
