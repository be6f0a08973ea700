"""A data set repository of the Hugging Face Hub that is written to, through huggingface_hub.

huggingface_hub tries some calls again, and others only once, such as those that create or commit. Here each is tried
again, so each is right if it was made before and only its answer was lost. hub_errors.py explains the errors.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from embedkit.data.hub_errors import DamagedFile, Patience, call_with_retries, explain_push_errors
from embedkit.documents import FileRecord
from embedkit.errors import EmbedkitError

MAIN = "main"
LOOK = Patience(longest=3600, busy=(60, 300, 900, 2700))
"""Quotas of the Hub are by the hour, that of commits, too."""
PUSH = replace(LOOK, after_cuts=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Listing:
    """A branch at one commit. sha256s: of its large files (LFS), by name. blobs: git hashes of the other files."""

    commit: str
    private: bool
    sha256s: Mapping[str, str]
    blobs: Mapping[str, str]

    @property
    def names(self) -> set[str]:
        """Names of all files."""
        return {*self.sha256s, *self.blobs}

    def id(self, name: str) -> str | None:
        """What the Hub knows a file by: sha256 or git hash; None if there is no such file."""
        return self.sha256s.get(name) or self.blobs.get(name)

    def has(self, file: FileRecord) -> bool:
        """Whether it has a large file with these bytes."""
        return self.sha256s.get(file.name) == file.sha256

    def has_bytes(self, name: str, data: bytes) -> bool:
        """Whether it has a file with these bytes, large or not."""
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return self.blobs.get(name) == blob or self.sha256s.get(name) == hashlib.sha256(data).hexdigest()


class HubRepo:
    """A data set repository, `owner/name`, which may not exist yet.

    All methods raise EmbedkitError that says what to do if the Hub cannot be reached, refuses, or keeps failing.
    """

    def __init__(self, name: str) -> None:
        from huggingface_hub import HfApi, constants

        self.name = name
        self.address = f"{constants.ENDPOINT}/datasets/{name}"
        self._api = HfApi()

    def find(self) -> Listing | None:
        """The main branch; None if there is no such repository, or it is hidden from the token."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def look() -> Listing | None:
            try:
                return self._list(MAIN)
            except RepositoryNotFoundError as error:
                if error.response.status_code == 404:
                    return None
                raise

        return self._call(look, LOOK)  # without a network, the first call says so at once

    def listing(self, branch: str) -> Listing:
        """A branch as it is now."""
        return self._call(lambda: self._list(branch))

    def fetch(self, name: str, commit: str) -> Path:
        """A small file, in the Hub's cache."""
        from huggingface_hub import hf_hub_download

        return self._call(lambda: Path(hf_hub_download(self.name, name, repo_type="dataset", revision=commit)))

    def create(self, private: bool) -> None:
        """Make the repository, unless it is there."""
        self._call(lambda: self._api.create_repo(self.name, repo_type="dataset", private=private, exist_ok=True))

    def create_branch(self, branch: str) -> None:
        """Make a branch of main, unless it is there."""
        self._call(lambda: self._api.create_branch(self.name, branch=branch, repo_type="dataset", exist_ok=True))

    def delete_branch(self, branch: str) -> None:
        """Delete a branch, if it is there."""
        from huggingface_hub.errors import HfHubHTTPError

        def delete() -> None:
            try:
                self._api.delete_branch(self.name, branch=branch, repo_type="dataset")
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise

        self._call(delete)

    def push(self, path: Path, file: FileRecord, branch: str) -> None:
        """Push a file in one commit. Returns when the Hub lists it with its sha256; damaged, it is pushed again."""
        from huggingface_hub import CommitOperationAdd

        def push() -> None:
            if self._sha256(file.name, branch) == file.sha256:
                return
            added = CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=path)
            self._commit([added], f"Add {file.name}", branch)
            found = self._sha256(file.name, branch)
            if found != file.sha256:
                raise DamagedFile(f"{file.name} arrived damaged: sha256 {found} there, {file.sha256} here")

        self._call(push)

    def replace(
        self,
        files: Collection[FileRecord],
        branch: str,
        texts: Mapping[str, bytes],
        removed: Collection[str],
        seen: Mapping[str, str | None],
        message: str,
    ) -> None:
        """Bring files of a branch into main, with texts by name, and remove others, in one commit.

        seen: ids of texts that are to be replaced, None for those that are not there.

        Raises EmbedkitError if main has other texts, or if the Hub has not all the files with their sha256, before or
        after.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        def replace() -> None:
            main = self._list(MAIN)
            for name, id_ in seen.items():
                if main.id(name) != id_ and not main.has_bytes(name, texts[name]):
                    raise EmbedkitError(
                        f"hub:{self.name}: {name} was changed there meanwhile, perhaps by another export; look, and "
                        "type the same command again"
                    )
            missing = [file for file in files if not main.has(file)]
            if missing:
                pushed = self._list(branch)
                self._require(pushed, missing)
            operations = [
                *(CommitOperationCopy(file.name, file.name, src_revision=branch) for file in missing),
                *(CommitOperationAdd(name, data) for name, data in texts.items() if not main.has_bytes(name, data)),
                *(CommitOperationDelete(name) for name in sorted(main.names.intersection(removed))),
            ]
            if operations:
                self._commit(operations, message, MAIN, main.commit)

        self._call(replace)
        main = self.listing(MAIN)
        self._require(main, files)
        for name, data in texts.items():
            if not main.has_bytes(name, data):
                raise EmbedkitError(f"hub:{self.name}: {name} is not there as pushed. Type the same command again")

    def _require(self, listing: Listing, files: Collection[FileRecord]) -> None:
        """Raise EmbedkitError naming a file that a branch has not, or with other bytes."""
        wrong = next((file for file in files if not listing.has(file)), None)
        if wrong is not None:
            raise EmbedkitError(
                f"hub:{self.name}: {wrong.name} is no longer there as pushed (its sha256 is "
                f"{listing.sha256s.get(wrong.name)}, not {wrong.sha256}). Type the same command again"
            )

    def _list(self, revision: str) -> Listing:
        found = self._api.repo_info(self.name, repo_type="dataset", revision=revision)
        sha256s, blobs = {}, {}
        for entry in self._api.list_repo_tree(self.name, repo_type="dataset", revision=found.sha, recursive=True):
            if hasattr(entry, "blob_id"):  # no folder
                if entry.lfs is None:
                    blobs[entry.path] = entry.blob_id
                else:
                    sha256s[entry.path] = entry.lfs.sha256
        return Listing(found.sha, bool(found.private), sha256s, blobs)

    def _sha256(self, name: str, branch: str) -> str | None:
        """The sha256 by which the Hub has a file; None if it has none of that name."""
        found = self._api.get_paths_info(self.name, [name], repo_type="dataset", revision=branch)
        if not found:
            return None
        if found[0].lfs is None:
            raise EmbedkitError(
                f"hub:{self.name}: the Hub keeps {name} without a sha256, because its .gitattributes does "
                "not make it a large file; add the line `*.parquet filter=lfs diff=lfs merge=lfs -text` to it"
            )
        sha256: str = found[0].lfs.sha256
        return sha256

    def _commit(self, operations: list[object], message: str, branch: str, parent: str | None = None) -> None:
        """Commit. With a parent, only if the branch is still there."""
        self._api.create_commit(
            self.name,
            operations,
            commit_message=message,
            repo_type="dataset",
            revision=branch,
            parent_commit=parent,
        )

    def _call(self, call: Callable[[], T], patience: Patience = PUSH) -> T:
        with _no_progress_bars(), explain_push_errors(self.name):
            return call_with_retries(f"hub:{self.name}", call, patience)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Without huggingface_hub's bars: the command shows one over all files."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    is_shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if is_shown:
            enable_progress_bars()
