"""Data sets and models of the Hugging Face Hub: fetched into its cache and checked, pinned to a commit.

Only the machine where a run is asked for calls out, and to nothing but the Hub; jobs open the fetched files.
Credentials, cache, mirror and offline mode are those of huggingface_hub (HF_TOKEN, HF_HOME, HF_ENDPOINT,
HF_HUB_OFFLINE). It resumes a download that is cut off and retries most calls; what it leaves is done here:
the remaining calls, sizes, and the sha256 that names a large file's blob in the cache.
"""

import errno
import glob
import logging
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from embedkit.data.hub_splits import CARD_FILES, choose_files
from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model.folder import is_identity
from embedkit.run import RunFolder
from embedkit.storage.atomic import sha256_file

log = logging.getLogger(__name__)

Kind = Literal["dataset", "model"]
T = TypeVar("T")


WAITS = (1, 2, 4, 8)
"""Seconds before each further try of a call that the Hub turned down for now, unless it names its own."""
LONGEST_WAIT = 600
FOR_NOW = {408, 429, 500, 502, 503, 504}
FULL = {errno.ENOSPC, errno.EDQUOT}


class _Damaged(OSError):
    """A fetched file has not the size or the bytes that the Hub says."""


@dataclass(frozen=True)
class DataSource:
    """A data set's files in row order and, if they are of the Hub, what they are of."""

    paths: list[Path]
    repo: str | None = None
    commit: str | None = None
    config: str | None = None
    split: str | None = None


def is_hub_id(name: str) -> bool:
    """Whether a name is an `owner/name` of the Hub and nothing local."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name)) and not Path(name).exists()


def fetch_dataset(name: str, revision: str | None, config: str | None, split: str | None) -> DataSource:
    """Fetch the files of a data set's split (None: `train`, or the only one; `all`: every split's).

    Raises:
        UsageError: there is no such data set, revision, configuration or split.
        EmbedkitError: the Hub cannot be reached, wants a token, or keeps failing; the disk is full.
    """
    repo = _Repo.find(name, "dataset", revision)
    cards = repo.fetch([card for card in CARD_FILES if card in repo.sizes])
    chosen = choose_files(name, repo.sizes, cards, config, split)
    if split is None and chosen.other_splits:
        others = ", ".join(chosen.other_splits)
        log.warning("dataset %s: split %s is read; there are also: %s (--split, or all)", name, chosen.split, others)
    folder = repo.fetch(chosen.files)
    return DataSource([folder / file for file in chosen.files], name, repo.commit, chosen.config, chosen.split)


def fetch_model(name: str, revision: str | None) -> tuple[Path, str]:
    """Fetch a model's weights, configuration and tokenizer; the folder and the commit. Raises as fetch_dataset."""
    repo = _Repo.find(name, "model", revision)
    return repo.fetch(model_names(repo.sizes)), repo.commit


def require_fetched(run: RunFolder, config: RunConfig, *, data: bool = True) -> None:
    """Raise EmbedkitError if what the run has from the Hub is no longer in the cache, with the command that helps."""
    where = config.locations
    files = list(where.data) if data and where.data_repo else []
    files += [str(Path(where.model) / file.name) for file in config.request.model_files] if where.model_repo else []
    gone = [file for file in files if not Path(file).is_file()]
    if gone:
        more = f" and {len(gone) - 1} more files" if len(gone) > 1 else ""
        raise EmbedkitError(f"{gone[0]}{more}: gone from the Hub's cache; to have it again: {run.fetch_command}")


def model_names(names: Collection[str]) -> list[str]:
    """Those of a model's files that decide its numbers and that the engines read."""
    return [name for name in sorted(names) if is_identity(PurePosixPath(name))]


@dataclass(frozen=True)
class _Repo:
    """A repository at one commit: the size in bytes of every file in it, by name."""

    name: str
    kind: Kind
    commit: str
    sizes: Mapping[str, int]

    @classmethod
    def find(cls, name: str, kind: Kind, revision: str | None) -> "_Repo":
        """Resolve the revision and list the commit's files; both are kept in the cache for offline use."""
        from huggingface_hub import HfApi, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        def listing() -> dict[str, int]:
            try:
                tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
            except CachedRepoTreeNotFoundError:  # every download caches it; this one is small
                _download(name, kind, commit, [".gitattributes", *CARD_FILES, "tokenizer_config.json"])
                tree = get_cached_repo_tree(name, repo_type=kind, revision=commit)
            return {file.path: file.size for file in tree}

        with _explaining(name, kind, revision):
            found = _patiently(
                f"{kind} {name}", lambda: HfApi().resolve_revision(name, repo_type=kind, revision=revision)
            )
            commit = found.resolved
            return cls(name, kind, commit, _patiently(f"{kind} {name}", listing))

    def fetch(self, names: Collection[str]) -> Path:
        """Have these files whole in the cache; returns the commit's folder there."""
        with _explaining(self.name, self.kind, self.commit):
            return _patiently(f"{self.kind} {self.name}", lambda: self._fetch(names))

    def _fetch(self, names: Collection[str]) -> Path:
        there = {name for name in names if self._is_there(name)}
        missing = [name for name in names if name not in there]
        if missing:
            log.info(
                "%s %s: fetching %d files, %.1f MB (%d more are there already)",
                *(self.kind, self.name, len(missing), sum(self.sizes[n] for n in missing) / 1e6, len(there)),
            )
        # What is there is not asked for again, but for one file: the call gives the folder.
        wanted = missing or list(names)[:1]
        folder = _download(self.name, self.kind, self.commit, [glob.escape(name) for name in wanted])
        with ThreadPoolExecutor() as pool:  # all of them, so that no damaged one stays
            checks = [pool.submit(_require_whole, folder / name, self.sizes[name]) for name in missing]
        for check in checks:
            check.result()
        return folder

    def _is_there(self, name: str) -> bool:
        """Whether a file is in the cache; one that is cut short is removed."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.name, name, repo_type=self.kind, revision=self.commit)
        if not isinstance(path, str):
            return False
        if Path(path).stat().st_size != self.sizes[name]:
            log.warning("%s: not as large as the Hub says; it is fetched again", path)
            _remove(Path(path))
            return False
        return True


def _download(name: str, kind: Kind, commit: str, patterns: list[str]) -> Path:
    """Have the files of a commit that match in the cache, with bars on a terminal; returns their folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    (enable_progress_bars if sys.stderr.isatty() else disable_progress_bars)()
    return Path(snapshot_download(name, repo_type=kind, revision=commit, allow_patterns=patterns))


