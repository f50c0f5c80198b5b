"""Node data for Model Explorer (Google AI Edge): what is known of each tensor, in the colours of its node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphcheck.outcome import Outcome
from graphcheck.verdict import Verdict
from graphcheck.words import safe

# status -> (background, text)
COLOURS = {
    "same": ("#1a7f37", "#ffffff"),
    "unlike": ("#bf8700", "#ffffff"),
    "suspect": ("#bf8700", "#ffffff"),
    "wrong": ("#b42318", "#ffffff"),
}
Row = tuple[str, str, float]


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """JSON of ``GraphNodeData`` for one result, and of ``ModelNodeData`` with a graph for each where there are many.

    Keys are names of tensors, by which Model Explorer finds the nodes of an ONNX model. Of a comparison the value is the
    largest deviation of the tensor, relative to its largest magnitude, where it was measured: green if the other graph has
    the tensor, red where the graphs part, yellow behind that. Of a blame it is the local deviation by its bound: red
    beyond 1.
    """
    graphs = {safe(each.name): _graph(each) for each in outcomes}
    data = next(iter(graphs.values())) if len(graphs) == 1 else graphs
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _graph(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result or {}
    rows = _blamed(result) if "convicted" in result else _compared(result)
    results = {
        tensor: {"value": value, "bgColor": COLOURS[status][0], "textColor": COLOURS[status][1]}
        for tensor, status, value in rows
    }
    return {"results": results, "name": safe(f"graphcheck: {outcome.status}")}


def _compared(result: Mapping[str, Any]) -> Iterator[Row]:
    """Of the tensors of A and B; one that both have by name is B's."""
    graphs, numeric = result.get("graphs") or {}, result.get("numeric") or {}
    deviations = {(side, p[side]): p["deviation"] for p in numeric.get("curve") or () for side in "ab"}
    met: tuple[set[int], ...] = tuple({row[at] for row in result.get("alignment") or ()} for at in (0, 1))
    whole = result["verdict"] in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
    for side, there in zip("ab", met, strict=True):
        first = ((result.get("divergence") or {}).get(side) or {}).get("node")
        for node in (graphs.get(side) or {}).get("nodes") or ():
            same = result["verdict"] == Verdict.IDENTICAL or node["id"] in there
            status = "same" if same else "wrong" if node["name"] == first and not whole else "unlike"
            for tensor in filter(None, node["outputs"]):
                yield str(tensor), status, deviations.get((side, tensor)) or 0.0


def _blamed(result: Mapping[str, Any]) -> Iterator[Row]:
    """Of the tensors that were judged."""
    suspects = {row["output"] for row in result["suspect"]}
    for point in result["curve"]:
        local, bound = point["local"], point["bound"]
        if local is not None and bound:
            yield str(point["tensor"]), "suspect" if point["tensor"] in suspects else "same", local / bound
    for row in result["convicted"]:
        yield str(row["output"]), "wrong", float(row["ratio"] or 0.0)
