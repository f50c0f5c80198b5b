"""What a command is asked to write: its JSON, its report and its formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from graphcheck.errors import UsageError
from graphcheck.files import places
from graphcheck.formats import GRAPHS, parse_format
from graphcheck.options import Told


@dataclasses.dataclass(frozen=True)
class Wanted:
    """``formats`` are pairs (kind, file), ``quiet`` says that standard output is taken, ``drawn`` that something is written
    which tells of each node."""

    formats: list[tuple[str, Path | None]]
    quiet: bool
    drawn: bool


def wanted(told: Told, *targets: Path | None, sources: Sequence[Path]) -> Wanted:
    """What is to be written; raises UsageError where it would lie over a source or over another target."""
    kinds = [parse_format(text) for text in told.format]
    taken = sum(file is None for _, file in kinds) + (told.json == "-")
    if taken > 1:
        raise UsageError("only one --format, or --json -, can go to standard output: name files for the others")
    places.check_targets(told.json, told.report, *targets, *(file for _, file in kinds), sources=sources)
    return Wanted(kinds, taken == 1, told.report is not None or any(kind in GRAPHS for kind, _ in kinds))
