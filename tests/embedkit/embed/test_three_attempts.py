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

import embedkit.embed.publish
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
            published = owner in self._actors and self._actors[owner].result == "published"
            if published or not self._has_manifest():
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


ORDERS = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), max_size=14)
KILLS = st.dictionaries(st.integers(0, 2), st.integers(0, 60), max_size=2)


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
    with in_steps(actors.values(), monkeypatch, lambda path: path.endswith(("manifest.json", ".safetensors"))):
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


def other_attempt(shard: Shard, name: str) -> ShardManifest:
    """A second whole attempt at the finished shard, about to publish its manifest."""
    matrix = shard.whole.matrices["combined"]
    record = msgspec.structs.replace(matrix.file, name=f"{name}.combined.safetensors")
    shutil.copy(shard.folder / matrix.file.name, shard.folder / record.name)
    return msgspec.structs.replace(
        shard.whole, attempt=name, matrices={"combined": msgspec.structs.replace(matrix, file=record)}
    )


def test_files_get_their_names_back_if_the_manifest_changed(
    hash_run: RunFolder, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two looks at the manifest it is put aside, and another attempt publishes its own."""
    shard = Shard(hash_run, damaged_run)
    manifest = other_attempt(shard, "late")
    looks = iter((True, False))
    look = embedkit.embed.publish._current

    def current(folder: Path) -> ShardManifest | None:
        found = look(folder)
        if next(looks, False):
            (folder / "manifest.json").unlink()
            publish_manifest(damaged_run, shard.plan, manifest)
        return found

    monkeypatch.setattr(embedkit.embed.publish, "_current", current)
    remove_unnamed(shard.folder, shard.whole)
    assert look(shard.folder) == manifest
    assert shard.is_sound()


@pytest.mark.parametrize("is_renamed", [True, False], ids=["answer-lost", "name-hidden"])
@pytest.mark.parametrize(("delay", "left"), [(60.0, 0), (0.0, 1)], ids=["network", "local"])
def test_with_a_stand_in_rename_a_hidden_name_is_removed_later(
    is_renamed: bool,
    delay: float,
    left: int,
    hash_run: RunFolder,
    damaged_run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first rename fails as on NFS, where the new or the old name stays hidden from this host for a while."""
    shard = Shard(hash_run, damaged_run)
    other_attempt(shard, "late")
    hidden: set[str] = set()
    renames: list[Path] = []
    rename, unlink = Path.rename, Path.unlink

    def first_fails(path: Path, target: Path) -> Path:
        renames.append(path)
        if is_renamed or len(renames) > 1:
            rename(path, target)
        if len(renames) == 1:
            hidden.add(target.name)
            raise FileNotFoundError(errno.ENOENT, "", str(path))
        return target

    def unlink_seen(path: Path, missing_ok: bool = False) -> None:
        if path.name not in hidden:
            unlink(path, missing_ok)

    monkeypatch.setattr(embedkit.embed.publish, "visibility_delay", lambda folder: delay)
    monkeypatch.setattr("time.sleep", lambda seconds: hidden.clear())
    monkeypatch.setattr(Path, "rename", first_fails)
    monkeypatch.setattr(Path, "unlink", unlink_seen)
    remove_unnamed(shard.folder, shard.whole)
    assert len([path for path in shard.folder.iterdir() if "late" in path.name]) == left
    assert shard.is_sound()


def test_a_manifest_without_its_files_is_withdrawn(
    hash_run: RunFolder, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its matrix is removed by an attempt that finished, whose manifest is then put aside, before it is linked."""
    shard = Shard(hash_run, damaged_run)
    manifest = other_attempt(shard, "late")
    link = embedkit.embed.publish.write_once

    def late_link(path: Path, data: bytes) -> bool:
        remove_unnamed(shard.folder, shard.whole)
        path.unlink()
        return link(path, data)

    monkeypatch.setattr(embedkit.embed.publish, "write_once", late_link)
    with pytest.raises(AttemptReplaced, match=r"late\.combined\.safetensors: missing\. Another attempt at shard 0"):
        publish_manifest(damaged_run, shard.plan, manifest)
    assert not (shard.folder / "manifest.json").exists()
