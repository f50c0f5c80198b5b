"""The README: its commands are the command line's, its numbers come from runs, and the cheap ones are run again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

import graphcheck
from graphcheck.cli import main
from graphcheck.verdict import Verdict

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for kind, text in BLOCKS
    if kind == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]
# What the README's commands start from, each made by a cheap export.
EXPORTS = [command for command in COMMANDS if command.startswith("graphcheck export")]


def outputs() -> dict[str, str]:
    """What the README shows below each command."""
    shown: dict[str, str] = {}
    for kind, text in BLOCKS:
        if kind == "console":
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                shown[command] = output
    return shown


def test_there_are_commands_to_run() -> None:
    assert EXPORTS and {command.split()[0] for command in COMMANDS} <= {"graphcheck", "make"}
    shown = {command.split()[1] for command in COMMANDS if command.startswith("graphcheck")}
    assert shown >= {"export", "analyze", "compare", "rewrite", "report", "guard"}


def test_every_verdict_and_exit_code_is_explained() -> None:
    for verdict in Verdict:
        assert f"| `{verdict}` |" in README
    for code in (0, 1, 2, 3):
        assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


def test_it_names_no_place_of_a_machine() -> None:
    assert not re.search(r"(/home/|/root/|/tmp/|/work/|[A-Z]:\\)", README)


def test_python_examples_use_public_names() -> None:
    used = {name for kind, text in BLOCKS if kind == "python" for name in re.findall(r"graphcheck\.(\w+)", text)}
    assert used and used <= set(graphcheck.__all__)


def masked(text: str) -> str:
    """Output without what differs from machine to machine: numbers, spaces, and the names of witnesses."""
    text = re.sub(r"graphcheck-witness-\w+", "graphcheck-witness", text)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*(e[-+]\d+)?", "N", text)).strip()


@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.slow
def test_the_commands_print_what_the_readme_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))  # onnxslim
    shown = outputs()
    for command in COMMANDS:
        words = shlex.split(command)
        if words[0] != "graphcheck" or words[1] == "demo":
            continue
        capsys.readouterr()
        code = main(words[1:])
        out, err = capsys.readouterr()
        assert code in (0, 1, 3) and err == "", f"{command}: {err}"
        if shown[command].strip():
            assert masked(out) == masked(shown[command]), command
