"""What people read on the terminal: the verdict first, small tables; plain text where there is no terminal."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graphcheck.formats import heartbeat
from graphcheck.words import GLYPHS, cut, safe, short

if TYPE_CHECKING:
    from rich.console import Console

Cell = str | tuple[str, str]  # text, or (text, style)
STYLES = {
    "identical": "bold green",
    "proved": "bold green",
    "within-rounding": "bold green",
    "undecided": "bold yellow",
    "different": "bold red",
    "clean": "bold green",
    "convicted": "bold red",
}
_LONGEST_LINE, _LONGEST_PHASE = 4000, 200
_ASKS_FOR_STYLE = ("FORCE_COLOR", "TTY_COMPATIBLE")  # as rich has it, also where there is no terminal


class Terminal:
    """Standard output for results, standard error for progress and trouble; ``quiet`` keeps results to themselves."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._tell: Callable[[str], None] | None = None  # of the status that is shown

    def _print(self, *parts: Cell) -> None:
        """A line of pieces, each plain or with a style, without the blanks at its end."""
        if self.quiet:
            return
        if _is_plain(sys.stdout):
            sys.stdout.write("".join(p if isinstance(p, str) else p[0] for p in parts).rstrip() + "\n")
            sys.stdout.flush()
            return
        from rich.text import Text

        line = Text.assemble(*parts)
        line.rstrip()
        _console(sys.stdout).print(line)

    def say(self, text: str = "", style: str = "") -> None:
        """Print a line of text that is already safe."""
        self._print((cut(text, _LONGEST_LINE), style))

    def verdict(self, verdict: str, reason: str) -> None:
        """The first line of every answer: the verdict in its colour, and why."""
        word = f"{GLYPHS.get(verdict, '')} {verdict}".strip()
        self._print((safe(word), STYLES.get(verdict, "bold")), f": {short(reason, _LONGEST_LINE)}")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Cell]], indent: int = 2) -> None:
        """Columns under a dim head; a column whose cells all are numbers stands right-aligned."""
        body = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in rows]
        if self.quiet or not body:
            return
        cells: list[list[tuple[str, str]]] = [[(name, "dim") for name in head], *body] if any(head) else body
        widths = [max(len(row[i][0]) for row in cells) for i in range(len(cells[0]))]
        right = [all(re.fullmatch(r"[-\d.,e+%]+|NaN", row[i][0]) for row in body) for i in range(len(widths))]
        for row in cells:
            line: list[Cell] = [" " * indent]
            for (text, style), width, to_right in zip(row, widths, right, strict=True):
                line += [(text.rjust(width) if to_right else text.ljust(width), style), "  "]
            self._print(*line)

    @contextlib.contextmanager
    def status(self, first: str) -> Iterator[Callable[[str], None]]:
        """A line of progress on standard error that goes away at the end; where that is no terminal, see ``heartbeat``.

        Inside of another one it goes on in its line.
        """
        if self._tell is not None:
            self._tell(first)
            yield self._tell
            return
        with contextlib.ExitStack() as stack:
            if _is_plain(sys.stderr) or not (console := _console(sys.stderr)).is_terminal:
                beat = stack.enter_context(heartbeat.beating(sys.stderr, safe(first)))
                self._tell = lambda text: beat(short(text, _LONGEST_PHASE))
            else:
                status = stack.enter_context(console.status(safe(first)))
                self._tell = lambda text: status.update(safe(text))
            try:
                yield self._tell
            finally:
                self._tell = None

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[str], None]]:
        """A progress bar on standard error; each call of what it yields is one step, and names it.

        Where that is no terminal, a line each minute; ``total`` is 0 where it is not known.
        """
        if _is_plain(sys.stderr) or not _console(sys.stderr).is_terminal:
            of, done = f" of {total}" if total else "", itertools.count(1)
            with heartbeat.beating(sys.stderr, safe(what), heartbeat.MINUTE) as beat:
                yield lambda step: beat(f"{safe(what)}: {next(done)}{of} ({short(step, 48)})")
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = _console(sys.stderr)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        text = TextColumn("{task.fields[step]}", markup=False)
        with Progress(*columns, text, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total, step="")
            yield lambda step: bar.update(task, advance=1, step=short(step, 48))


def _is_plain(file: Any) -> bool:
    """Whether rich would write bare text there, and so need not be loaded; where a variable has a say, that is left to it."""
    return not file.isatty() and not any(os.environ.get(name) for name in _ASKS_FOR_STYLE)


def _console(file: Any) -> Console:
    from rich.console import Console

    # Made anew each time: tests and callers exchange sys.stdout. Lines are never wrapped, so that they can be grepped.
    return Console(file=file, markup=False, highlight=False, emoji=False, soft_wrap=True)
