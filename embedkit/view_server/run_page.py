"""The page of a run as the server sends it: the same file, which is allowed to ask the server."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import BinaryIO

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder

HEAD_BYTES = 4096
"""The policy and the mark are among the first bytes of the page, before anything that comes from data."""
PIECE_BYTES = 1 << 20
FORBIDDEN, ALLOWED = b"connect-src 'none'", b"connect-src 'self'"
MARK = b'data-server=""'


@dataclass(frozen=True)
class RunPage:
    """The page of a run. view: the one that it opens with."""

    run: RunFolder
    view: str

    @property
    def path(self) -> Path:
        """The file that `embedkit analyze` wrote."""
        return self.run.analysis_page

    @property
    def command(self) -> str:
        """What makes the page again."""
        return self.run.command("analyze")

    def check(self) -> None:
        """Raise EmbedkitError, as `read` does, if there is no page to send."""
        self._open()[0].close()

    def read(self) -> tuple[int, Iterator[bytes]]:
        """The number of bytes, and the bytes in pieces.

        Raises EmbedkitError, with the command that makes the page, if it is missing or another version made it.
        """
        file, head, changed = self._open()
        size = os.fstat(file.fileno()).st_size + len(changed) - len(head)

        def pieces() -> Iterator[bytes]:
            with file:
                yield changed
                while piece := file.read(PIECE_BYTES):
                    yield piece

        return size, pieces()

    def two_maps(self) -> bytes | None:
        """The page that has this one twice, side by side; None if an earlier version analyzed the run."""
        try:
            return self.run.two_maps_page.read_bytes()
        except FileNotFoundError:
            return None

    def _open(self) -> tuple[BinaryIO, bytes, bytes]:
        """The file after its first bytes, these bytes, and what is sent instead of them."""
        again = f"to make it: {self.command}"
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            raise EmbedkitError(f"{self.path}: missing: the run has no page yet; {again}") from None
        head = file.read(HEAD_BYTES)
        if head.count(FORBIDDEN) != 1 or head.count(MARK) != 1:
            file.close()
            raise EmbedkitError(f"{self.path}: this page was made by another version of embedkit; {again}")
        changed = head.replace(FORBIDDEN, ALLOWED)
        return file, head, changed.replace(MARK, MARK[:-1] + escape(self.view).encode() + b'"')
