"""A real browser for pages: Chromium without a window. `make browser` is python -m tests.browser, which installs it."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.debian import NotInstalledError, install

NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """Chromium, by any of its names; None if it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def missing() -> list[str]:
    return [] if program() else ["chromium"]


def browse(page: Path, profile: Path, *options: str, width: int = 1280, height: int = 900) -> str:
    """Open a file in a window of that size; returns what the options have it print.

    profile: a folder for the browser's own files.
    """
    done = subprocess.run(
        [
            *(program() or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            # What Chromium does by itself calls nobody.
            *("--disable-background-networking", "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={profile}", f"--window-size={width},{height}", *options, page.absolute().as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise AssertionError(f"chromium exited {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    try:
        install("A browser", ["chromium"], missing)
    except NotInstalledError as error:
        sys.exit(str(error))
