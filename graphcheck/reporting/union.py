"""Two model graphs as one: aligned nodes become one vertex, so that both sides can be drawn on the same rows."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections import defaultdict
from typing import Any

import networkx as nx

Key = tuple[str, int]
"""("n", node id), ("i", index of a graph input) or ("o", index of a graph output)."""


@dataclasses.dataclass(frozen=True)
class Side:
    """One graph: the keys drawn, in topological order, and its edges (producer, consumer), without repeats.

    ``light`` are nodes whose values depend on shapes and constants alone; ``hidden`` counts those of them left out.
    """

    keys: list[Key]
    edges: list[tuple[Key, Key]]
    ops: dict[Key, str]
    light: frozenset[Key]
    hidden: int


@dataclasses.dataclass
class Vertex:
    """What stands in one place of the drawing: a key of A, of B, or of both, with the status of the pair."""

    a: Key | None
    b: Key | None
    status: str
    other: Key | None = None
    """The partner that is drawn in another place, if the pair could not be merged."""

    @property
    def kind(self) -> str:
        """ "n" for a node, "i" for a graph input, "o" for a graph output."""
        return (self.a or self.b or ("n", 0))[0]


@dataclasses.dataclass(frozen=True)
class Union:
    """The merged graph: vertices in topological order, edges of each side as vertex indices, a row for each vertex."""

    vertices: list[Vertex]
    edges: dict[str, list[tuple[int, int]]]
    rows: list[int]
    ops: list[str]
    light: list[bool]
    """Shape arithmetic and what is computed from constants alone: drawn beside its first reader."""


def side(graph: dict[str, Any], keep: frozenset[int] = frozenset(), calm: bool = False) -> Side:
    """The drawn part of one graph: inputs, outputs, and nodes without Constants and copies of constants.

    With ``calm`` light nodes are left out too; nodes of ``keep`` are always drawn. ONNX lists nodes in topological
    order; an edge against that order (an invalid graph) is dropped.
    """
    constant = {name for name, t in (graph.get("tensors") or {}).items() if t.get("constant")}
    producer: dict[str, Key] = {name: ("i", i) for i, name in enumerate(graph["inputs"]) if name not in constant}
    keys: list[Key] = list(producer.values())
    ops: dict[Key, str] = dict.fromkeys(keys, "Input")
    edges: dict[tuple[Key, Key], None] = {}
    shapes: set[str] = set()
    light: set[Key] = set()
    hidden = 0
    for node in graph["nodes"]:
        key, op = ("n", int(node["id"])), node["op_type"]
        sources = [name for name in node["inputs"] if name in producer or name in shapes]
        is_light = op in ("Shape", "Size") or all(name in shapes or producer.get(name) in light for name in sources)
        is_light &= not op.startswith(("Random", "Bernoulli", "If", "Loop", "Scan"))
        if key[1] not in keep and op in ("Constant", "Identity") and not sources:
            continue
        if key[1] not in keep and calm and is_light:
            hidden += 1
            shapes.update(node["outputs"])
            continue
        if is_light:
            light.add(key)
        keys.append(key)
        ops[key] = op
        edges.update({(producer[name], key): None for name in sources if name in producer})
        producer.update({name: key for name in node["outputs"] if name})
    for i, name in enumerate(graph["outputs"]):
        keys.append(("o", i))
        ops["o", i] = "Output"
        if name in producer:
            edges[producer[name], ("o", i)] = None
    return Side(keys, [(u, v) for u, v in edges if u != v], ops, frozenset(light), hidden)


def merge(
    a: Side, b: Side | None, alignment: list[Any], ports: dict[str, list[tuple[int, int]]], by_place: bool = False
) -> Union:
    """The union of two sides (or one alone), rows by longest path.

    ``alignment`` holds [node of A, node of B, status]; ``ports`` pairs graph inputs ("i") and outputs ("o") by index.
    Pairs that would close a cycle are drawn apart. With ``by_place``, nodes without partner are paired as "different"
    where the same op stands behind paired producers.
    """
    pairs: dict[Key, tuple[Key, str]] = {}
    apart: dict[Key, tuple[Key, str]] = {}
    if b is not None:
        known_a, known_b = set(a.keys), set(b.keys)
        listed = [(("n", int(x)), ("n", int(y)), str(s)) for x, y, s in alignment]
        listed += [((kind, x), (kind, y), "same") for kind, rows in ports.items() for x, y in rows]
        taken: set[Key] = set()
        for x, y, status in listed:
            if x in known_a and y in known_b and x not in pairs and y not in taken:
                pairs[x] = (y, status if status in ("same", "layout", "different") else "different")
                taken.add(y)
        if by_place:
            _pair_by_place(a, b, pairs)
        dropped = _knotted(a, b, pairs)
        apart = {x: pairs.pop(x) for x in dropped}
    return _build(a, b, pairs, apart)


def _pair_by_place(a: Side, b: Side, pairs: dict[Key, tuple[Key, str]]) -> None:
    """Pair what is left, in topological order: a node of B with A's node of the same op behind the same producers.

    A node without partner is looked through, on either side, so that one op inserted does not part all that follows.
    """
    consumers: dict[Key, list[Key]] = defaultdict(list)
    for u, v in a.edges:
        consumers[u].append(v)
    sources_b: dict[Key, list[Key]] = defaultdict(list)
    for u, v in b.edges:
        sources_b[v].append(u)
    back = {y: x for x, (y, _) in pairs.items()}
    origin: dict[Key, Key] = dict(back)
    for y in b.keys:
        if y in back or y[0] != "n":
            continue
        behind = [origin[u] for u in sources_b[y] if u in origin]
        near = [v for u in behind for v in consumers[u]]
        near += [w for v in near if v not in pairs for w in consumers[v]]
        x = next((v for v in near if v not in pairs and a.ops[v] == b.ops[y]), None)
        if x is not None:
            pairs[x], back[y], origin[y] = (y, "different"), x, x
        elif behind:
            origin[y] = behind[0]


def _knotted(a: Side, b: Side, pairs: dict[Key, tuple[Key, str]]) -> set[Key]:
    """Keys of A whose pairs would close a cycle: in each knot, all but a longest run in the order of both sides."""
    place_a, place_b = {k: i for i, k in enumerate(a.keys)}, {k: i for i, k in enumerate(b.keys)}
    ranks = [place_b[pairs[x][0]] for x in a.keys if x in pairs]
    if all(i < j for i, j in itertools.pairwise(ranks)):
        return set()  # both orders agree, so neither can close a cycle
    name = {("b", y): ("a", x) for x, (y, _) in pairs.items()}
    graph: nx.DiGraph[tuple[str, Key]] = nx.DiGraph((("a", u), ("a", v)) for u, v in a.edges)
    graph.add_edges_from((name.get(("b", u), ("b", u)), name.get(("b", v), ("b", v))) for u, v in b.edges)
    dropped: set[Key] = set()
    for knot in nx.strongly_connected_components(graph):
        if len(knot) > 1:
            merged = sorted((x for s, x in knot if s == "a" and x in pairs), key=place_a.__getitem__)
            kept = _increasing([place_b[pairs[x][0]] for x in merged])
            dropped.update(x for i, x in enumerate(merged) if i not in kept)
    return dropped


def _increasing(values: list[int]) -> set[int]:
    """Indices of a longest increasing subsequence (patience sorting)."""
    tails: list[int] = []
    last: list[int] = []
    before: list[int | None] = []
    for i, value in enumerate(values):
        at = bisect.bisect_left(tails, value)
        before.append(last[at - 1] if at else None)
        tails[at : at + 1], last[at : at + 1] = [value], [i]
    found, at_index = set(), last[-1] if last else None
    while at_index is not None:
        found.add(at_index)
        at_index = before[at_index]
    return found


def _vertices(
    a: Side, b: Side | None, pairs: dict[Key, tuple[Key, str]], apart: dict[Key, tuple[Key, str]]
) -> list[Vertex]:
    # Without any alignment nothing is known of partners, and nothing is claimed.
    aligned = b is not None and any(x[0] == "n" for x in (*pairs, *apart))
    alone, alone_b = ("a", "b") if aligned else ("plain", "plain")
    vertices: list[Vertex] = []
    partner: Key | None
    for k in a.keys:
        partner, status = apart.get(k, (None, alone))
        vertices.append(Vertex(k, pairs[k][0], pairs[k][1]) if k in pairs else Vertex(k, None, status, partner))
    matched, back = {y for y, _ in pairs.values()}, {y: (x, status) for x, (y, status) in apart.items()}
    for k in b.keys if b else []:
        if k not in matched:
            partner, status = back.get(k, (None, alone_b))
            vertices.append(Vertex(None, k, status, partner))
    return vertices


def _build(a: Side, b: Side | None, pairs: dict[Key, tuple[Key, str]], apart: dict[Key, tuple[Key, str]]) -> Union:
    vertices = _vertices(a, b, pairs, apart)
    of_a = {v.a: i for i, v in enumerate(vertices) if v.a}
    of_b = {v.b: i for i, v in enumerate(vertices) if v.b}
    edges_a = [(of_a[u], of_a[v]) for u, v in a.edges]
    edges_b = [(of_b[u], of_b[v]) for u, v in b.edges] if b else []
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(vertices)))
    graph.add_edges_from(edges_a + edges_b)
    rows = [0] * len(vertices)
    generations = list(nx.topological_generations(graph))
    for row, generation in enumerate(generations):
        for v in generation:
            rows[v] = row
    light = [v.a in a.light or (b is not None and v.b in b.light) for v in vertices]
    # What is light stands next to its use, not at the top where a longest path would put it.
    for generation in reversed(generations):
        for v in generation:
            after = [rows[w] for w in graph.successors(v)]
            if after and light[v]:
                rows[v] = min(after) - 1
    rows = _dense(_outputs_last(rows, vertices))
    order = sorted(range(len(vertices)), key=lambda v: (rows[v], v))
    place = {v: i for i, v in enumerate(order)}
    ops = [a.ops[v.a] if v.a else b.ops[v.b] if b and v.b else "" for v in vertices]
    return Union(
        [vertices[v] for v in order],
        {"a": [(place[u], place[v]) for u, v in edges_a], "b": [(place[u], place[v]) for u, v in edges_b]},
        [rows[v] for v in order],
        [ops[v] for v in order],
        [light[v] for v in order],
    )


def _outputs_last(rows: list[int], vertices: list[Vertex]) -> list[int]:
    """Outputs of inner blocks stay beside their producers; only the outputs behind the last node share a last row."""
    last = max((r for r, v in zip(rows, vertices, strict=True) if v.kind != "o"), default=0)
    return [min(r, last + 1) if v.kind == "o" else r for r, v in zip(rows, vertices, strict=True)]


def _dense(rows: list[int]) -> list[int]:
    """The same order of rows without empty ones."""
    rank = {row: i for i, row in enumerate(sorted(set(rows)))}
    return [rank[row] for row in rows]
