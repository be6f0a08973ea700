"""The page that is sent is the file, except that it may ask the server."""

import shutil
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.view_server.run_page import RunPage
from tests.support.made_page import made_page
from tests.support.served import add_page, served


def paged(folder: Path) -> RunFolder:
    run = RunFolder(folder / "run")
    run.analysis.mkdir(parents=True)
    made_page(run.analysis, {"made": 4})
    return run


def test_only_the_policy_and_the_mark_differ(tmp_path: Path) -> None:
    run = paged(tmp_path)
    size, pieces = RunPage(run, "think").read()
    sent, file = b"".join(pieces), run.analysis_page.read_bytes()
    assert size == len(sent)
    assert sent != file
    assert sent.replace(b'data-server="think"', b'data-server=""') == file.replace(
        b"connect-src 'none'", b"connect-src 'self'"
    )


def test_a_page_from_disk_may_ask_nobody(tmp_path: Path) -> None:
    head = paged(tmp_path).analysis_page.read_text(encoding="utf-8")[:4096]
    assert "default-src 'none'; connect-src 'none'; script-src 'sha256-" in head
    assert '<html lang="en" data-server="">' in head


def test_a_page_that_is_missing_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(EmbedkitError, match=r"index.html: missing: the run has no page yet; to make it: .*analyze"):
        RunPage(run, "combined").check()


def test_a_page_of_another_version_is_not_sent(tmp_path: Path) -> None:
    run = paged(tmp_path)
    page = run.analysis_page.read_text(encoding="utf-8")
    run.analysis_page.write_text(page.replace(' data-server=""', "", 1), encoding="utf-8")
    with pytest.raises(EmbedkitError, match="made by another version of embedkit; to make it: "):
        RunPage(run, "combined").check()


def test_a_page_that_was_made_again_is_sent(small: RunFolder) -> None:
    with served(add_page(small)) as client:
        before = client.get().body
        made_page(small.analysis, {"made again": 9})
        after = client.get()
        assert before != after.body
        assert b"made again" in after.body
        shutil.rmtree(small.analysis)
        assert client.get().status == 500
        assert "missing: the run has no page yet" in client.get().json["error"]


def test_two_maps_are_the_file(small: RunFolder) -> None:
    """Another token, host or method gets nothing, as for every path. Without the file, the answer is what to type."""
    with served(add_page(small)) as client:
        missing = client.get("side_by_side.html")
        assert missing.status == 404
        assert missing.body.decode() == (
            f"Two maps of this run are not there yet. To make them: embedkit analyze {small.path}"
        )
        small.two_maps_page.write_bytes(b"<!doctype html>two maps")
        found = client.get("side_by_side.html")
        assert (found.status, found.body) == (200, b"<!doctype html>two maps")
        assert found.headers["content-type"] == "text/html; charset=utf-8"
        assert found.headers["content-security-policy"] == "frame-ancestors 'self'"
        assert client.get("side_by_side.html/").status in (307, 404)
        assert client.get("side_by_side.html", "POST").status == 405
