"""Two graphs that are the same at every size of all free dims at once: by names, and by segments between tensors of one name.

Where names do not meet, a tensor of each graph that the proof at one size has in one class is looked at as a function of the
nearest tensors that both graphs have by name, which are taken as free. If both functions work at each place of those tensors'
free axes by itself, what is proved of them at one size holds at all. docs/explanation.md has the theorem.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Undecided
from graphcheck.files.model import node_name
from graphcheck.kernel.every import Symbol, Typed
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.ops import rows
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.kernel.proof.names import Namer, Names, Size, Term
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Prover, Tier
from graphcheck.kernel.terms.rules import AFFINE
from graphcheck.kernel.terms.store import Terms

# Operators of a segment: those whose rule looks at the size of no axis but the one that it types, or at whether it is 1.
_RULES = (
    rows.clipped, rows.elementwise, rows.fused_product, rows.gathered, rows.gemm, rows.identity, rows.joined, rows.multiplied,
    rows.reduced, rows.reshaped, rows.sliced, rows.softmax, rows.split, rows.squeezed, rows.transposed, rows.unsqueezed,
)  # fmt: skip
_NORMS = "LayerNormalization RMSNormalization SimplifiedLayerNormalization SkipLayerNormalization"
_NAMED = frozenset((*_NORMS.split(" "), "SkipSimplifiedLayerNormalization"))
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43)  # sizes of the free axes of a segment
_NODES, _SEGMENTS, _ROUNDS, _CANDIDATES = 64, 256, 4, 3
_FAILED, _BUDGET = 24, 5e8  # segments that may fail, operations of one

Cone = tuple[list[ir.Node], dict[ir.Value, int]]  # nodes, and the tensors before them with their names


@dataclasses.dataclass(frozen=True)
class Everywhere:
    """Whether the compared outputs are the same at every size of all free dims; if not, the first node of B from which on
    they are not shown to be. ``tiers`` are those of the segments' proofs."""

    holds: bool
    node: str
    tiers: Sequence[Tier] = ()


class _Cone(Exception):
    """What stands before a tensor is no segment."""


