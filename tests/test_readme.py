"""The README: its commands are the command line's, its numbers come from runs, and the cheap ones are run again."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from documented import ROOT, Page, run

from graphcheck.cli import main
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.verdict import Verdict
from tests.test_cli import CONV, MOVED, WEIGHT, save
from tests.zoo import nets, tables
from tests.zoo.mutations import MUTATIONS

README = Page(ROOT / "README.md")
COMMANDS = [shown.command for shown in README.shown]
FIRST_SCREEN = 36  # lines


def test_the_first_screen_has_the_commands_and_what_a_verdict_says() -> None:
    screen = "\n".join(README.text.splitlines()[:FIRST_SCREEN])
    verdicts = [f"| `{verdict}` |" for verdict in Verdict]
    for said in ("pip install .", *COMMANDS, "`make demo`", "`make test`", *verdicts):
        assert said in screen
    assert [command.split()[1] for command in COMMANDS] == ["compare", "report", "compare"]


def test_the_table_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    named = set(re.findall(r"^│ ([a-z]+) ", capsys.readouterr().out, re.M))
    assert named and {word for word in named if not re.search(rf"(`|graphcheck ){word}\b", README.text)} == set()


def test_every_exit_code_is_explained() -> None:
    for code in (0, 1, 2, 3):
        assert re.search(rf"^\| {code} \|", README.text, re.MULTILINE)


def test_it_names_no_place_of_a_machine() -> None:
    assert not re.search(r"(/(home|root|tmp|work)/|[A-Z]:\\)", README.text)


def number(before: str, after: str) -> int:
    """The number between two texts of the README."""
    found = re.search(rf"{before} ([\d,]+) {after}", " ".join(README.text.split()))
    assert found, f"{before} ... {after}"
    return int(found[1].replace(",", ""))


def test_the_counts_are_those_of_the_code() -> None:
    cases = (ROOT / "tests" / "data" / "backend_cases.txt").read_text(encoding="utf-8").partition("\n")[0]
    shipped, right = number("Of the", "node tests"), number("that ONNX ships,", "evaluate")
    assert cases == f"# {right} of {shipped} node tests of onnx.backend.test"
    assert 0 <= len(TAUGHT) - number("Over", "operators") < 50
    assert 0 <= len(MUTATIONS) - number("Over", "ways to break") < 20
    assert number("on", "models, are part") == len(nets.NETS) + len(tables.MUTANT_MODELS)


def test_the_extras_are_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.search(r"The extras (.*?)\n\n", README.text, re.DOTALL)
    assert named and {"torch", "keras", "dask"} <= set(re.findall(r"`(\w+)`", named[1])) & set(extras)


@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.slow
def test_the_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "before.onnx", CONV, WEIGHT)
    save(tmp_path / "after.onnx", MOVED, WEIGHT.reshape(3, 8).T.copy())
    monkeypatch.chdir(tmp_path)
    assert main(["export", "article-keras-conv-tf2onnx-static", "article-keras-unfold-tf2onnx-static"]) == 0
    assert run(README, tmp_path, monkeypatch, capsys) == len(COMMANDS)
