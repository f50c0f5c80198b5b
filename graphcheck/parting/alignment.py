"""Which tensors of two graphs are the same, and where the graphs part first (Idea 3): read off the classes, without tolerance."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import onnx_ir as ir

from graphcheck.files.model import node_name, op_name
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move, Term


@dataclasses.dataclass(frozen=True)
class Place:
    """A tensor with the node that makes it."""

    tensor: str
    node: str
    op_type: str

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Where two graphs part: ``b`` is B's first tensor without partner on the way to an open output whose inputs all have
    partners, ``a`` A's first such tensor behind the same shared inputs; ``followers`` counts what differs only as a result."""

    a: Place | None
    b: Place | None
    followers: int

    def to_json(self) -> dict[str, Any]:
        """The ``divergence`` key of the JSON."""
        return {"a": self.a and self.a.to_json(), "b": self.b and self.b.to_json(), "followers": self.followers}


class Alignment:
    """The partners of two traced graphs whose classes share a store."""

    def __init__(self, a: ir.Model, b: ir.Model, pair: Pair) -> None:
        self.terms, self.models, self.traces = pair.terms, (a, b), (pair.a, pair.b)
        self.held = [self._held(trace) for trace in self.traces]
        self.roots = [{_root(self.terms, cls)[0] for cls in held} for held in self.held]

    def _held(self, trace: Trace) -> set[int]:
        return {self.terms.find(v.cls) for v in trace.values.values() if isinstance(v, Tensor)}

    def aligned(self, side: int, value: ir.Value) -> str | None:
        """ "same" or "layout" if the other graph has the tensor (in another layout); None if not; "same" for constants."""
        tensor = self.traces[side].values.get(value)
        if not isinstance(tensor, Tensor):
            return "same"
        cls = self.terms.find(tensor.cls)
        if cls in self.held[1 - side] or cls in self.terms.arrays:
            return "same"
        root, map_ = _root(self.terms, cls)
        return "layout" if map_ is not None and root in self.roots[1 - side] else None

    def shared(self, side: int, value: ir.Value) -> bool:
        """Whether the other graph has this very tensor, in this layout, computed from the inputs."""
        tensor = self.traces[side].values.get(value)
        return isinstance(tensor, Tensor) and self.terms.find(tensor.cls) in self.held[1 - side]

    def nodes(self) -> list[list[Any]]:
        """[index in A, index in B, "same" | "layout"] for the nodes that make the same tensor, in B's order."""
        makers: dict[Any, list[tuple[int, ir.Node]]] = defaultdict(list)
        for i, node in enumerate(self.models[0].graph):
            for key in self._keys(0, node):
                makers[key].append((i, node))
        rows, used = [], set()
        for j, node in enumerate(self.models[1].graph):
            for status, key in zip(("same", "layout"), self._keys(1, node), strict=False):
                free = [(i, n) for i, n in makers.get(key, ()) if i not in used]
                if free:
                    i = next((i for i, n in free if n.op_type == node.op_type), free[0][0])
                    used.add(i)
                    rows.append([i, j, status])
                    break
        return rows

    def _keys(self, side: int, node: ir.Node) -> list[Any]:
        for value in node.outputs:
            tensor = self.traces[side].values.get(value)
            if isinstance(tensor, Tensor):
                cls = self.terms.find(tensor.cls)
                return [("same", cls, tensor.shape), ("layout", _root(self.terms, cls)[0], self.terms.size(cls))]
        return []

    def divergence(self, open_outputs: list[tuple[int, int]]) -> Divergence | None:
        """The first divergence behind the outputs (positions in A and B) that have not met; None if there is none to name."""
        opened = [[pair[side] for pair in open_outputs] for side in (0, 1)]
        first = [self._first(side, opened[side]) for side in (0, 1)]
        if not first[1] and not first[0]:
            return None
        b = first[1][0] if first[1] else None
        a = None
        if first[0]:
            shared = self._inputs(1, b) if b is not None else set()
            a = next((n for n in first[0] if self._inputs(0, n) & shared), first[0][0] if b is None else None)
            a = a or first[0][0]
        apart = sum(len(self._apart(side, opened[side])) for side in (0, 1))
        return Divergence(_place(a), _place(b), max(apart - (a is not None) - (b is not None), 0))

    def _inputs(self, side: int, node: ir.Node) -> set[int]:
        found = set()
        for value in node.inputs:
            tensor = self.traces[side].values.get(value) if value is not None else None
            if isinstance(tensor, Tensor):
                found.add(_root(self.terms, self.terms.find(tensor.cls))[0])
        return found

    def _apart(self, side: int, open_outputs: list[int]) -> list[ir.Node]:
        """Nodes without partner on the way to the open outputs, in graph order."""
        graph = self.models[side].graph
        seen: set[ir.Node] = set()
        stack = [graph.outputs[i] for i in open_outputs]
        while stack:
            value = stack.pop()
            node = value.producer()
            if node is None or node in seen or self.aligned(side, value) is not None:
                continue
            seen.add(node)
            stack += [v for v in node.inputs if v is not None]
        return [node for node in graph if node in seen]

    def _first(self, side: int, open_outputs: list[int]) -> list[ir.Node]:
        """Those whose inputs all have partners."""
        apart = self._apart(side, open_outputs)
        ready = [n for n in apart if all(v is None or self.aligned(side, v) is not None for v in n.inputs)]
        return ready or apart[:1]


def _root(terms: Terms, cls: int) -> tuple[int, Map | None]:
    """The class behind a rearrangement of all its elements, and the map."""
    match terms.terms[cls]:
        case Term(Move(map_), (arg,), size) if terms.maps.inverse(map_) is not None:
            inner = terms.find(arg)
            if terms.size(inner) == size:
                return inner, map_
    return cls, None


def _place(node: ir.Node | None) -> Place | None:
    if node is None:
        return None
    tensor = next((v.name for v in node.outputs if v.name), "")
    return Place(str(tensor), node_name(node), op_name(node))


def layout_change(terms: Terms, a: Tensor, b: Tensor) -> str | None:
    """The Transpose and Reshape that would make ``b`` equal to ``a``; None if no layout change does."""
    root_a, map_a = _root(terms, terms.find(a.cls))
    root_b, map_b = _root(terms, terms.find(b.cls))
    if root_a != root_b:
        return None
    back = None if map_b is None else terms.maps.inverse(map_b)
    map_ = terms.maps.compose(back, map_a)  # from b's elements to a's
    if map_ is None or map_.identity:
        return None if a.shape == b.shape else f"Reshape to {list(a.shape)}"
    perm = _permutation(terms, map_, b.shape)
    if perm is None:
        return "a rearrangement of its elements that is not a Transpose of its axes"
    shape = [b.shape[p] for p in perm]
    text = f"Transpose(perm={list(perm)})"
    return text if list(a.shape) == shape else f"{text} and Reshape to {list(a.shape)}"


def _permutation(terms: Terms, map_: Map, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    import itertools

    if len(shape) > 6:
        return None
    return next((p for p in itertools.permutations(range(len(shape))) if terms.maps.transpose(shape, p) is map_), None)
