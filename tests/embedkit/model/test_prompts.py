"""Prompts of a model folder, held against sentence-transformers' own reader."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import UsageError
from embedkit.model.prompts import choose_prefix, read_prompts

E5 = {"query": "query: ", "document": "passage: "}


def folder(path: Path, **config: Any) -> Path:
    """A model folder with these settings of sentence-transformers and nothing else."""
    (path / "config_sentence_transformers.json").write_text(json.dumps(config), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("config", "prompt", "prefix", "right"),
    [
        ({"prompts": E5, "default_prompt_name": "document"}, None, None, "passage: "),
        ({"prompts": E5, "default_prompt_name": "query"}, None, None, "query: "),
        ({"prompts": E5, "default_prompt_name": "document"}, "query", None, "query: "),
        ({"prompts": E5, "default_prompt_name": "document"}, None, "", ""),
        ({"prompts": E5, "default_prompt_name": "document"}, None, "title: none | text: ", "title: none | text: "),
        ({"prompts": E5, "default_prompt_name": None}, None, None, ""),
        ({"prompts": E5}, "document", None, "passage: "),
        ({"prompts": {"document": None}, "default_prompt_name": "document"}, None, None, ""),
        ({"prompts": None}, None, None, ""),
        ({}, None, None, ""),
    ],
)
def test_what_is_put_before_each_row(
    config: dict[str, Any], prompt: str | None, prefix: str | None, right: str, tmp_path: Path
) -> None:
    assert choose_prefix(folder(tmp_path, **config), prompt, prefix) == right


def test_a_folder_without_the_file_has_no_prompts(tmp_path: Path) -> None:
    assert choose_prefix(tmp_path, None, None) == ""
    assert read_prompts(tmp_path).by_name == {}


@pytest.mark.parametrize(
    ("config", "prompt", "prefix", "message"),
    [
        (
            {"prompts": E5},
            "passage",
            None,
            r"--prompt passage: .*no such prompt; the model's prompts are: document, qu",
        ),
        ({}, "query", None, "--prompt query: .*the model has none; --prefix takes any text"),
        ({"prompts": E5}, "query", "x", "--prompt and --prefix exclude each other"),
        ({"prompts": E5, "default_prompt_name": "doc"}, None, None, "default_prompt_name is 'doc', which is not among"),
        ({"prompts": ["query: "]}, None, None, "prompts is not an object of texts"),
        ({"prompts": {"query": 3}}, None, None, "prompts is not an object of texts"),
        ({"prompts": E5, "default_prompt_name": ["query"]}, None, None, "default_prompt_name is"),
    ],
)
def test_prompts_that_cannot_be_used(
    config: dict[str, Any], prompt: str | None, prefix: str | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_prefix(folder(tmp_path, **config), prompt, prefix)


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_a_document_prompt_that_is_not_used_is_a_warning(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """sentence-transformers uses it in encode_document, not in encode: the folder does not say which is meant."""
    model = folder(tmp_path, prompts={"query": "q: ", name: "d: "}, default_prompt_name=None)
    assert choose_prefix(model, None, None) == ""
    assert f"--prompt {name} puts 'd: ' before each row" in caplog.text
    caplog.clear()
    choose_prefix(model, None, "")
    choose_prefix(model, name, None)
    choose_prefix(folder(tmp_path, prompts={"query": "q: ", "document": ""}), None, None)
    assert not caplog.records


def test_a_default_prompt_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        choose_prefix(folder(tmp_path, prompts=E5, default_prompt_name="document"), None, None)
    assert "each row begins with the model's default prompt 'document': 'passage: '" in caplog.text


def test_a_prompt_that_is_not_pooled_is_refused(tmp_path: Path) -> None:
    """Models such as instructor leave the tokens of a prompt out of the mean. Without a prompt nothing differs."""
    kinds = ["Transformer", "Pooling"]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (tmp_path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (tmp_path / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "include_prompt": False}
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    model = folder(tmp_path, prompts=E5, default_prompt_name="document")
    for prompt, prefix in ((None, None), ("query", None), (None, "x")):
        with pytest.raises(UsageError, match=r"1_Pooling/config\.json: include_prompt is false"):
            choose_prefix(model, prompt, prefix)
    assert choose_prefix(model, None, "") == ""