class Segments:
    """The names of both graphs of a pair, where one proof at one size has been done."""

    def __init__(self, pair: Pair, prover: Prover, places: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        self.pair, self.prover = pair, prover
        sizes = {name: pair.shapes[there[0][0]][there[0][1]] for name, there in places.items()}
        self.names = Names(pair.terms.contents, sizes)
        self.symbols = {at: Term("symbol", (name,)) for name, there in places.items() for at in there}
        self.tiers: list[Tier] = []
        self.tried = self.failed = 0
        self.classes: dict[Any, list[ir.Value]] = {}  # tensors of A
        self.held: tuple[set[int], set[int]] = (set(), set())  # the names of each graph
        self.first = ""  # the first node of B whose tensor has a class that A has, and another name
        met = (pair.a, self._met_a), (pair.b, self._met_b)
        self.sides = [Namer(m, pair.algebra, self.names, *row) for m, row in zip(pair.models, met, strict=True)]

    def everywhere(self, outputs: Sequence[tuple[int, int]]) -> Everywhere:
        """Whether the outputs at these places in A and B have the same names."""
        given = {key: self._input(key, shape) for key, shape in self.pair.shapes.items()}
        try:
            a = self.sides[0].named(given)
            b = self.sides[1].named({self.pair.partners[key]: name for key, name in given.items()})
        except (Undecided, RecursionError, MemoryError) as error:
            return Everywhere(False, getattr(error, "node", None) or "")
        held = all(a[i] == b[j] for i, j in outputs)
        return Everywhere(held, "" if held else self.first, self.tiers)

    def _input(self, key: str, shape: tuple[int, ...]) -> int:
        name = self.names.name("input", key)
        dtype = next(v.dtype for v in self.pair.models[0].graph.inputs if v.name == key)
        assert dtype is not None
        dims = tuple([self.symbols.get((key, axis), size) for axis, size in enumerate(shape)])
        self.names.dims[name], self.names.types[name] = dims, int(dtype)
        for held in self.held:
            held.add(name)
        return name

    def _met_a(self, value: ir.Value, name: int) -> int:
        self.held[0].add(name)
        traced = self.pair.a.values.get(value)
        if isinstance(traced, Tensor):
            self.classes.setdefault(self._class(traced), []).append(value)
        return name

    def _met_b(self, value: ir.Value, name: int) -> int:
        traced = self.pair.b.values.get(value)
        if name not in self.held[0] and isinstance(traced, Tensor):
            others = self.classes.get(self._class(traced), [])
            for other in others[:_CANDIDATES]:
                if self.failed < _FAILED and self._same(other, value, name):
                    found: Any = self.sides[0].env[other]
                    name = found
                    break
                self.failed += 1
            else:
                if others:
                    self.first = self.first or node_name(value.producer())  # type: ignore[arg-type]
        self.held[1].add(name)
        return name

    def _class(self, traced: Tensor) -> tuple[int, tuple[int, ...], str]:
        return self.pair.terms.find(traced.cls), traced.shape, traced.dtype.name

    # -- segments ------------------------------------------------------------------------------------------------

    def _same(self, x: ir.Value, y: ir.Value, name: int) -> bool:
        """Whether a segment shows a tensor of A, and one of B that is just being named, to be the same at every size.

        Where it does not, what it is cut at is looked into.
        """
        opened: set[int] = set()
        for _ in range(_ROUNDS):
            self.tried += 1
            if self.tried > _SEGMENTS:
                return False
            try:
                cones = self._cone(0, x, None, opened), self._cone(1, y, name, opened)
                if self._proved(cones, (x, y)):
                    return True
            except (_Cone, Undecided, RecursionError, MemoryError):
                return False
            cuts = [item for _, cut in cones for item in cut.items()]
            more = {name for value, name in cuts if _local(value.producer())}
            if not more:
                return False
            opened |= more
        return False

    def _cone(self, side: int, root: ir.Value, name: int | None, opened: set[int]) -> Cone:
        """The nodes before a tensor of one side, in order, and the tensors that both sides have by name from which they start."""
        env: Any = self.sides[side].env
        nodes: dict[ir.Node, None] = {}
        cut: dict[ir.Value, int] = {}
        stack: list[tuple[ir.Value, bool]] = [(root, False)]
        while stack:
            value, done = stack.pop()
            node = value.producer()
            if done and node is not None:
                nodes[node] = None
                continue
            number = name if value is root and name is not None else env.get(value)
            if number in self.names.arrays or value in cut or node in nodes:
                continue
            inside = node is not None and node.graph is self.pair.models[side].graph and _local(node)
            if value is not root and number in self.held[1 - side] and not (inside and number in opened):
                cut[value] = number
            elif not inside or len(nodes) + len(stack) > _NODES:
                raise _Cone
            else:
                stack += [(value, True), *[(v, False) for v in _inputs([node])]]
        return list(nodes), cut

    def _proved(self, cones: Sequence[Cone], ends: Sequence[ir.Value]) -> bool:
        """Whether both segments are the same function of what they start from, at every size of its free axes."""
        there = {name: value for _, cut in reversed(cones) for value, name in cut.items()}
        if not all(name in self.names.dims for name in there):
            raise _Cone
        labels = _labels({name: self.names.dims[name] for name in there})
        known = [n for name in there for n in self.names.dims[name]]
        known += [n for x in self._constants(cones) for n in x.shape]
        fit = [p for p in _PRIMES if all(n % p for n in known if isinstance(n, int))]
        found = list(dict.fromkeys(label for row in labels.values() for label in row if label is not None))
        if len(found) > len(fit):
            raise _Cone
        sizes = dict(zip(found, fit, strict=False))
        algebra = Algebra(Terms(AFFINE[""], contents=self.pair.terms.contents))
        leaves: dict[int, Tensor] = {}
        for name, value in there.items():
            traced: Any = self.pair.a.values.get(value, self.pair.b.values.get(value))
            shape: Any = tuple(
                [sizes.get(label, n) for n, label in zip(self.names.dims[name], labels[name], strict=True)]
            )
            leaves[name] = Tensor(algebra.terms.leaf(("input", f"name {name}"), math.prod(shape)), shape, traced.dtype)
        symbols = [Symbol(f"axis {at}", size, {}) for at, size in enumerate(sizes.values())]
        made = []
        for model, side, (nodes, cut) in zip(self.pair.models, self.sides, cones, strict=True):
            env: Any = side.env
            given: dict[ir.Value, Value] = {v: leaves[name] for v, name in cut.items()}
            given |= {v: self.names.arrays[env[v]] for v in _inputs(nodes) if env.get(v) in self.names.arrays}
            at = [{v: labels[name].index(label) for v, name in cut.items() if label in labels[name]} for label in sizes]
            kinds = [{v: rows.Rows(axis) for v, axis in row.items()} for row in at]
            typed = Typed(model, algebra, symbols)
            made.append(typed.part(nodes, given, kinds))
            if not all(_at_each_place(typed, value) for value in made[-1].values()):
                raise _Cone
        x, y = (env.get(end) for env, end in zip(made, ends, strict=True))
        if not isinstance(x, Tensor) or not isinstance(y, Tensor) or (x.shape, x.dtype) != (y.shape, y.dtype):
            raise _Cone
        a, b = (Trace(env, [], [], {}) for env in made)
        counts, of = Pair(algebra, a, b, {}, {}).row_counts(), self.prover
        allowed: dict[str, Any] = {"target": of.target / _SEGMENTS, "deadline": of.deadline, "budget": _BUDGET}
        prover = Prover(algebra.terms, [x.cls], [y.cls], counts, seed=of.seed % 2**32, **allowed)
        if not prover.prove():
            return False
        self.tiers += [tier for tier in prover.tiers if tier.merges]
        self.pair.algebra.assumptions |= algebra.assumptions
        return True

    def _constants(self, cones: Sequence[Cone]) -> Iterator[np.ndarray]:
        for side, (nodes, _) in zip(self.sides, cones, strict=True):
            names: Any = [side.env.get(v) for v in _inputs(nodes)]
            yield from (self.names.arrays[name] for name in names if name in self.names.arrays)


def _labels(dims: Mapping[int, Sequence[Size]]) -> dict[int, list[Any]]:
    """A label for each axis that is no number, the same one only for axes of the same size: that, and where it is twice in a
    tensor its place from the back too."""
    twice = any(
        len({*row}) < len(row) for sizes in dims.values() for row in [[n for n in sizes if isinstance(n, Term)]]
    )
    return {
        name: [(n, len(sizes) - axis if twice else 0) if isinstance(n, Term) else None for axis, n in enumerate(sizes)]
        for name, sizes in dims.items()
    }


def _at_each_place(typed: Typed, value: Value) -> bool:
    """Whether a tensor is for each free axis either one row for each place, or without that axis."""
    if not isinstance(value, Tensor | np.ndarray):
        return value is None
    for sizing in typed.sizings:
        prime, kind = sizing.symbol.size, sizing.of(value)
        at = [axis for axis, n in enumerate(value.shape) if n % prime == 0]
        fixed = isinstance(kind, rows.Fixed) and not at
        if not fixed and not (isinstance(kind, rows.Rows) and at == [kind.axis] and (kind.outer, kind.inner) == (1, 1)):
            return False
        if at and value.shape[at[0]] != prime:
            return False
    return True


def _inputs(nodes: Sequence[ir.Node | None]) -> list[ir.Value]:
    return [value for node in nodes if node is not None for value in node.inputs if value is not None]


def _local(node: ir.Node | None) -> bool:
    """Whether an operator may stand in a segment."""
    if node is None:
        return False
    key = ("" if node.domain == "ai.onnx" else node.domain, node.op_type)
    return getattr(TAUGHT.get(key), "rows", None) in _RULES or (key in TAUGHT and node.op_type in _NAMED)
