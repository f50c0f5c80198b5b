"""Results for other tools. A format is one file of this folder, with ``write``, and its name in ``FORMATS``.

Where the name has a hyphen, the file has an underscore.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from graphcheck import outcome
from graphcheck.errors import UsageError
from graphcheck.outcome import Outcome
from graphcheck.verdict import Comparison, Verdict

FORMATS: tuple[str, ...] = ("junit", "sarif", "github", "summary", "layers", "model-explorer", "tensors")
GRAPHS = frozenset({"model-explorer", "tensors"})  # those that tell of each node

Result = Outcome | Comparison | Mapping[str, Any]


class Format(Protocol):
    """What the file of a format has."""

    def write(self, outcomes: Sequence[Outcome], require: Verdict) -> str:
        """The text of all results; what is weaker than ``require`` counts as undecided."""


def format_results(
    results: Result | Iterable[Result],
    kind: str,
    require: Verdict | str = Verdict.WITHIN_ROUNDING,
    accept: Collection[str] = (),
) -> str:
    """The results as text of a format, named as in ``FORMATS``.

    ``results`` are outcomes of a sweep, comparisons or their JSON; one, or many. What is weaker than ``require`` counts
    as undecided; only ``different`` and what meets ``require`` are answers. What has a code of ``accept`` is told as
    accepted, with its verdict. Raises UsageError for another kind.
    """
    if kind not in FORMATS:
        raise UsageError(f"there is no format {kind!r}; the formats are {', '.join(FORMATS)}")
    written = cast(Format, importlib.import_module(f"{__name__}.{kind.replace('-', '_')}"))
    level = Verdict(require)
    return written.write([outcome.of(result).accepting(level, accept) for result in _many(results)], level)


def _many(results: Result | Iterable[Result]) -> list[Result]:
    return [results] if isinstance(results, Outcome | Comparison | Mapping) else list(results)


def parse_format(text: str) -> tuple[str, Path | None]:
    """(kind, file) of ``--format KIND[=FILE]``; raises UsageError."""
    kind, _, file = text.partition("=")
    if kind not in FORMATS or (_ and not file):
        raise UsageError(f"--format takes {', '.join(FORMATS)}, each as KIND or KIND=FILE, not {text!r}")
    return kind, Path(file) if file else None


def write_formats(
    results: Result | Iterable[Result],
    wanted: Iterable[tuple[str, Path | None]],
    require: Verdict | str,
    accept: Collection[str] = (),
) -> list[Path]:
    """Write each (kind, file) of ``parse_format``, None being standard output; returns the files.

    With ``github``, the summary is added to $GITHUB_STEP_SUMMARY, where there is one.
    """
    from graphcheck.files.atomic import write_bytes

    many = _many(results)
    files = []
    for kind, file in wanted:
        text = format_results(many, kind, require, accept)
        if file is None:
            print(text, end="", flush=True)
        else:
            write_bytes(text.encode(errors="replace"), file)
            files.append(file)
        if kind == "github" and os.environ.get("GITHUB_STEP_SUMMARY"):
            add_step_summary(many, require, os.environ["GITHUB_STEP_SUMMARY"], accept)
    return files


def add_step_summary(
    results: Result | Iterable[Result], require: Verdict | str, file: str | Path, accept: Collection[str] = ()
) -> None:
    """Append the Markdown summary to ``file`` ($GITHUB_STEP_SUMMARY), as far as it fits beside what is there."""
    from graphcheck.formats.summary import LARGEST

    text = format_results(results, "summary", require, accept)
    path = Path(file)
    taken = path.stat().st_size if path.exists() else 0
    if taken + len(text.encode()) <= LARGEST:
        with path.open("a", encoding="utf-8") as out:
            out.write(text)
