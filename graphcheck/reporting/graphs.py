"""The drawing of one graph or of a pair, as plain data for the page's own script."""

from __future__ import annotations

from typing import Any

from graphcheck.reporting import folding, layout, union
from graphcheck.reporting.words import is_number


def drawing(
    a: dict[str, Any],
    b: dict[str, Any] | None = None,
    *,
    alignment: list[Any] | None = None,
    interface: dict[str, Any] | None = None,
    divergence: dict[str, Any] | None = None,
    marks: dict[str, dict[str, str]] | None = None,
) -> dict[str, Any]:
    """The drawing: {"verts", "atoms", "edges", "tree", "goto"}.

    ``marks`` maps the side ("a", "b") to {node name: words} for nodes to point out. Vertices are [kind, key of A, key of B, status, mark,
    partner drawn elsewhere]; ``goto`` is the vertex to bring into view first.
    """
    marks = marks or {}
    found = {"a": _divergent(a, divergence, "a"), "b": _divergent(b, divergence, "b") if b else set()}
    sides = {s: union.side(g, frozenset(found[s])) if g is not None else None for s, g in (("a", a), ("b", b))}
    side_a = sides["a"]
    assert side_a is not None
    # Only behind a divergence are nodes without partner counterparts; elsewhere they are another way to write the same.
    by_place = bool(found["a"] or found["b"])
    merged = union.merge(side_a, sides["b"], alignment or [], _ports(a, b, interface) if b else {}, by_place)
    by_id = {s: {int(n["id"]): n for n in g["nodes"]} for s, g in (("a", a), ("b", b)) if g is not None}
    verts: list[list[Any]] = []
    special: set[int] = set()
    goto = None
    for i, v in enumerate(merged.vertices):
        mark = ""
        for s, key in (("a", v.a), ("b", v.b)):
            if key is None or key[0] != "n":
                continue
            if key[1] in found[s]:
                mark = "divergence"
                goto = i if goto is None or s == "b" else goto
            mark = mark or marks.get(s, {}).get(str(by_id[s][key[1]]["name"]), "")
        if mark:
            special.add(i)
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


def _divergent(graph: dict[str, Any] | None, divergence: dict[str, Any] | None, s: str) -> set[int]:
    """Ids of the node that makes the first divergent tensor of a side."""
    place = (divergence or {}).get(s) or {}
    nodes = graph["nodes"] if graph else []
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
    """Deviation and spread of each tensor of A that the divergence curve measured: {tensor: [deviation, spread or null]}."""
    curve = (numeric or {}).get("curve") or []
    return {
        str(p["a"]): [p.get("deviation"), p.get("spread")]
        for p in curve
        if p.get("a") and is_number(p.get("deviation"))
    }
