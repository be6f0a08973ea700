"""How a shard is finished: which manifest stays, which files go, and what gets its name back."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from embedkit.documents import FORMAT, Plan, ShardManifest, encode, read, write
from embedkit.documents.codec import NewerFormat
from embedkit.embed import publish
from embedkit.embed.publish import finished_manifest, publish_manifest, remove_unnamed, restore_names
from embedkit.errors import AttemptReplaced
from embedkit.run import RunFolder
from tests.support.reseal import reseal, shard_path


def plan_of(run: RunFolder) -> Plan:
    return read(run.plan, Plan)


def manifest_of(run: RunFolder) -> ShardManifest:
    return read(run.shard_manifest(1), ShardManifest)


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in run.shard(1).iterdir())


def own(manifest: ShardManifest) -> list[str]:
    attempt = manifest.attempt
    endings = ("combined.safetensors", "journal.jsonl", "response.safetensors")
    return sorted([*(f"{attempt}.{ending}" for ending in endings), "manifest.json"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_sound_shard_is_finished(small_embedded: RunFolder) -> None:
    run = small_embedded
    assert finished_manifest(run, plan_of(run), 1) == manifest_of(run)
    run.shard_manifest(1).unlink()
    assert finished_manifest(run, plan_of(run), 1) is None
    assert finished_manifest(run, plan_of(run), 0) is not None


def test_a_shard_whose_files_a_killed_process_renamed(small_embedded: RunFolder) -> None:
    """Its manifest and a matrix have other names, and get their own back before it is judged."""
    run, manifest = small_embedded, manifest_of(small_embedded)
    for path in (run.shard_manifest(1), shard_path(run, 1)):
        path.rename(path.with_name(f"removing-01234567.{path.name}"))
    assert finished_manifest(run, plan_of(run), 1) == manifest
    assert names(run) == own(manifest)


def test_a_manifest_that_does_not_count_is_kept_aside(
    small_embedded: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """A second one beside the first."""
    run, plan = small_embedded, plan_of(small_embedded)
    data = run.shard_manifest(1).read_bytes()
    path = shard_path(run, 1)
    flip(path)
    assert finished_manifest(run, plan, 1) is None
    assert "shard 1 is made again: " in caplog.text
    assert (run.shard(1) / "refused.json").read_bytes() == data
    assert "manifest.json" not in names(run)
    other = reseal_as(run, data, host="another")
    assert finished_manifest(run, plan, 1) is None
    assert (run.shard(1) / "refused.json").read_bytes() == data
    (second,) = run.shard(1).glob("refused-*.json")
    assert second.read_bytes() == other
    assert not list(run.shard(1).glob("removing-*"))


def reseal_as(run: RunFolder, data: bytes, **changes: object) -> bytes:
    """Put a manifest in place, changed and sealed. Returns its bytes."""
    run.shard_manifest(1).write_bytes(data)
    reseal(run.shard_manifest(1), ShardManifest, **changes)
    return run.shard_manifest(1).read_bytes()


def test_a_manifest_of_a_newer_version_stays(small_embedded: RunFolder) -> None:
    run = small_embedded
    reseal(run.shard_manifest(1), ShardManifest, format=FORMAT + 1)
    before = names(run)
    with pytest.raises(NewerFormat):
        finished_manifest(run, plan_of(run), 1)
    assert names(run) == before


def test_a_manifest_that_changes_while_it_is_judged_stays(
    small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt has replaced it by a right one: it is looked at again."""
    run, plan = small_embedded, plan_of(small_embedded)
    right = run.shard_manifest(1).read_bytes()
    reseal(run.shard_manifest(1), ShardManifest, tokens=1)
    real = publish.shard_state

    def judge(*arguments: object) -> object:
        monkeypatch.setattr(publish, "shard_state", real)
        state = real(*arguments)  # type: ignore[arg-type]
        run.shard_manifest(1).write_bytes(right)
        return state

    monkeypatch.setattr(publish, "shard_state", judge)
    found = finished_manifest(run, plan, 1)
    assert found is not None
    assert found == manifest_of(run)
    assert names(run) == own(found)


def test_renamed_files_get_their_names_back(small_embedded: RunFolder) -> None:
    """A process was killed while it removed files or judged a manifest."""
    run = small_embedded
    manifest = manifest_of(run)
    for path in list(run.shard(1).iterdir()):
        path.rename(path.with_name(f"removing-01234567.{path.name}"))
    restore_names(run.shard(1))
    assert names(run) == own(manifest)
    assert finished_manifest(run, plan_of(run), 1) == manifest
    aside = run.shard_manifest(1).with_name("removing-89abcdef.manifest.json")
    aside.write_bytes(encode(manifest))
    restore_names(run.shard(1))  # there is a manifest already
    assert names(run) == own(manifest)
    restore_names(run.path / "gone")


def test_a_manifest_without_its_files_is_not_put_back(small_embedded: RunFolder) -> None:
    run = small_embedded
    shard_path(run, 1).unlink()
    run.shard_manifest(1).rename(run.shard(1) / "removing-01234567.manifest.json")
    restore_names(run.shard(1))
    assert "manifest.json" not in names(run)
    assert not [name for name in names(run) if name.startswith("removing-")]


# Publishing


