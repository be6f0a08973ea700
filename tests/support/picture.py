"""Make the README's picture of the demo's page. `make picture` runs python -m tests.support.picture RUN_FOLDER."""

import sys
from pathlib import Path

from tests.support import browser

PICTURE = Path("docs/map.png")
WINDOW = {"width": 1280, "height": 800}


def main() -> None:
    """Open the page, open the row in the middle of the map, and take a screenshot."""
    page = Path(sys.argv[1]) / "analysis" / "index.html"
    if not page.exists():
        sys.exit(f"{page} is missing; run `make run` first")
    with browser.chromium() as chromium, browser.opened(chromium, page, viewport=WINDOW) as tab:
        tab.wait_for_selector("#stage[data-all]")
        tab.press("#points", "Enter")
        tab.wait_for_timeout(500)
        PICTURE.parent.mkdir(exist_ok=True)
        tab.screenshot(path=PICTURE)
    print(f"{PICTURE} is written")


if __name__ == "__main__":
    main()
