"""CSV of the deviation of aligned tensors along the depth of the network."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from graphcheck.outcome import Outcome
from graphcheck.verdict import Verdict
from graphcheck.words import safe

HEAD = ("pair", "place", "a", "b", "op_type", "deviation", "rise", "spread")


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """A row for each tensor, in A's order; a pair whose curve was not measured has none."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    for each in outcomes:
        rows = ((each.result or {}).get("numeric") or {}).get("curve") or []
        for place, row in enumerate(rows, 1):
            names = (safe(row[key] or "") for key in ("a", "b", "op_type"))
            sizes = ("" if row[key] is None else f"{row[key]:.6g}" for key in ("deviation", "rise", "spread"))
            table.writerow([safe(each.name), place, *names, *sizes])
    return text.getvalue()
