"""A rewrite as graphs: what the JSON records of them, the region cut out, and its picture, before beside after."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup

from graphcheck.errors import GraphcheckError
from graphcheck.reporting import layout, union
from graphcheck.reporting.charts import drawing, tag
from graphcheck.reporting.words import is_number, shape, short

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphcheck.verdict import Comparison

Graph = dict[str, Any]
WIDE, TALL, PITCH, ROW, LIMIT = 190, 46, 206, 74, 60
"""Size and pitch of a box; most nodes of a region that are drawn."""


class Rewritten(Protocol):
    """What is asked of a rewrite's result; ``changed`` tells whether ``model`` is another than ``original``."""

    @property
    def original(self) -> ir.Model:
        """The model that was given."""

    @property
    def model(self) -> ir.Model:
        """The model that was made."""

    @property
    def changed(self) -> bool:
        """Whether it is another, and holds."""


def evidence(
    result: Rewritten,
    proofs: Iterable[tuple[ir.Model, ir.Model, Comparison]] = (),
    timer: Callable[[Sequence[ir.Model]], list[list[float]]] | None = None,
) -> dict[str, Any]:
    """What the report of a rewrite draws: {"graphs", "alignment", "times_ms"}, each only where it is known.

    ``proofs`` are (original, rewritten, comparison) as the check saw them; that of other models (a folded normalization
    is proved on models of its own) aligns nothing. ``timer`` measures both models in milliseconds;
    "min" and "max" are then quartiles.
    """
    from graphcheck.reporting.shapes import graph_of

    graphs = {"a": graph_of(result.original)}
    if not result.changed:
        return {"graphs": graphs}
    found: dict[str, Any] = {"graphs": graphs | {"b": graph_of(result.model)}}
    for original, rewritten, comparison in proofs:
        if original is result.original and rewritten is result.model:
            found["alignment"] = comparison.evidence.get("alignment") or []
    with contextlib.suppress(GraphcheckError):  # symbolic dims that nobody gave sizes: no times
        times = [sorted(column) for column in timer([result.original, result.model])] if timer is not None else []
        rows = [{"median": t[len(t) // 2], "min": t[len(t) // 4], "max": t[3 * len(t) // 4]} for t in times]
        found |= {"times_ms": dict(zip(("before", "after"), rows, strict=True))} if rows else {}
    return found


def region(result: dict[str, Any]) -> dict[str, Graph]:
    """Both graphs of a rewrite's JSON cut down to the nodes of its sites, before and after; {} without graphs."""
    graphs, sites = result.get("graphs") or {}, result.get("sites") or []
    if not graphs.get("a") or not graphs.get("b"):
        return {}
    return {
        side: _cut(graphs[side], {t.get("tensor") for site in sites for t in site.get(when) or []})
        for side, when in (("a", "before"), ("b", "after"))
    }


def _cut(graph: Graph, written: set[str]) -> Graph:
    """The nodes that write these tensors, with the data that they read (no indices) and what others read of them."""
    nodes = [n for n in graph["nodes"] if written & set(n["outputs"])]
    inside = {id(n) for n in nodes}
    made = {name for n in nodes for name in n["outputs"]}
    known = graph["tensors"]
    read = dict.fromkeys(name for n in nodes for name in n["inputs"] if name and name not in made)
    used = {name for n in graph["nodes"] if id(n) not in inside for name in n["inputs"]} | set(graph["outputs"])
    names = [*read, *made]
    return {
        "nodes": nodes,
        "tensors": {name: known[name] for name in names if name in known},
        "inputs": [
            n for n, t in ((n, known.get(n) or {}) for n in read) if not t.get("constant") and t.get("dtype") != "int64"
        ],
        "outputs": [name for n in nodes for name in n["outputs"] if name in used],
    }


def site_graphs(result: dict[str, Any], site: dict[str, Any]) -> dict[str, Graph]:
    """The region of one site."""
    return region(result | {"sites": [site]})


def region_picture(graph: Graph | None, side: str, view: str = "", linked: bool = True) -> Markup | None:
    """One side of a region: a box for each node with its op, the shape and rank of what it writes, and its weights.

    None for a region of no node or too many. With ``linked`` each box opens its node in the drawing of ``view``.
    """
    if not graph or not graph["nodes"] or len(graph["nodes"]) > LIMIT:
        return None
    merged = union.merge(union.side(graph, calm=True), None, [], {})
    everything = list(range(len(merged.vertices)))
    (placed,), bends, _ = layout.place(merged, [everything])
    columns = [x for _, _, x, _ in placed["v"] if x is not None]
    low, high = min(columns), max(columns)
    at = {v: ((x - low) * PITCH + WIDE / 2 + 4, row * ROW + TALL / 2 + 4) for v, row, x, _ in placed["v"]}
    by_id = {int(n["id"]): n for n in graph["nodes"]}
    parts = [
        _edge(at[u], at[v], bends.get((u, v)) or bends.get((-1, v)) or [], low)
        for u, v in dict.fromkeys(merged.edges["a"])
    ]
    for v, vertex in enumerate(merged.vertices):
        assert vertex.a is not None
        kind, index = vertex.a
        if kind == "n":
            node = by_id[index]
            box = _box(_Box(node["op_type"], node["outputs"][0], _weights(graph, node)), graph, *at[v])
            href = f"#{view}{';' if view else ''}node={side}:{index}"
            parts.append(tag("a", box, href=href) if linked else box)
        else:
            name = graph["inputs" if kind == "i" else "outputs"][index]
            parts.append(_box(_Box("", name, ""), graph, *at[v]))
    size = ((high - low) * PITCH + WIDE + 8, placed["rows"] * ROW - ROW + TALL + 8)
    return drawing(*size, "The region, node by node", *parts, css="chart region")


@dataclasses.dataclass(frozen=True)
class _Box:
    """A box to draw: the op ("" for an input or output of the region), the tensor it writes, its weights in words."""

    op: str
    tensor: str
    weights: str


def _weights(graph: Graph, node: dict[str, Any]) -> str:
    """The shapes of a node's float constants of some size: the kernel or the matrix."""
    rows = [graph["tensors"].get(name) or {} for name in node["inputs"]]
    shapes = [t["shape"] for t in rows if t.get("constant") and len(t.get("shape") or []) > 1]
    return "W " + shape(shapes[0]) if shapes else ""


def _box(box: _Box, graph: Graph, x: float, y: float) -> Markup:
    tensor = graph["tensors"].get(box.tensor) or {}
    dims = tensor.get("shape")
    rank = len(dims) if isinstance(dims, list) else None
    left, top = x - WIDE / 2, y - TALL / 2
    frame = "rbox end" if not box.op else "rbox"
    parts = [tag("rect", x=left, y=top, width=WIDE, height=TALL, rx=8 if box.op else 23, class_=frame)]
    parts.append(tag("title", f"{box.op} {box.tensor}".strip()))
    middle = x - (16 if is_number(rank) and box.op else 0)
    parts.append(tag("text", short(box.op or box.tensor, 18), x=middle, y=top + 18, class_="rop mid"))
    said = " · ".join(filter(None, (shape(dims), box.weights)))
    parts.append(tag("text", short(said, 31), x=x, y=top + 35, class_="tick mid"))
    if rank is not None and box.op:
        css = "rrank high" if rank > 4 else "rrank"
        parts.append(tag("rect", x=left + WIDE - 37, y=top + 5, width=31, height=17, rx=5, class_=css))
        parts.append(tag("text", f"{rank}-D", x=left + WIDE - 21.5, y=top + 17.5, class_=f"{css} mid"))
    return tag("g", *parts)


def _edge(start: tuple[float, float], end: tuple[float, float], bends: list[tuple[float, int]], low: float) -> Markup:
    points = [(start[0], start[1] + TALL / 2)]
    for column, row in bends:
        x, y = (column - low) * PITCH + WIDE / 2 + 4, row * ROW + TALL / 2 + 4
        points += [(x, y - TALL / 2), (x, y + TALL / 2)]
    points.append((end[0], end[1] - TALL / 2))
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in itertools.pairwise(points):
        bend = (y2 - y1) / 2
        path += f"C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    return tag("path", d=path, class_="redge")
