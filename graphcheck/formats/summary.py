"""Markdown for the summary of a step in GitHub."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphcheck.outcome import Outcome, tally
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, Verdict
from graphcheck.words import GLYPHS, short

LARGEST = 1_000_000  # bytes: GitHub takes 1 MiB of a step, and shows nothing of more


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """A Markdown table, what needs attention first, within GitHub's limit."""
    head = [f"### graphcheck: {tally(outcomes)}", "", "| | verdict | what | why | s |", "|---|---|---|---|---:|"]
    order = {EXIT_DIFFERENT: 0, EXIT_TROUBLE: 1, EXIT_OK: 3}
    rows = [
        f"| {GLYPHS.get(o.status, '!' if o.failure else '')} | {_cell(o.status, 40)} | {_cell(o.name, 120)} "
        f"| {_cell(o.why, 400)} | {o.seconds:.1f} |"
        for o in sorted(outcomes, key=lambda o: order.get(o.exit_code(require), 2))
    ]
    size, kept = sum(len(line.encode()) + 1 for line in head) + 100, 0
    while kept < len(rows) and size + len(rows[kept].encode()) + 1 <= LARGEST:
        size += len(rows[kept].encode()) + 1
        kept += 1
    left = [f"| | | {len(rows) - kept} more that do not fit here | | |"] if kept < len(rows) else []
    return "\n".join([*head, *rows[:kept], *left, ""]) + "\n"


def _cell(text: str, limit: int) -> str:
    """Text that Markdown and HTML take as it is: every sign that could mean something is an entity or escaped."""
    text = short(text, limit).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]()#|!~@:])", lambda m: f"&#{ord(m[1])};", text)
