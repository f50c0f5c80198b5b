"""Who runs a pass: a tool of the table in a child process, or two commands of somebody else's."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import selectors
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from graphcheck import processes
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.guarding import command as command_
from graphcheck.guarding.tools import TOOLS

_LONGEST = 300.0  # seconds for importing a tool and listing its passes


class Runner(Protocol):
    """``usual`` are the passes in their usual order; those of ``names`` alone where some were named."""

    title: str
    usual: tuple[str, ...]
    bare: bool  # whether it can run no pass at all: what the tool does to every model
    whole: bool  # whether it can run as people call it

    def run(self, passes: Sequence[str] | None, source: Path, target: Path) -> float:
        """Write what the passes make of a model (None: what the whole tool does); the seconds that it took.

        Raises GraphcheckError for a pass that fails, crashes, takes too long, or writes nothing.
        """

    def close(self) -> None:
        """End what still runs."""


def runner_of(tool: str | None, listing: str | None, command: Sequence[str], timeout: float) -> Runner:
    """The runner that the options ask for; raises UsageError for what does not go together."""
    if tool and listing:
        raise UsageError("--passes and --passes-from exclude each other")
    if tool:
        if command:
            raise UsageError("--passes runs a tool that it knows: with a command of your own, give --passes-from")
        return OfTool(tool, timeout)
    return OfCommands(shlex.split(listing or ""), command, timeout)


class OfTool:
    """A tool of ``TOOLS``, imported in a process of its own, which is started anew where it ended."""

    def __init__(self, named: str, timeout: float = _LONGEST) -> None:
        name, _, wanted = named.partition(":")
        if name not in TOOLS:
            raise UsageError(f"--passes: there is no tool {name!r}; the tools are {', '.join(TOOLS)}")
        self.name, self.timeout = name, timeout
        self.child: subprocess.Popen[bytes] | None = None
        self.said: IO[bytes] | None = None  # what the child writes to standard error
        try:
            about = self._ask(None)
            if "missing" in about:
                raise UsageError(
                    f"--passes {name}: {about['missing']} is not installed: pip install {about['missing']}"
                )
            self.usual = tuple(_named(name, wanted, about["passes"], about["others"]) if wanted else about["passes"])
        except BaseException:
            self.close()
            raise
        self.title = f"{name} {about['version'] or ''}".strip()
        self.bare, self.whole = True, about["whole"] and not wanted

    def run(self, passes: Sequence[str] | None, source: Path, target: Path) -> float:
        task = {"passes": None if passes is None else list(passes), "in": str(source), "out": str(target)}
        answer = self._ask(task)
        if not target.is_file():
            raise GraphcheckError("it ended without an error, but wrote no model")
        return float(answer["seconds"])

    def _ask(self, task: dict[str, Any] | None) -> dict[str, Any]:
        """The answer to a task, or what a fresh child says of the tool; GraphcheckError for what failed."""
        if self.child is None:
            self.said = tempfile.TemporaryFile()  # noqa: SIM115
            self.child = subprocess.Popen(
                [*processes.PYTHON, "-m", "graphcheck.guarding.child", self.name], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self.said, env=processes.environment(), start_new_session=True,
            )  # fmt: skip
            about = self._answer(self.child, _LONGEST)
            if task is None:
                return about
        assert self.child is not None and self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps(task).encode() + b"\n")
            self.child.stdin.flush()
        return self._answer(self.child, self.timeout)

    def _answer(self, child: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        line, deadline = b"", time.monotonic() + seconds
        assert child.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(child.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not ready.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise GraphcheckError(f"it took more than {seconds:g} s")
                piece = os.read(child.stdout.fileno(), 2**16)
                if not piece:
                    raise GraphcheckError(self._death())
                line += piece
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise GraphcheckError(answer["error"])
        return answer | (answer["value"] or {})

    def _death(self) -> str:
        assert self.child is not None and self.said is not None
        code = self.child.wait()
        self.said.seek(0)
        last = processes.last_words(self.said.read().decode(errors="replace").splitlines())
        self.close()
        return f"its process ended with {processes.ended(code)}" + (f": {last}" if last else "")

    def close(self) -> None:
        if self.child is not None and self.said is not None:
            self.said.close()
            with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.kill()
            self.child.wait()
            for pipe in (self.child.stdin, self.child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self.child = None


class OfCommands:
    """Somebody's own tool: ``listing`` prints the names of its passes in order, ``command`` runs ``{pass}``."""

    bare = whole = False

    def __init__(self, listing: Sequence[str], command: Sequence[str], timeout: float | None = None) -> None:
        for placeholder in ("{pass}", "{in}", "{out}"):
            if not any(placeholder in part for part in command):
                raise UsageError(
                    f"the command must name {placeholder}, as in: graphcheck guard MODEL --passes-from 'mytool --list' "
                    "-- mytool --pass {pass} {in} {out}"
                )
        self.command, self.timeout, self.title = command, timeout, command[0]
        self.usual = tuple(dict.fromkeys(command_.run(listing, timeout).split()))
        if not self.usual:
            raise GraphcheckError(f"{listing[0]}: the command that lists passes printed none")

    def run(self, passes: Sequence[str] | None, source: Path, target: Path) -> float:
        (name,) = passes or ()
        with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:  # whoever works in place harms no later pass
            command_.copy_files(source, Path(folder))
            filled = {"{pass}": name, "{in}": str(Path(folder, source.name)), "{out}": str(target)}
            words = list(self.command)
            for placeholder, value in filled.items():
                words = [word.replace(placeholder, value) for word in words]
            start = time.monotonic()
            command_.run(words, self.timeout)
            seconds = time.monotonic() - start
        if not target.is_file():
            raise GraphcheckError(f"{words[0]}: the command ended without an error, but wrote no {{out}}")
        return seconds

    def close(self) -> None:
        pass


def _named(tool: str, wanted: str, passes: Sequence[str], others: Sequence[str]) -> list[str]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in (*passes, *others):
            near = difflib.get_close_matches(name, (*passes, *others), 1)
            meant = f"; did you mean {near[0]}?" if near else f"; it has {', '.join((*passes, *others))}"
            raise UsageError(f"--passes {tool}: there is no pass {name!r}{meant}")
    return names
