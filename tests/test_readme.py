"""The README: its commands are the command line's, its numbers come from runs, and the cheap ones are run again."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import onnx
import pytest
from documented import ROOT, Page, run, run_examples

import graphcheck
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.verdict import Verdict
from tests.test_cli import CONV, MOVED, WEIGHT, save
from tests.zoo import nets, tables
from tests.zoo.mutations import MUTATIONS

README = Page(ROOT / "README.md")
COMMANDS = [shown.command for shown in README.shown]
# What the README's commands start from, each made by a cheap export.
EXPORTS = [command for command in COMMANDS if command.startswith("graphcheck export")]


def test_there_are_commands_to_run() -> None:
    assert EXPORTS and {command.split()[0] for command in COMMANDS} <= {"graphcheck", "make"}
    shown = {command.split()[1] for command in COMMANDS if command.startswith("graphcheck")}
    assert shown >= {"export", "analyze", "compare", "rewrite", "report", "guard", "sweep"}


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
def test_the_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx_ir
    import torch

    for name in ("a.onnx", "before.onnx"):
        save(tmp_path / name, CONV, WEIGHT)
    for name in ("b.onnx", "after.onnx"):
        save(tmp_path / name, MOVED, WEIGHT.reshape(3, 8).T.copy())
    patches = torch.nn.Sequential(torch.nn.Unfold(2, stride=2), torch.nn.Flatten(), torch.nn.Linear(48, 5))
    names = {"torch": torch, "onnx_ir": onnx_ir, "module": patches.eval(), "pixels": torch.randn(1, 3, 4, 4)}
    assert run_examples(README, names, tmp_path, monkeypatch) >= 4
    assert onnx.load(tmp_path / "model.onnx").graph.node


@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.slow
def test_the_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(README, tmp_path, monkeypatch, capsys) >= 6
