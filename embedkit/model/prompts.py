"""The prompts of a model folder: texts that a model was trained to see before a query or a document.

Source: config_sentence_transformers.json as sentence-transformers reads it. `prompts` has texts by name;
`default_prompt_name` names the one that `SentenceTransformer.encode` puts before every text.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedkit.errors import UsageError
from embedkit.model.json_file import read_json
from embedkit.model.modules import pools_prompt, read_head

log = logging.getLogger(__name__)

FILE = "config_sentence_transformers.json"
DOCUMENT_NAMES = ("document", "passage", "corpus")
"""Names of prompts for documents, in the order in which `SentenceTransformer.encode_document` looks for them."""


@dataclass(frozen=True)
class Prompts:
    """Prompts by name, and the name of the one that is put before every text unless another is chosen."""

    by_name: Mapping[str, str]
    default: str | None

    def text(self, name: str, model: Path) -> str:
        """The prompt of this name. Raises UsageError with the names that there are."""
        if name not in self.by_name:
            names = ", ".join(sorted(self.by_name))
            there = f"the model's prompts are: {names}" if names else "the model has none; --prefix takes any text"
            raise UsageError(f"--prompt {name}: {model / FILE} has no such prompt; {there}")
        return self.by_name[name]


def read_prompts(model: Path) -> Prompts:
    """The prompts of a model folder. Raises UsageError if they are not texts, or if the default is not among them."""
    config = read_json(model, FILE)
    by_name, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(by_name, dict) or not all(isinstance(text, str | None) for text in by_name.values()):
        raise UsageError(f"{model / FILE}: prompts is not an object of texts")
    if default is not None and (not isinstance(default, str) or default not in by_name):
        raise UsageError(f"{model / FILE}: default_prompt_name is {default!r}, which is not among its prompts")
    return Prompts({name: text or "" for name, text in by_name.items()}, default)


def choose_prefix(model: Path, prompt: str | None, prefix: str | None) -> str:
    """The text that is put before every text; "" for none.

    Args:
        model: the model folder.
        prompt: the name of one of its prompts, or None.
        prefix: a text, or None. Without both, the model's default prompt is used, if it has one.

    Raises UsageError if both are given, or the model has no such prompt, or does not pool the tokens of a prompt.
    """
    if prompt is not None and prefix is not None:
        raise UsageError("--prompt and --prefix exclude each other")
    text = _chosen(model, prompt, prefix)
    if text and (model / "modules.json").is_file() and not pools_prompt(model):
        raise UsageError(
            f"{read_head(model).pooling_file}: include_prompt is false: the model pools no token of a prompt, which no "
            "engine does. Without a prompt (--prefix '') the vectors are right"
        )
    return text


def _chosen(model: Path, prompt: str | None, prefix: str | None) -> str:
    if prefix is not None:
        return prefix
    prompts = read_prompts(model)
    if prompt is not None:
        return prompts.text(prompt, model)
    if prompts.default is not None:
        text = prompts.by_name[prompts.default]
        log.info("each row begins with the model's default prompt %r: %r", prompts.default, text)
        return text
    unused = [name for name in DOCUMENT_NAMES if prompts.by_name.get(name)]
    if unused:
        log.warning(
            "the model has a prompt for documents, and rows are embedded without it. --prompt %s puts %r before each "
            "row, --prefix '' leaves this warning out",
            *(unused[0], prompts.by_name[unused[0]]),
        )
    return ""
