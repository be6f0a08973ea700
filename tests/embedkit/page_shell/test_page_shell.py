"""The page shell: the report and the analysis page share head, policy, colours and base style."""

import re

import pytest
from jinja2 import DictLoader, UndefinedError

from embedkit.analysis.page.pack import Packed
from embedkit.analysis.page.render import render
from embedkit.page_shell import page_environment
from jobs.report.compute import make_report
from jobs.report.page import page
from tests.support.histories import inputs, observations


def pages() -> dict[str, str]:
    analysis = render("run", "a run", [], [], Packed(), ("", 0))
    return {"report": page(make_report(inputs(observations({})))), "analysis": analysis}


def colours(html: str, selector: str) -> dict[str, str]:
    block = re.search(re.escape(selector) + r" \{(.*?)\}", html, re.DOTALL)
    assert block is not None, selector
    return dict(re.findall(r"(--\w+): ([^;]+);", block[1]))


@pytest.mark.parametrize("kind", ["report", "analysis"])
def test_both_pages_have_the_shell(kind: str) -> None:
    html = pages()[kind]
    assert html.startswith("<!DOCTYPE html>\n<html lang=")
    assert "default-src 'none'; " in html
    assert "system-ui" in html
    assert html.count("th { color: var(--soft); font-weight: 500; }") == 1
    assert html.rstrip().endswith("</body>\n</html>")


@pytest.mark.parametrize("kind", ["report", "analysis"])
def test_every_colour_is_the_same_for_system_and_button(kind: str) -> None:
    html = pages()[kind]
    light, system, button = (
        colours(html, selector) for selector in (":root", ":root:not([data-theme])", ':root[data-theme="dark"]')
    )
    assert system == button
    assert light.keys() == button.keys()
    assert {"--ink", "--soft", "--paper", "--raised", "--line"} < light.keys()
    used = set(re.findall(r"var\((--\w+)\)", html))
    assert used <= light.keys()


def test_both_pages_share_their_ink_and_lines() -> None:
    report, analysis = pages().values()
    for selector in (":root", ':root[data-theme="dark"]'):
        one, other = colours(report, selector), colours(analysis, selector)
        assert all(one[name] == other[name] for name in ("--ink", "--soft", "--line"))


def test_values_are_escaped_and_undefined_names_are_errors() -> None:
    environment = page_environment("jobs.report")
    environment.loader = DictLoader({"t": "<p>{{ text }}</p>"})
    assert environment.get_template("t").render(text="<b>") == "<p>&lt;b&gt;</p>"
    with pytest.raises(UndefinedError):
        environment.get_template("t").render()
