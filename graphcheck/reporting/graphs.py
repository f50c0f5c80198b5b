"""The drawing of one graph or of a pair, as plain data for the page's own script."""

from __future__ import annotations

from typing import Any

from graphcheck.reporting import folding, layout, union
from graphcheck.reporting.words import is_number

FIRST = ("divergence", "rounding")
"""Marks of the place where two graphs part."""


class Sides:
    """Graphs as drawn sides and by node, remembered: in a family each stands in many pairs, and lives as long as this."""

    def __init__(self) -> None:
        self._sides: dict[tuple[int, frozenset[int], bool], union.Side] = {}
        self._nodes: dict[int, dict[int, dict[str, Any]]] = {}

    def side(self, graph: dict[str, Any], keep: frozenset[int] = frozenset(), calm: bool = False) -> union.Side:
        """:func:`graphcheck.reporting.union.side`."""
        key = (id(graph), keep, calm)
        if key not in self._sides:
            self._sides[key] = union.side(graph, keep, calm)
        return self._sides[key]

    def nodes(self, graph: dict[str, Any]) -> dict[int, dict[str, Any]]:
        """Nodes by id."""
        if id(graph) not in self._nodes:
            self._nodes[id(graph)] = {int(n["id"]): n for n in graph["nodes"]}
        return self._nodes[id(graph)]


def drawings(
    a: dict[str, Any],
    b: dict[str, Any] | None = None,
    *,
    alignment: list[Any] | None = None,
    interface: dict[str, Any] | None = None,
    divergence: dict[str, Any] | None = None,
    marks: dict[str, dict[str, str]] | None = None,
    known: Sides | None = None,
    limit: int | None = None,
    rounded: bool = False,
) -> list[dict[str, Any]]:
    """One drawing with all nodes, or two: first a calm one, without what depends on shapes and constants alone.

    With ``limit``, the calm one alone where it hides more nodes than that. With ``rounded`` the functions are the same but
    for rounded constants: what stands behind the first of them is marked as "rounding", and is no difference.

    A drawing is {"verts", "atoms", "edges", "tree", "goto", "hidden"}. ``marks`` maps the side ("a", "b") to {node
    name: words} for nodes to point out. Vertices are [kind, key of A, key of B, status, mark, partner drawn elsewhere];
    ``goto`` is the vertex to bring into view first, ``hidden`` how many nodes are left out.
    """
    models = {"a": a} if b is None else {"a": a, "b": b}
    known = known or Sides()
    by_id = {s: known.nodes(g) for s, g in models.items()}
    found = {s: _divergent(g, divergence, s) for s, g in models.items()}
    words: dict[str, dict[int, str]] = {s: {} for s in models}
    for s, said in (marks or {}).items():
        words[s] = {i: w for i, n in by_id[s].items() if (w := said.get(str(n["name"])))}
    for s, ids in found.items():
        words[s] |= dict.fromkeys(ids, "rounding" if rounded else "divergence")
    ports = _ports(a, b, interface) if b is not None else {}

    def draw(calm: bool, keep: dict[str, set[int]]) -> dict[str, Any]:
        sides = {s: known.side(g, frozenset(keep[s]), calm) for s, g in models.items()}
        # Only behind a divergence are nodes without partner counterparts; elsewhere they are another way to write it.
        by_place = any(found.values())
        merged = union.merge(sides["a"], sides.get("b"), alignment or [], ports, by_place)
        for vertex in merged.vertices if rounded else ():
            vertex.status = "rounded" if vertex.status == "different" else vertex.status
        made = _draw(merged, by_id, words)
        return made | {"hidden": sum(side.hidden for side in sides.values())}

    calm = draw(True, {s: set(words[s]) | kept for s, kept in _heavy(models, alignment or [], known).items()})
    if not calm["hidden"] or (limit is not None and calm["hidden"] > limit):
        return [calm]
    return [calm, draw(False, found)]


