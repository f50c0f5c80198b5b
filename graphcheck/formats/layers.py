"""CSV of the nodes that bring a copy's deviation, the largest share first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from graphcheck.outcome import Outcome
from graphcheck.verdict import Verdict
from graphcheck.words import safe

HEAD = ("pair", "rank", "node", "op_type", "share", "constants")


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """A row for each node; a pair without a copy in a narrower format has none."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(HEAD)
    for each in outcomes:
        rows = ((each.result or {}).get("precision") or {}).get("layers") or []
        for rank, row in enumerate(rows, 1):
            names = (safe(row["node"]), safe(row["op_type"]))
            table.writerow([safe(each.name), rank, *names, f"{row['share']:.6g}", f"{row['constants']:.6g}"])
    return text.getvalue()