def test_the_first_manifest_is_published_and_others_files_go(small_embedded: RunFolder) -> None:
    """A file that is still open on NFS (`.nfs...`) is left to its server."""
    run = small_embedded
    manifest = manifest_of(run)
    run.shard_manifest(1).unlink()
    for name in (
        "x.combined.safetensors",
        "x.journal.jsonl",
        "y.response.safetensors.partial",
        ".nfs0001",
        "refused.json",
    ):
        (run.shard(1) / name).touch()
    publish_manifest(run, plan_of(run), manifest)
    assert names(run) == sorted([".nfs0001", *own(manifest)])
    assert manifest_of(run) == manifest


def test_another_attempts_manifest_stays(small_embedded: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Its files are sound, so those of this attempt are removed."""
    run = small_embedded
    first = manifest_of(run)
    mine = []
    for view in first.matrices:
        path = shard_path(run, 1, view)
        copy = path.with_name(path.name.replace(first.attempt, "later"))
        copy.write_bytes(path.read_bytes())
        mine.append(copy)
    records = {
        view: replace_name(matrix, matrix.file.name.replace(first.attempt, "later"))
        for view, matrix in first.matrices.items()
    }
    publish_manifest(run, plan_of(run), replace(first, attempt="later", matrices=records))
    assert manifest_of(run) == first
    assert names(run) == own(first)
    assert "another attempt finished this shard first" in caplog.text


def replace_name(matrix: object, name: str) -> object:
    return replace(matrix, file=replace(matrix.file, name=name))  # type: ignore[attr-defined,type-var]


def test_a_manifest_that_does_not_count_is_replaced(small_embedded: RunFolder) -> None:
    run = small_embedded
    right = manifest_of(run)
    reseal(run.shard_manifest(1), ShardManifest, tokens=1)
    publish_manifest(run, plan_of(run), right)
    assert manifest_of(run) == right
    assert names(run) == own(right)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["gone", "shorter"])
def test_an_attempt_whose_files_are_gone_is_withdrawn(
    when: str, how: str, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt removed them, before the manifest was linked or right after."""
    run = small_embedded
    manifest = manifest_of(run)
    path = shard_path(run, 1, "response")
    run.shard_manifest(1).unlink()

    def damage() -> None:
        path.unlink() if how == "gone" else path.write_bytes(b"short")

    real = publish.write_once
    linked: list[str] = []

    def link(target: Path, data: bytes) -> bool:
        done = real(target, data)
        linked.append(target.name)
        if when == "after":
            damage()
        return done

    monkeypatch.setattr(publish, "write_once", link)
    if when == "before":
        damage()
    with pytest.raises(AttemptReplaced) as error:
        publish_manifest(run, plan_of(run), manifest)
    assert linked == (["manifest.json"] if when == "after" else [])
    what = "missing" if how == "gone" else f"has 5 bytes, its manifest says {manifest.matrices['response'].file.bytes}"
    assert str(error.value) == (
        f"{path}: {what}. Another attempt at shard 1 removed it: that attempt finishes the shard"
    )
    assert "manifest.json" not in names(run)
    assert not [name for name in names(run) if name.startswith("removing-")]


def test_nothing_is_removed_for_another_manifest(small_embedded: RunFolder) -> None:
    run = small_embedded
    manifest = manifest_of(run)
    (run.shard(1) / "x.journal.jsonl").touch()
    before = names(run)
    remove_unnamed(run.shard(1), replace(manifest, host="another"))
    assert names(run) == before
    run.shard_manifest(1).write_bytes(b"{}")
    remove_unnamed(run.shard(1), manifest)
    assert names(run) == before


@pytest.mark.parametrize("then", ["gone", "another"])
def test_files_of_a_manifest_that_changed_get_their_names_back(
    then: str, small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is read again after the renames: only files that it does not name are removed."""
    run = small_embedded
    manifest = manifest_of(run)
    for name in ("x.combined.safetensors", "x.journal.jsonl", "y.journal.jsonl"):
        (run.shard(1) / name).touch()
    other = replace(
        manifest,
        attempt="x",
        matrices={"combined": replace_name(manifest.matrices["combined"], "x.combined.safetensors")},
    )
    real, calls = publish._current, []

    def current(folder: Path) -> ShardManifest | None:
        calls.append(folder)
        if len(calls) == 2:
            run.shard_manifest(1).unlink()
            if then == "another":
                write(run.shard_manifest(1), other)
        return real(folder)

    monkeypatch.setattr(publish, "_current", current)
    remove_unnamed(run.shard(1), manifest)
    left = {"x.combined.safetensors", "x.journal.jsonl"} | ({"y.journal.jsonl"} if then == "gone" else set())
    assert left <= set(names(run))
    assert ("y.journal.jsonl" in names(run)) == (then == "gone")
    assert not [name for name in names(run) if name.startswith("removing-")]


def test_a_late_manifest_of_another_host_is_waited_for(
    small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_embedded
    waited: list[object] = []
    monkeypatch.setattr(publish, "wait_for_files", lambda paths: waited.extend(paths))
    publish_manifest(run, plan_of(run), manifest_of(run))
    assert waited == [run.shard_manifest(1)]


def test_files_that_vanish_meanwhile_are_no_error(small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = small_embedded
    for name in ("x.journal.jsonl", "removing-01234567.y.journal.jsonl"):
        (run.shard(1) / name).touch()
    real, real_rename = Path.unlink, Path.rename

    def unlink(path: Path, missing_ok: bool = False) -> None:
        real(path, missing_ok=True)
        real(path, missing_ok=missing_ok)

    def rename(path: Path, target: Path) -> Path:
        if path.name.startswith("x."):
            real(path, missing_ok=True)
        return real_rename(path, target)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "rename", rename)
    remove_unnamed(run.shard(1), manifest_of(run))
    assert names(run) == own(manifest_of(run))