def _heavy(models: dict[str, dict[str, Any]], alignment: list[Any], known: Sides) -> dict[str, set[int]]:
    """Light nodes that a calm drawing keeps: their values differ from the partner's, or the partner is not light."""
    light = {s: {i for _, i in known.side(g).light} for s, g in models.items()}
    kept: dict[str, set[int]] = {s: set() for s in models}
    for x, y, status in alignment if len(models) == 2 else []:
        if status == "different" or (int(x) in light["a"]) != (int(y) in light["b"]):
            kept["a"].add(int(x))
            kept["b"].add(int(y))
    return kept


def _draw(
    merged: union.Union, by_id: dict[str, dict[int, dict[str, Any]]], words: dict[str, dict[int, str]]
) -> dict[str, Any]:
    verts: list[list[Any]] = []
    special: set[int] = set()
    goto = None
    for i, v in enumerate(merged.vertices):
        keys = [(s, key[1]) for s, key in (("a", v.a), ("b", v.b)) if key is not None and key[0] == "n"]
        said = [words[s][ident] for s, ident in keys if ident in words[s]]
        mark = next((w for w in said if w in FIRST), said[0] if said else "")
        if mark not in ("", "refused"):  # many a Conv of a CNN is refused, which is no reason to open every fold
            special.add(i)
        if mark in FIRST and (goto is None or keys[-1][0] == "b"):
            goto = i
        verts.append([v.kind, v.a and v.a[1], v.b and v.b[1], v.status, mark, v.other and v.other[1]])
    modules = [_module(by_id, v) for v in merged.vertices]
    groups = folding.atoms(merged)
    placed, bends_a, bends_b = layout.place(merged, groups)
    return {
        "verts": verts,
        "atoms": placed,
        "edges": {s: _edges(merged, s, bends) for s, bends in (("a", bends_a), ("b", bends_b))},
        "tree": folding.tree(merged, groups, modules, special),
        "goto": goto if goto is not None else min(special, default=None),
    }


def _edges(merged: union.Union, s: str, bends: layout.Bends) -> list[list[Any]]:
    """Edges as [from, to] or [from, to, [[column, row in the target's atom], ...]]."""
    out: list[list[Any]] = []
    for u, v in merged.edges[s]:
        chain = bends.get((u, v)) or bends.get((-1, v))
        out.append([u, v, chain] if chain else [u, v])
    return out


def _divergent(graph: dict[str, Any], divergence: dict[str, Any] | None, s: str) -> set[int]:
    """Ids of the node that makes the first divergent tensor of a side."""
    place = (divergence or {}).get(s) or {}
    nodes = graph["nodes"]
    hits = {int(n["id"]) for n in nodes if place.get("tensor") in n["outputs"]}
    return hits or {int(n["id"]) for n in nodes if place.get("node") and n["name"] == place["node"]}


def _ports(a: dict[str, Any], b: dict[str, Any], interface: dict[str, Any] | None) -> dict[str, list[tuple[int, int]]]:
    """Indices of paired inputs and outputs; without an interface, by position."""
    out: dict[str, list[tuple[int, int]]] = {}
    for kind, names in (("i", "inputs"), ("o", "outputs")):
        rows = (interface or {}).get(names)
        if rows is None:
            out[kind] = [(i, i) for i in range(min(len(a[names]), len(b[names])))]
        else:
            pairs = [(r.get("a"), r.get("b")) for r in rows]
            out[kind] = [(a[names].index(x), b[names].index(y)) for x, y in pairs if x in a[names] and y in b[names]]
    return out


def _module(by_id: dict[str, dict[int, dict[str, Any]]], v: union.Vertex) -> str:
    for s, key in (("a", v.a), ("b", v.b)):
        if key and key[0] == "n" and by_id[s][key[1]].get("module"):
            return str(by_id[s][key[1]]["module"])
    return ""


def deviations(numeric: dict[str, Any] | None) -> dict[str, list[Any]]:
    """{tensor of A: [deviation, spread or null]}, as the divergence curve measured them."""
    curve = (numeric or {}).get("curve") or []
    return {
        str(p["a"]): [p.get("deviation"), p.get("spread")]
        for p in curve
        if p.get("a") and is_number(p.get("deviation"))
    }
