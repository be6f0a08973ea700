"""Fetches data sets and models from the Hugging Face Hub into its cache, pinned to a commit, and checks them.

Only the machine where a run is created uses the network, and it calls only the Hub. Jobs open the fetched files.
Credentials, cache, mirror and offline mode are those of huggingface_hub (HF_TOKEN, HF_HOME, HF_ENDPOINT,
HF_HUB_OFFLINE). huggingface_hub resumes interrupted downloads and retries most calls. This module retries the other
calls and checks sizes, and the sha256 by which the cache names the blob of a large file. hub_errors.py decides which
errors are retried, and explains the rest.
"""

import glob
import logging
import sys
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from embedkit.data.hub_errors import DamagedFile, Kind, call_with_retries, explain_hub_errors
from embedkit.data.hub_splits import CARD_FILES, choose_files
from embedkit.data.left_out import NAMES
from embedkit.documents import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.model import is_identity
from embedkit.run import RunFolder
from embedkit.storage import sha256_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DataSource:
    """Files of a data set in row order and, if they come from the Hub, their repository and commit."""

    paths: list[Path]
    repo: str | None = None
    commit: str | None = None
    config: str | None = None
    split: str | None = None


def fetch_dataset(name: str, revision: str | None, config: str | None, split: str | None) -> DataSource:
    """Fetch the files of one split of a data set.

    Args:
        name: `owner/name`.
        revision: commit, tag or branch; None for the default branch.
        config: configuration; None for the only or the default one.
        split: None for `train`, or the only split; `all` for all splits.

    Raises:
        UsageError: there is no such data set, revision, configuration or split.
        EmbedkitError: the Hub cannot be reached, requires a token, or keeps failing; the disk is full.
    """
    repo = _Repo.find(name, "dataset", revision)
    cards = repo.fetch([card for card in CARD_FILES if card in repo.sizes])
    chosen = choose_files(name, repo.sizes, cards, config, split)
    if split is None and chosen.other_splits:
        others = ", ".join(chosen.other_splits)
        log.warning(
            "dataset %s: split %s is read; there are also: %s (choose with --split; `all` reads all)",
            name,
            chosen.split,
            others,
        )
    if chosen.left_out:
        more = ", ..." if len(chosen.left_out) > NAMES else ""
        log.warning(
            "dataset %s: %d not read, since `datasets` has them in no split: %s",
            *(name, len(chosen.left_out), ", ".join(chosen.left_out[:NAMES]) + more),
        )
    folder = repo.fetch(chosen.files)
    return DataSource([folder / file for file in chosen.files], name, repo.commit, chosen.config, chosen.split)


def fetch_model(name: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a model's weights, configuration and tokenizer. Returns (folder, commit). Raises as fetch_dataset."""
    repo = _Repo.find(name, "model", revision)
    return repo.fetch(model_names(repo.sizes)), repo.commit


def require_fetched(run: RunFolder, config: RunConfig, *, data: bool = True) -> None:
    """Raise EmbedkitError if files that the run has from the Hub are no longer in the cache.

    The error names the command that fetches them again. `data`: check the data files, too, not only the model.
    """
    where = config.locations
    files = list(where.data) if data and where.data_repo else []
    files += [str(Path(where.model) / file.name) for file in config.request.model_files] if where.model_repo else []
    gone = [file for file in files if not Path(file).is_file()]
    if gone:
        more = f" and {len(gone) - 1} more files" if len(gone) > 1 else ""
        raise EmbedkitError(f"{gone[0]}{more}: missing from the Hub's cache; to fetch again: {run.fetch_command}")


def model_names(names: Collection[str]) -> list[str]:
    """Names of the model's files that decide its vectors, sorted."""
    return [name for name in sorted(names) if is_identity(PurePosixPath(name))]


@dataclass(frozen=True)
class _Repo:
    """A repository at one commit. `sizes` has the size in bytes of every file, by name."""

    name: str
    kind: Kind
    commit: str
    sizes: Mapping[str, int]

    @classmethod
    def find(cls, name: str, kind: Kind, revision: str | None) -> "_Repo":
        """Resolve the revision and list the commit's files. The cache keeps both for offline use."""
        from huggingface_hub import HfApi, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        def listing() -> dict[str, int]:
            try:
                tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
            except CachedRepoTreeNotFoundError:  # every download caches the listing; this one is small
                _download(name, kind, commit, [".gitattributes", *CARD_FILES, "tokenizer_config.json"])
                tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
            return {file.path: file.size for file in tree}

        with explain_hub_errors(name, kind, revision):
            found = call_with_retries(
                f"{kind} {name}", lambda: HfApi().resolve_revision(name, repo_type=kind, revision=revision)
            )
            commit = found.resolved
            return cls(name, kind, commit, call_with_retries(f"{kind} {name}", listing))

    def fetch(self, names: Collection[str]) -> Path:
        """Fetch the files that are not complete in the cache. Returns the commit's folder there."""
        with explain_hub_errors(self.name, self.kind, self.commit):
            return call_with_retries(f"{self.kind} {self.name}", lambda: self._fetch(names))

    def _fetch(self, names: Collection[str]) -> Path:
        there = {name for name in names if self._is_there(name)}
        missing = [name for name in names if name not in there]
        if missing:
            log.info(
                "%s %s: fetching %d files, %.1f MB (%d more are in the cache)",
                *(self.kind, self.name, len(missing), sum(self.sizes[n] for n in missing) / 1e6, len(there)),
            )
        # With nothing missing one file is requested all the same, because the call returns the folder.
        wanted = missing or list(names)[:1]
        folder = _download(self.name, self.kind, self.commit, [glob.escape(name) for name in wanted])
        with ThreadPoolExecutor() as pool:  # check all of them, so that no damaged file stays
            checks = [pool.submit(_require_whole, folder / name, self.sizes[name]) for name in missing]
        for check in checks:
            check.result()
        return folder

    def _is_there(self, name: str) -> bool:
        """Whether a file is in the cache. Removes it if it has the wrong size."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.name, name, repo_type=self.kind, revision=self.commit)
        if not isinstance(path, str):
            return False
        if Path(path).stat().st_size != self.sizes[name]:
            log.warning("%s: its size differs from the Hub's; fetching it again", path)
            _remove(Path(path))
            return False
        return True


def _download(name: str, kind: Kind, commit: str, patterns: list[str]) -> Path:
    """Download the files of a commit that match. Shows progress bars on a terminal. Returns their folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if sys.stderr.isatty() else disable_progress_bars)()
    return Path(snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=patterns))


def _require_whole(path: Path, size: int) -> None:
    """Remove a file and raise DamagedFile if its size is wrong or its bytes differ from the blob's name.

    The cache names the blob of a large file by its sha256.
    """
    blob = path.readlink().name if path.is_symlink() else ""
    if path.stat().st_size == size and (len(blob) != 64 or sha256_file(path) == blob):
        return
    _remove(path)
    raise DamagedFile(f"{path.name} arrived damaged")


def _remove(path: Path) -> None:
    """Remove a file from the cache, with the blob that it links to."""
    if path.is_symlink():
        (path.parent / path.readlink()).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