def _require_whole(path: Path, size: int) -> None:
    """Remove a file that has not the size, or (large files) the sha256 that its blob is named by, and raise."""
    blob = path.readlink().name if path.is_symlink() else ""
    if path.stat().st_size == size and (len(blob) != 64 or sha256_file(path) == blob):
        return
    _remove(path)
    raise _Damaged(f"{path.name} arrived damaged")


def _remove(path: Path) -> None:
    """Remove a file of the cache and the blob that it points to."""
    if path.is_symlink():
        (path.parent / path.readlink()).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


# What fails for now is tried again, a few times


def _patiently(what: str, call: Callable[[], T]) -> T:
    """Call; again after a wait, a few times, if the Hub is busy or failing or a file came damaged."""
    for tried, pause in enumerate(WAITS, 1):
        try:
            return call()
        except Exception as error:
            reason = _passing(error)
            wait = _wait_named(error) or pause
            if reason is None or wait > LONGEST_WAIT:
                raise
            log.warning("%s: %s; trying again in %d s (%d of %d)", what, reason, wait, tried, len(WAITS))
            time.sleep(wait)
    return call()


def _passing(error: BaseException) -> str | None:
    """Why a later try may succeed; None if it will not."""
    status = _status(error)
    if status in FOR_NOW:
        return f"the Hub answers {status}"
    for cause in _causes(error):
        if isinstance(cause, _Damaged) or (type(cause) is OSError and cause.errno is None):  # a size that is wrong
            return str(cause).splitlines()[0]
    return None


def _wait_named(error: BaseException) -> int | None:
    """Seconds that the Hub's answer asks to wait."""
    from huggingface_hub.utils import parse_ratelimit_headers

    for cause in _causes(error):
        headers = getattr(getattr(cause, "response", None), "headers", None)
        if headers is not None:
            after = str(headers.get("Retry-After", ""))
            limit = parse_ratelimit_headers(headers)
            if after.isdigit():
                return int(after)
            return limit.reset_in_seconds if limit is not None and limit.remaining == 0 else None
    return None


def _status(error: BaseException) -> int | None:
    """The status of the answer behind an error of huggingface_hub; None if there was no answer."""
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return int(status)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


# Errors for a person


class _explaining:
    """Turns what huggingface_hub raises into errors that say what to do."""

    def __init__(self, name: str, kind: Kind, revision: str | None) -> None:
        self._asked = name, kind, revision

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, EmbedkitError):
            raise _explained(error, *self._asked) from error


def _explained(error: Exception, name: str, kind: Kind, revision: str | None) -> EmbedkitError:
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    causes, status, hub = list(_causes(error)), _status(error), constants.ENDPOINT

    def is_any(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    page = f"{hub}/{'datasets/' if kind == 'dataset' else ''}{name}"
    failed = f"{kind} {name}{f' at {revision}' if revision else ''} cannot be fetched from the Hub"
    if is_any(GatedRepoError) or status == 403:
        return EmbedkitError(f"{failed}: access to it is granted by its owner. Ask for it at {page}, then {_token()}")
    if is_any(RevisionNotFoundError):
        option = "--revision" if kind == "dataset" else "--model-revision"
        return UsageError(f"{option} {revision}: no such commit, tag or branch in {kind} {name}; see {page}")
    if is_any(RepositoryNotFoundError) or status in (401, 404):
        return UsageError(
            f"{failed}: {hub} has no such {kind}, or it is private; nothing local has that name either. "
            f"If the name is right, {_token()}"
        )
    if any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes):
        return EmbedkitError(
            f"{failed}: the disk is full at {constants.HF_HUB_CACHE}. Make room, or set HF_HOME to a folder on a "
            "larger disk, and type the same again; files that are whole are kept"
        )
    if is_any(OfflineModeIsEnabled):
        return EmbedkitError(
            f"{failed}: HF_HUB_OFFLINE is set, and not all of it is in {constants.HF_HUB_CACHE}. Type "
            "`embedkit fetch` with the same options once where the Hub can be reached"
        )
    if status is not None:
        wait = _wait_named(error)
        later = f"in {wait:,} s" if wait else "later"
        return EmbedkitError(
            f"{failed}: {hub} still answers {status}. Type the same again {later}; files that are whole are kept"
        )
    lines = [line for cause in reversed(causes) for line in str(cause).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    return EmbedkitError(f"{failed} ({hub}): {reason}. Type the same again; files that are whole are kept")


def _token() -> str:
    from huggingface_hub import get_token

    if get_token() is None:
        return "set HF_TOKEN to a token of an account that has access (none is set; `hf auth login` keeps one)"
    return "set HF_TOKEN to a token of an account that has access (the one that is set has not)"
