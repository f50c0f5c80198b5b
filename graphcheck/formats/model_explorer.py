"""Node data for Model Explorer (Google AI Edge): what is known of each tensor, in the colours of its node."""

from __future__ import annotations

import json
from collections import Counter
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

    Keys are the ids that Model Explorer's adapter for ONNX gives to nodes: their names, or made ones. Of a
    comparison it is the nodes of B: green if A has the tensor, red where the graphs part, yellow behind that; the value is
    the largest deviation, relative to the tensor's largest magnitude, where it was measured. Of a blame it is the nodes
    that were judged: the value is the local deviation by its bound, red beyond 1.
    """
    graphs = {safe(each.name): _graph(each) for each in outcomes}
    data = next(iter(graphs.values())) if len(graphs) == 1 else graphs
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def _graph(outcome: Outcome) -> dict[str, Any]:
    result = outcome.result or {}
    rows = _blamed(result) if "convicted" in result else _compared(result)
    results = {
        node: {"value": value, "bgColor": COLOURS[status][0], "textColor": COLOURS[status][1]}
        for node, status, value in rows
    }
    return {"results": results, "name": safe(f"graphcheck: {outcome.status}")}


def _ids(graph: Mapping[str, Any] | None) -> dict[int, str]:
    """The ids of a graph's nodes by their numbers, as onnx_ir's NameFixPass makes names and keeps them apart."""
    ids: dict[int, str] = {}
    used: set[str] = set()
    counts: Counter[str] = Counter()
    for node in (graph or {}).get("nodes") or ():
        made = f"{node['op_type']}({next(iter(node['outputs']), '')})"  # what stands for a name where there is none
        own = found = "node" if node["name"] == made else str(node["name"])
        while found in used:
            counts[own] += 1
            found = f"{own}_{counts[own]}"
        used.add(found)
        ids[node["id"]] = found
    return ids


def _compared(result: Mapping[str, Any]) -> Iterator[Row]:
    curve = (result.get("numeric") or {}).get("curve") or ()
    deviations = {point["b"]: point["deviation"] or 0.0 for point in curve}
    met = {row[1] for row in result.get("alignment") or ()}
    first = ((result.get("divergence") or {}).get("b") or {}).get("node")
    graph = (result.get("graphs") or {}).get("b")
    ids = _ids(graph)
    for node in (graph or {}).get("nodes") or ():
        same = result["verdict"] == Verdict.IDENTICAL or node["id"] in met
        status = "same" if same else "wrong" if node["name"] == first and not _whole(result) else "unlike"
        yield ids[node["id"]], status, max((deviations.get(tensor, 0.0) for tensor in node["outputs"]), default=0.0)


def _whole(result: Mapping[str, Any]) -> bool:
    """Whether the graphs are the same function, so that where they part nothing is wrong."""
    return Verdict(result["verdict"]).meets(Verdict.WITHIN_ROUNDING)


def _blamed(result: Mapping[str, Any]) -> Iterator[Row]:
    graph = result.get("graph") or {}
    made = _ids(graph)
    ids = {node["name"]: made[node["id"]] for node in graph.get("nodes") or ()}
    suspects = {row["node"] for row in result["suspect"]}
    for point in result["curve"]:
        node, local, bound = point["node"], point["local"], point["bound"]
        if local is not None and bound:
            yield ids.get(node, node), "suspect" if node in suspects else "same", local / bound
    for row in result["convicted"]:
        yield ids.get(row["node"], row["node"]), "wrong", float(row["ratio"] or 0.0)
