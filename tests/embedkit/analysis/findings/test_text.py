"""Findings as a text to read."""

from pathlib import Path

from embedkit.analysis.findings import Evidence, Findings, as_text, find_findings
from embedkit.analysis.findings.text import without_template
from embedkit.analysis.merged import open_merged
from embedkit.analysis.texts import text_facts
from tests.support.chosen_run import Row, chosen_run

INSTRUCTIONS = "Read the passage, then name the letter of the only correct option and nothing else. " * 3
"""252 characters."""


def found_in(folder: Path, rows: list[Row]) -> Findings:
    merged = open_merged(chosen_run(folder, rows))
    return find_findings(merged, Evidence(text_facts(merged)))


def test_shows_the_row_its_reason_and_what_it_is_beside(tmp_path: Path) -> None:
    rows = [Row("Is it so, or is it not so?", "Yes", source="a"), Row("Is it so, or is it not so?", "No", source="b")]
    lines = as_text(found_in(tmp_path, rows)).splitlines()
    assert lines[1].startswith("  1. same_prompt 1 of 1  strength 0.100  id 0  row 0  a  ")
    assert lines[2:8] == [
        '     answers "Yes", where row 1 of b answers "No" to the same prompt, with 0% of the words in common',
        "       prompt: Is it so, or is it not so?",
        "       response: Yes",
        "     beside id 1  row 1  b",
        "       prompt: the same",
        "       response: No",
    ]
    assert "Not computed:" in lines
    assert "  survivors: there is no table of dropped rows" in lines


def test_no_findings_are_said_to_be_none(tmp_path: Path) -> None:
    assert as_text(found_in(tmp_path, [Row("Why?", "So.")])).startswith("\nNo findings.\n\nNot computed:\n")


def test_control_characters_cannot_reach_a_terminal(tmp_path: Path) -> None:
    rows = [Row("Is it so, \x1b[2J or not?\r", f"\x1b[{i}m", source="s\x1b[1m") for i in range(2)]
    text = as_text(found_in(tmp_path, rows))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "s [1m" in text


def test_long_instructions_that_rows_share_are_left_out(tmp_path: Path) -> None:
    answer = "because the letter is the only one of all that is correct here, as the passage has it in its last line"
    prompts = [INSTRUCTIONS + end for end in ("Apples grow on trees in a garden.", "Seven ships went north by night.")]
    others = [Row(f"What is the number {i}?", f"{i}") for i in range(10)]
    text = as_text(found_in(tmp_path, [Row(prompt, answer) for prompt in prompts] + others))
    for prompt in prompts:
        assert f"[... 172 characters ...] n and nothing else. {prompt[252:]}\n" in text
    assert "       response: the same\n" in text


def test_the_place_where_rows_differ_is_shown() -> None:
    text = "a" * 160 + "b" * 1000
    assert without_template(text, 160) == f"{'a' * 160}{'b' * 240} [... 1,160 characters]"
    beyond = without_template(text, 161)
    assert beyond == f"{'a' * 60} [... 81 characters ...] {'a' * 19}{'b' * 321} [... 1,019 characters]"
