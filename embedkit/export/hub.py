"""Exports to a data set repository of the Hugging Face Hub: the Parquet files, a card, and `export.json`.

Files are pushed one by one to a branch of their own, and removed here. The last commit brings all of them into main,
with the card and `export.json`, and removes those of an earlier export. So main has a whole export or the one before,
and nobody reads half of one.

The branch is named by the digest of the request: what it has was pushed for the same run and form.
"""

import logging
import re
import shutil
from pathlib import Path

from embedkit.data.hub_errors import require_push_token
from embedkit.data.hub_id import WORD
from embedkit.documents import FileRecord, RunConfig, Success, digest, file_problem, read, write
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export.card import card
from embedkit.export.destination import RECORD
from embedkit.export.hub_repo import MAIN, HubRepo, Listing
from embedkit.export.part import Job, Writer
from embedkit.export.record import Export, ExportRequest
from embedkit.export.workspace import find_progress, working_folder
from embedkit.run import RunFolder
from embedkit.storage import require_held

log = logging.getLogger(__name__)

PREFIX = "hub:"
CARD = "README.md"
KEPT = {".gitattributes", CARD}
"""What a repository has that is new, or was made by hand for this: the card is replaced."""


class ToHub:
    """A repository. private: whether a new one is; None for yes, and for either if it exists."""

    def __init__(self, run: RunFolder, name: str, private: bool | None) -> None:
        self.run, self.name, self.private = run, name, private
        self.out = run.exports / f"hub--{name.replace('/', '--')}"
        require_push_token(name)
        self._repo = HubRepo(name)
        self.address = self._repo.address
        self._branch = ""
        self._replaced: set[str] = set()
        self._seen: str | None = None
        self._there: tuple[Listing, ...] = ()

    def require_free(self, request: ExportRequest, overwrite: bool) -> None:
        """Raise UsageError if the repository has files that are no export, or an export that is not to be replaced.

        An export of the same request counts as this one if its progress is here: only its end was cut off.
        """
        main = self._repo.find()
        self._replaced, self._seen = set(), None
        if main is None:
            return
        self._seen = main.id(RECORD)
        if self.private and not main.private:
            raise UsageError(f"--private: {self.address} is public; change it there, or leave out --private")
        if RECORD not in main.names:
            self._require_empty(main)
            return
        earlier = self._earlier(main)
        self._replaced = {file.name for file in earlier.files}
        is_this = earlier.request == request and find_progress(working_folder(self.out), request) is not None
        if not is_this and not overwrite:
            same = "this" if earlier.request == request else f"another (of the run {earlier.run})"
            raise UsageError(f"{self.address}: has an export already, {same}; --overwrite replaces it")

    def begin(self, request: ExportRequest) -> None:
        """Make the repository and the branch, unless they are there. This needs the right to write."""
        main = self._repo.find()
        if main is None:
            self._repo.create(private=self.private is not False)
            main = self._repo.listing(MAIN)
            self._require_empty(main)
        if not main.private and self.private is None:
            log.warning("%s is public: everybody can read what is pushed", self.address)
        elif main.private and self.private is False:
            log.warning("%s is private, and stays so; it can be changed there", self.address)
        self._branch = f"embedkit-{digest(request)[:16]}"
        self._repo.create_branch(self._branch)
        self._there = (self._repo.listing(self._branch), main)

    def problem(self, working: Path, file: FileRecord) -> str | None:
        """None if the Hub lists the file with its sha256, or it is still here."""
        return None if self._has(file) else file_problem(working / file.name, file)

    def take(self, working: Path, file: FileRecord) -> None:
        """Push the file, unless the Hub has it, and remove it here."""
        path = working / file.name
        if not self._has(file):
            self._repo.push(path, file, self._branch)
        path.unlink(missing_ok=True)

    def publish(self, working: Path, export: Export, lock: Path) -> None:
        """Bring all files into main, with card and `export.json`; remove the branch and the working folder."""
        write(working / RECORD, export)
        text = card(self.name, export, read(self.run.config, RunConfig), read(self.run.success, Success))
        texts = {CARD: text.encode(), RECORD: (working / RECORD).read_bytes()}
        require_held(lock)
        removed = self._replaced - {file.name for file in export.files}
        message = f"Export {export.run} with embedkit"
        self._repo.replace(export.files, self._branch, texts, removed, {RECORD: self._seen}, message)
        try:
            self._repo.delete_branch(self._branch)
        except EmbedkitError as error:
            log.warning("the export is complete, and the branch %s can be deleted: %s", self._branch, error)
        shutil.rmtree(working)

    def how_to_read(self, writer: Writer, job: Job) -> tuple[str, ...]:
        """With `datasets`."""
        return ("from datasets import load_dataset", f"rows = load_dataset({self.name!r}, split='train')")

    def _has(self, file: FileRecord) -> bool:
        return any(listing.has(file) for listing in self._there)

    def _require_empty(self, main: Listing) -> None:
        if foreign := sorted(main.names - KEPT):
            raise UsageError(
                f"{self.address}: has files and is no export (it has no {RECORD}), such as {foreign[0]}; name another "
                "repository"
            )

    def _earlier(self, main: Listing) -> Export:
        """The record of the export that the repository has."""
        path = self._repo.fetch(RECORD, main.commit)
        try:
            return read(path, Export)
        except EmbedkitError:
            raise UsageError(
                f"{self.address}: its {RECORD} is none that this version of embedkit reads; name another repository"
            ) from None


def hub_name(to: str) -> str:
    """The repository of `hub:owner/name`. Raises UsageError if it has no such name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = to.removeprefix(PREFIX)
    try:
        validate_repo_id(name)
        is_valid = re.fullmatch(rf"{WORD}/{WORD}", name) is not None
    except HFValidationError:
        is_valid = False
    if not is_valid:
        raise UsageError(
            f"--to {to}: type {PREFIX}owner/name; names have letters, digits, `-`, `_` and `.`, at most 96 in all"
        )
    return name
