"""Pages that show commands: what they show, and running it. Shared by the tests of the README and of docs.

``python tests/documented.py README.md docs/how-to/read-a-verdict.md ...`` writes what commands print now into the pages.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import graphcheck
from graphcheck.cli import main

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A command on a page and the output below it; empty where the page shows none."""

    command: str
    output: str = ""


@dataclasses.dataclass(frozen=True)
class Page:
    """A Markdown page."""

    path: Path

    @functools.cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """The fenced blocks: their language and their text."""
        return [(kind, re.sub(f"^{indent}", "", body, flags=re.M)) for indent, kind, body in _BLOCK.findall(self.text)]

    @functools.cached_property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _BLOCK.sub("", self.text)

    @functools.cached_property
    def shown(self) -> list[Shown]:
        """What a reader would type: the lines after ``$`` of console blocks, and graphcheck's lines of sh and yaml blocks."""
        found: list[Shown] = []
        for kind, text in self.blocks:
            if kind == "console":
                parts = [part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
                found += [Shown(command, output) for command, _, output in parts]
            elif kind == "sh":
                found += [Shown(line) for line in text.splitlines() if line.startswith("graphcheck")]
            elif kind == "yaml":  # a plain or folded scalar
                folded = re.sub(r": >-?\n +", ": ", text)
                folded = re.sub(r"\n +(?=--)", " ", folded)
                found += [Shown(command) for command in re.findall(r"(?:run|entry): (graphcheck .*)", folded)]
        return found

    @functools.cached_property
    def mentioned(self) -> list[str]:
        """Commands with their subcommand inside sentences."""
        return re.findall(r"`(graphcheck (?:[a-z]+)(?: [^`]*)?)`", self.prose)

    @functools.cached_property
    def files(self) -> dict[str, str]:
        """The files that a page gives in full: blocks whose first line is a comment with a name."""
        found = (re.match(r"# ([\w-]+\.\w+)\n(.*)", text, re.DOTALL) for kind, text in self.blocks if kind == "python")
        return {match[1]: match[2] for match in found if match}

    @functools.cached_property
    def examples(self) -> list[str]:
        """The Python blocks that are no files: to be run one after the other, in one namespace."""
        return [text for kind, text in self.blocks if kind == "python" and not re.match(r"# [\w-]+\.\w+\n", text)]


def masked(text: str) -> str:
    """Output without what differs from machine to machine: numbers, spaces, and the names of witnesses."""
    text = re.sub(r"(kept as|witness|--replay) [0-9a-f]{12}\b", r"\1 ID", text)
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*(e[-+]\d+)?", "N", text)).strip()


def built_here(text: str) -> str:
    """The output of a page with the build of PyTorch that is installed (2.13.0+cpu, +cu130), which exported models name."""
    if "by pytorch " not in text:
        return text
    import torch

    return re.sub(r"by pytorch \S+", f"by pytorch {torch.__version__}", text)


def run(page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> int:
    """Run the page's commands in order in ``folder`` and compare what they print; how many were run."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))  # onnxslim
    for name, text in page.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    ran = 0
    for shown in page.shown:
        words = shlex.split(shown.command, comments=True)
        if words[0] not in ("graphcheck", "python") or words[1] == "demo" or "scheduler:" in shown.command:
            continue
        capsys.readouterr()
        if words[0] == "python":
            made = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
            assert made.returncode == 0, f"{shown.command}: {made.stderr}"
            out = made.stdout
        else:
            code = main(words[1:])
            out, err = capsys.readouterr()
            err = re.sub(r"^graphcheck: \d+ s: .*\n", "", err, flags=re.M)  # what a long command says on a slow machine
            trouble = shown.output.startswith("graphcheck: ")  # shown on purpose
            assert code == 2 if trouble else code in (0, 1, 3) and err == "", f"{shown.command}: {err}"
            out += err
        if shown.output.strip():
            assert masked(out) == masked(built_here(shown.output)), shown.command
        ran += 1
    return ran


def run_examples(page: Page, names: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the page's Python examples in order in ``folder``, with the reader's own ``names``; how many were run."""
    monkeypatch.chdir(folder)
    for text in page.examples:
        exec(compile(text, str(page.path), "exec"), names)
    fixtures = {"tmp_path": folder, "graphcheck_equivalent": graphcheck.assert_equivalent}
    for name, value in list(names.items()):
        if name.startswith("test_") and not getattr(value, "pytestmark", None):
            value(*(fixtures[taken] for taken in inspect.signature(value).parameters))  # type: ignore[operator, arg-type]
    return len(page.examples)


def renewed(page: Page, folder: Path) -> str:
    """The page's text with what its console blocks print now, run in order in ``folder``."""
    environment = os.environ | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    for name, text in page.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    page_text = page.text
    for shown in page.shown:
        words = shlex.split(shown.command, comments=True)
        if words[0] == "make" or words[1] == "demo" or "scheduler:" in shown.command:
            continue
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if shown.output.strip():
            said = f"$ {shown.command}\n{done.stdout}{done.stderr if words[0] == 'graphcheck' else ''}"
            page_text = page_text.replace(f"$ {shown.command}\n{shown.output}", said)
    return page_text


def understood(command: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the command line knows the command's options; it is not run."""
    words = shlex.split(re.sub(r" (\.\.\.|…)$", "", command))[1:]
    at = words.index("--") if "--" in words else len(words)
    code = main([*words[:at], "--help"])
    capsys.readouterr()
    return code == 0


if __name__ == "__main__":
    import tempfile

    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as made:
            Path(name).write_text(renewed(Page(Path(name)), Path(made)), encoding="utf-8")
