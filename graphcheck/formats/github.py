"""Workflow commands of GitHub: annotations of a step."""

from __future__ import annotations

from collections.abc import Sequence

from graphcheck.outcome import Outcome, tally
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, Verdict
from graphcheck.words import safe, short

_ANNOTATIONS = 10  # that GitHub shows of a step, of each kind


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """Workflow commands, at most ten errors, ten warnings and, of what was accepted, ten notices; the last of each then
    counts those left out."""
    levels: dict[str, list[str]] = {"error": [], "warning": [], "notice": []}
    for o in outcomes:
        code = o.exit_code(require)
        if code != EXIT_OK or o.accepted:
            level = "notice" if o.accepted else "error" if code in (EXIT_DIFFERENT, EXIT_TROUBLE) else "warning"
            title = _property(f"graphcheck: {o.status}: {short(o.name)}")
            # No file is named: an annotation on a model in the diff would need a line, and models have none.
            levels[level].append(f"::{level} title={title}::{_data(o.details(require))}")
    lines = []
    for level, found in levels.items():
        over = len(found) - _ANNOTATIONS
        lines += found if over <= 0 else found[: _ANNOTATIONS - 1]
        if over > 0:
            more = f"{over + 1} more like these; the step summary lists all"
            lines.append(f"::{level} title=graphcheck::{_data(more)}")
    lines.append(f"graphcheck: {tally(outcomes)}")
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    text = "\n".join(safe(line) for line in text.split("\n"))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
