"""Which tensors of two graphs are the same, and where the graphs part first (Idea 3): read off the classes, without tolerance."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import onnx_ir as ir

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
    inside: tuple[str, ...] = ()  # the nodes whose bodies it is in, outermost first

    def to_json(self) -> dict[str, Any]:
        """Plain data; ``inside`` only for a node in a body."""
        row = dataclasses.asdict(self)
        return {k: v for k, v in row.items() if k != "inside" or v}


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
        self.pair, self.terms, self.models, self.traces = pair, pair.terms, (a, b), (pair.a, pair.b)
        self.held = [self._held(trace) for trace in self.traces]
        self.roots = [{root_of(self.terms, cls)[0] for cls in held} for held in self.held]

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
        root, map_ = root_of(self.terms, cls)
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
                return [("same", cls, tensor.shape), ("layout", root_of(self.terms, cls)[0], self.terms.size(cls))]
        return []


def root_of(terms: Terms, cls: int) -> tuple[int, Map | None]:
    """The class behind a rearrangement of all its elements, and the map."""
    match terms.terms[cls]:
        case Term(Move(map_), (arg,), size) if terms.maps.inverse(map_) is not None:
            inner = terms.find(arg)
            if terms.size(inner) == size:
                return inner, map_
    return cls, None


def layout_change(terms: Terms, a: Tensor, b: Tensor) -> str | None:
    """The Transpose and Reshape that would make ``b`` equal to ``a``; None if no layout change does."""
    root_a, map_a = root_of(terms, terms.find(a.cls))
    root_b, map_b = root_of(terms, terms.find(b.cls))
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
