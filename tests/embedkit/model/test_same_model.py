"""Runs of earlier versions whose token ids would differ now."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.model.same_model import require_same_model
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.reseal import reseal


@pytest.mark.parametrize(("setting", "refused"), [({"do_lower_case": True}, True), ({"do_lower_case": False}, False)])
def test_a_run_that_ignored_a_setting_is_not_continued(
    setting: dict[str, bool], refused: bool, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Some of its rows have other ids than the rest would get."""
    model = tmp_path / "model"
    shutil.copytree(tokenizer_only, model)
    (model / "sentence_bert_config.json").write_text(json.dumps(setting), encoding="utf-8")
    data = write_chats(tmp_path / "a.jsonl", [chat("A", f"B {i}") for i in range(3)])
    embedkit("run", *hash_request(data, model, tmp_path), "--shards", 1)
    run = RunFolder(tmp_path / "run")
    require_same_model(run, read(run.config, RunConfig))
    embedkit("search", run.path, "a")
    # As an earlier version wrote it: without the field.
    request = read(run.config, RunConfig).request
    reseal(run.config, RunConfig, request=msgspec.structs.replace(request, tokenizer_settings=False))
    if refused:
        with pytest.raises(EmbedkitError, match="made this run ignored them"):
            require_same_model(run, read(run.config, RunConfig))
    else:
        require_same_model(run, read(run.config, RunConfig))
