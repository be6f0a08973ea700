"""The note about several GPU models, and where status and report show it. The models are made up."""

import json

import msgspec
import pytest

from embedkit.documents.codec import read, write
from embedkit.documents.schema import ShardManifest
from embedkit.run import RunFolder
from jobs.monitor.mixed_gpus import mixed_gpus_note
from tests.conftest import embedkit


@pytest.mark.parametrize("shards", [[], [(0, "")], [(0, "A"), (1, "A")], [(0, "A"), (1, "")]])
def test_one_made_up_gpu_model_is_no_note(shards: list[tuple[int, str]]) -> None:
    assert mixed_gpus_note(shards) == ()


def test_made_up_gpu_models_are_named_with_their_shards() -> None:
    (note,) = mixed_gpus_note([(0, "B"), (1, "A"), (2, "B"), (3, "B")])
    assert note.endswith("only with --allow-mixed: A: shards 1; B: shards 0,2-3")
    (note,) = mixed_gpus_note((shard, "AB"[shard % 2]) for shard in range(1000))
    assert "... (500); B: shards 1,3," in note
    assert len(note) < 350


def test_status_and_report_name_made_up_gpu_models(damaged_run: RunFolder) -> None:
    for shard, gpu in enumerate(("A", "A", "B")):
        manifest = read(damaged_run.shard_manifest(shard), ShardManifest)
        engine = msgspec.structs.replace(manifest.engine, gpu=gpu)
        write(damaged_run.shard_manifest(shard), msgspec.structs.replace(manifest, engine=engine))
    for command in ("status", "report"):
        said = json.loads(embedkit(command, damaged_run.path, "--json").stdout)
        assert any("A: shards 0-1; B: shards 2" in note for note in said["notes"])
        assert "A: shards 0-1; B: shards 2" in embedkit(command, damaged_run.path).stdout
