"""Chromium without a window, to test pages. `make browser` installs it, and Firefox.

`browse` opens a page and returns what Chromium prints. `opened` controls a page with Playwright.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import firefox
from tests.support.debian import NotInstalledError, install

NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str | None:
    """The path of Chromium under any of its names; None if it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def missing() -> list[str]:
    """Names of Debian packages to install."""
    return [] if program() else ["chromium"]


def browse(page: Path, profile: Path, *options: str, width: int = 1280, height: int = 900) -> str:
    """Open a file in a window of the given size, and return what the options make Chromium print.

    profile: a folder for the browser's own files.
    """
    done = subprocess.run(
        [
            *(program() or "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            # Chromium itself contacts no server.
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


# WebGL without a GPU, rendered by SwiftShader.
SOFTWARE = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


@contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=list(SOFTWARE))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, page: Path, link: str = "", **options: Any) -> Iterator[Any]:
    """Open a file in Playwright without a network. options: of the context, such as viewport and color_scheme.

    Fails at the end if the page wrote to the console, requested anything except itself, or opened a dialog.
    """
    with _watched(browser, "file:", offline=True, **options) as tab:
        tab.goto(page.absolute().as_uri() + link)
        yield tab


@contextmanager
def opened_at(browser: Any, url: str, link: str = "", **options: Any) -> Iterator[Any]:
    """As `opened`, for a page of a server. Fails if it requested anything that is not below its address."""
    with _watched(browser, url, **options) as tab:
        tab.goto(url + link)
        yield tab


@contextmanager
def _watched(browser: Any, origin: str, **options: Any) -> Iterator[Any]:
    context = browser.new_context(accept_downloads=True, **options)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("console", lambda message: _is_of_icon(message) or problems.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: problems.append(f"error: {error}"))
    tab.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.on("request", lambda request: request.url.startswith((origin, "blob:")) or problems.append(request.url))
    try:
        yield tab
    finally:
        context.close()
    assert not problems, problems


def _is_of_icon(message: Any) -> bool:
    """Whether a message is about the icon that a browser wants of every server, unless the policy forbids pictures."""
    return str(message.location["url"]).endswith("/favicon.ico")


def open_tab(tab: Any, title: str) -> str:
    """Click a tab of the page by its title. Returns a selector of its panel."""
    tab.click(f"[role=tab][data-tab='{title}']")
    return "#" + str(tab.get_attribute(f"[role=tab][data-tab='{title}']", "aria-controls"))


def until(tab: Any, said: str) -> None:
    """Wait until an expression is true. Playwright's own wait uses `eval`, which the page forbids."""
    for _ in range(100):
        if tab.evaluate(said):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(said)


if __name__ == "__main__":
    try:
        install("Chromium", ["chromium"], missing)
        install("Firefox", firefox.PACKAGES, firefox.missing)
    except NotInstalledError as error:
        sys.exit(str(error))
