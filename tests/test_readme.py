"""The README: its commands are the command line's, its numbers come from runs, and the cheap ones are run again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documented import ROOT, Page, run

import graphcheck
from graphcheck.verdict import Verdict

README = Page(ROOT / "README.md")
COMMANDS = [shown.command for shown in README.shown]
# What the README's commands start from, each made by a cheap export.
EXPORTS = [command for command in COMMANDS if command.startswith("graphcheck export")]


def test_there_are_commands_to_run() -> None:
    assert EXPORTS and {command.split()[0] for command in COMMANDS} <= {"graphcheck", "make"}
    shown = {command.split()[1] for command in COMMANDS if command.startswith("graphcheck")}
    assert shown >= {"export", "analyze", "compare", "rewrite", "report", "guard"}


def test_every_verdict_and_exit_code_is_explained() -> None:
    for verdict in Verdict:
        assert f"| `{verdict}` |" in README.text
    for code in (0, 1, 2, 3):
        assert re.search(rf"^\| {code} \|", README.text, re.MULTILINE)


def test_it_names_no_place_of_a_machine() -> None:
    assert not re.search(r"(/(home|root|tmp|work)/|[A-Z]:\\)", README.text)


def test_python_examples_use_public_names() -> None:
    examples = "".join(text for kind, text in README.blocks if kind == "python")
    used = set(re.findall(r"graphcheck\.(\w+)", examples))
    assert used and used <= set(graphcheck.__all__)


@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.slow
def test_the_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(README, tmp_path, monkeypatch, capsys) >= 6
