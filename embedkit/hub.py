"""Data sets and models of the Hugging Face Hub: fetched once into its cache, pinned to a commit.

Only the machine where a run is asked for calls out; jobs open the fetched files. Credentials, cache, mirror and
offline mode are those of huggingface_hub (HF_TOKEN, HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from embedkit.errors import EmbedkitError, UsageError

DATA_FILES = ["*.parquet", "*.jsonl"]
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def is_hub_id(name: str) -> bool:
    """Whether a name is an `owner/name` of the Hub and nothing local."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not Path(name).exists()


def fetch_dataset(repo: str, revision: str | None, split: str | None) -> tuple[list[Path], str]:
    """The data set's Parquet and JSONL files, sorted, and the commit they are of.

    With a split, the files that have its name as a word of their path, as `datasets` recognises splits.
    """
    folder = _snapshot(repo, "dataset", revision, DATA_FILES)
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".parquet", ".jsonl"))
    if split is not None:
        word = re.compile(rf"(?<![a-zA-Z0-9]){re.escape(split)}(?![a-zA-Z0-9])")
        files = [p for p in files if word.search(p.relative_to(folder).as_posix())]
    if not files:
        of_split = "" if split is None else f" of split {split!r}"
        raise UsageError(f"--dataset {repo}: no Parquet or JSONL files{of_split} in it")
    return files, folder.name


def fetch_model(repo: str, revision: str | None) -> tuple[Path, str]:
    """The folder with the model's files and the commit they are of."""
    folder = _snapshot(repo, "model", revision, MODEL_FILES)
    return folder, folder.name


def _snapshot(repo: str, kind: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """Fetch what is not in the cache yet; the snapshot's folder is named by its commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=list(patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        at = f" at {revision}" if revision else ""
        raise EmbedkitError(f"{kind} {repo}{at} cannot be fetched from the Hub: {first_line}") from None
    return Path(str(found))
