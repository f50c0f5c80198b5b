"""Where two graphs part first: the node of B, with its counterpart in A, behind which nothing fits any more.

A node is *ready* if its result has no partner in the other graph though all that it reads has one. The first ready node is
at fault, or only reads what is: a tensor that was moved wrongly still has a partner, in another layout or in another place.
So what A's counterpart reads is put in the place of what B's node reads. If that repairs B's node, the fault lies above, and
both graphs are compared node by node from there upwards, as far as they depart.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Exhausted, GraphcheckError, Oversized, Undecided
from graphcheck.files.model import node_name, op_name
from graphcheck.interface.inputs import leaves_of
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.maps import Map
from graphcheck.parting.alignment import Divergence, Place, root_of
from graphcheck.parting.bodies import Step, Steps
from graphcheck.parting.nearness import near
from graphcheck.parting.witness import unit_of

Near = Mapping[int, int]  # a class of B -> the class of A that it is, but for rounding
_Seen = tuple[int, Map | None]  # the class behind a rearrangement, and the map
_DEPTH = 64  # nodes that are looked at upwards


class Locator:
    """Both graphs with all that ran in their bodies; ``near`` joins tensors that only rounding separates."""

    def __init__(self, models: tuple[ir.Model, ir.Model], pair: Pair, near: Near | None = None) -> None:
        self.pair, self.terms, self.models, self.near = pair, pair.terms, models, near or {}
        traces = (pair.a, pair.b)
        self.sides = [Steps(model, trace, pair.algebra) for model, trace in zip(models, traces, strict=True)]
        self._digests: dict[ir.Value, bytes] = {}
        self._known: dict[int, int] = {}  # classes of B, renewed
        seen = [[self.seen(side, v) for v in self.sides[side].values] for side in (0, 1)]
        self.known = [{row for row in rows if row is not None} for rows in seen]
        self.roots = [{root for root, _ in known} for known in self.known]
        self.tensors = {v.name: v for v in self.sides[0].made}
        self.named = [self._named(side) for side in (0, 1)]
        self.alike = [Counter(self._key(side, step) for step in self.sides[side].order) for side in (0, 1)]

    # -- tensors -------------------------------------------------------------------------------------------------

    def tensor(self, side: int, value: ir.Value) -> Tensor | None:
        """A computed tensor."""
        found = self.sides[side].values.get(value)
        return found if isinstance(found, Tensor) else None

    def seen(self, side: int, value: ir.Value) -> _Seen | None:
        """The class behind a value's rearrangement, under the name that it has in A; None for a constant."""
        tensor = self.tensor(side, value)
        if tensor is None or self.terms.find(tensor.cls) in self.terms.arrays:
            return None
        return root_of(self.terms, self._renewed(tensor.cls) if side and self.near else self.terms.find(tensor.cls))

    def _renewed(self, cls: int) -> int:
        """The class of B once A's tensors stand in the place of those that only rounding separates from them."""
        known, find = self._known, self.terms.find
        for c in self.terms.order([cls], known.__contains__):
            if c not in known:
                term = self.terms.terms[c]
                args = [known[find(a)] for a in term.args]
                unlike = any(x != find(a) for x, a in zip(args, term.args, strict=True))
                known[c] = self.near.get(c) or (find(self.terms.make(term, args)) if unlike else c)
        return known[find(cls)]

    def content(self, side: int, value: ir.Value) -> Hashable:
        """What a value is: the same on both sides for the same numbers in the same order."""
        seen, found = self.seen(side, value), self.sides[side].values.get(value)
        if seen is None and isinstance(found, np.ndarray) and found.dtype != object:
            if value not in self._digests:
                self._digests[value] = hashlib.blake2b(np.ascontiguousarray(found).tobytes()).digest()
            return found.shape, self._digests[value]
        return seen

    def aligned(self, side: int, value: ir.Value) -> bool:
        """Whether the other graph has the tensor in some layout, or it is a constant."""
        seen = self.seen(side, value)
        return seen is None or seen[0] in self.roots[1 - side]

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _named(self, side: int) -> dict[tuple[str, ...], Step]:
        """Nodes by name and operator, where there is one alone."""
        keys = Counter((*s.name, s.node.op_type) for s in self.sides[side].order)
        return {k: s for s in self.sides[side].order if keys[k := (*s.name, s.node.op_type)] == 1}

    def namesake(self, step: Step) -> Step | None:
        """A's node of the name and operator of B's."""
        key = (*step.name, step.node.op_type)
        return self.named[0].get(key) if key in self.named[1] else None

    def _key(self, side: int, step: Step) -> tuple[Any, ...]:
        return step.node.op_type, tuple(self.content(side, v) for v in step.node.outputs)

    def _same(self, x: ir.Value, y: ir.Value) -> bool:
        return self.content(0, x) == self.content(1, y)

    def apart(self, side: int, outputs: Sequence[int]) -> list[Step]:
        """Nodes without partner on the way to the outputs, in order."""
        return self._above_all(side, [self.models[side].graph.outputs[i] for i in outputs])

    def _above_all(self, side: int, values: Sequence[ir.Value]) -> list[Step]:
        """Nodes without partner that the values are computed by, in order."""
        steps, found, stack = self.sides[side], set[Step](), list(values)
        while stack:
            value = steps.source(stack.pop())
            step = steps.made.get(value)
            if step is None or step in found or self.aligned(side, value):
                continue
            found.add(step)
            stack += step.reads()
        return [step for step in steps.order if step in found]

    def _ready(self, side: int, apart: list[Step]) -> list[Step]:
        """Those that read only what has partners."""
        return [s for s in apart if all(self.aligned(side, v) for v in s.reads())]

    # -- the first divergence ------------------------------------------------------------------------------------

    def _parting(self, open_outputs: Sequence[tuple[int, int]]) -> tuple[list[list[Step]], Step | None, Step | None]:
        """Each side's nodes without partner, and the first of A and of B."""
        apart = [self.apart(side, [row[side] for row in open_outputs]) for side in (0, 1)]
        ready = [self._ready(side, apart[side]) or apart[side][:1] for side in (0, 1)]
        return apart, *self._first(ready, open_outputs)

    def divergence(self, open_outputs: Sequence[tuple[int, int]]) -> Divergence | None:
        """The first divergence behind the outputs (positions in A and B) that have not met; None if there is none to name."""
        apart, a, b = self._parting(open_outputs)
        if a is None and b is None:
            return None
        followers = sum(map(len, apart)) - (a in apart[0]) - (b in apart[1])
        return self._told(a, b, max(followers, 0))

    def before(self, a: ir.Node | None, b: ir.Node | None) -> Divergence | None:
        """The first divergence on the way to the nodes at which the graphs fail, or these nodes; None if both fail alike."""
        at = [next((s for s in self.sides[side].order if n is not None and s.node is n), None) for side, n in ((0, a), (1, b))]
        if at[1] is None:
            same = None if at[0] is None else self.named[1].get((*at[0].name, at[0].node.op_type))
            return self._told(at[0], same, 0) if at[0] is not None else None
        apart = [self._above_all(1, at[1].reads()), []]
        ready = self._ready(1, apart[0])
        other = self.namesake(at[1])
        apart[1] = [] if other is None else self._above_all(0, other.reads())
        behind = self._ready(0, apart[1])
        if not ready and at[0] is not None and other is at[0]:
            return None
        found = self._first([behind, ready or [at[1]]], ())
        return self._told(*found, len(apart[0]))

    def _first(
        self, ready: list[list[Step]], open_outputs: Sequence[tuple[int, int]]
    ) -> tuple[Step | None, Step | None]:
        """(the node of A, the node of B)."""
        for step in ready[1]:
            partner = self._partner(step, ready[0])
            if partner is None or partner.node.op_type != step.node.op_type:
                continue
            found = self._above_reader(partner, step)
            if found is not None:
                return found
        if ready[1]:
            return self._partner(ready[1][0], ready[0]), ready[1][0]
        for i, j in open_outputs:
            x, y = (self.models[side].graph.outputs[at] for side, at in ((0, i), (1, j)))
            made = self.sides[0].made.get(x), self.sides[1].made.get(y)
            if self._same(x, y) and ready[0]:
                continue
            return self._above(x, y, _DEPTH) or (ready[0][0] if ready[0] else made[0], made[1])
        return (ready[0][0] if ready[0] else None), None

    def settled(self, open_outputs: Sequence[tuple[int, int]]) -> bool:
        """Whether the first divergence is all that is different on the way to the open outputs, as the nodes are written."""
        apart, a, b = self._parting(open_outputs)
        return all(step is b or self._as_written(step, a, b) for step in apart[1])

    def _as_written(self, step: Step, a: Step | None, b: Step | None) -> bool:
        """Whether a node of B has a namesake in A with the same attributes that reads the same, but for what ``b`` gives."""
        other = self.namesake(step)
        if other is None or len(other.node.inputs) != len(step.node.inputs):
            return False
        if not _same_attributes(other.node, step.node):
            return False
        return all(self._read_alike(x, y, a, b) for x, y in zip(other.node.inputs, step.node.inputs, strict=True))

    def _read_alike(self, x: ir.Value | None, y: ir.Value | None, a: Step | None, b: Step | None) -> bool:
        if x is None or y is None:
            return x is y
        arrays = [self.sides[side].values.get(v) for side, v in ((0, x), (1, y))]
        if isinstance(arrays[0], np.ndarray) and isinstance(arrays[1], np.ndarray):
            return np.array_equal(arrays[0], arrays[1])
        x, y = self.sides[0].source(x), self.sides[1].source(y)
        made = self.sides[0].made.get(x), self.sides[1].made.get(y)
        if made[0] is None or made[1] is None:
            return made == (None, None) and x.name == y.name
        if made[1] is b or made[0] is a:
            return True
        return self.namesake(made[1]) is made[0] and x.index() == y.index()

    def _partner(self, step: Step, ready: list[Step]) -> Step | None:
        """A's node that stands where B's stands: of its name, or that reads most of the same."""
        namesake = self.namesake(step)
        if namesake is not None:
            return namesake
        reads = {seen[0] for v in step.reads() if (seen := self.seen(1, v)) is not None}

        def rank(other: Step) -> tuple[bool, int]:
            common = reads & {seen[0] for v in other.reads() if (seen := self.seen(0, v)) is not None}
            return bool(common) and other.node.op_type == step.node.op_type, len(common)

        return max(ready, key=rank, default=None)

    def _above_reader(self, a: Step, b: Step) -> tuple[Step | None, Step] | None:
        """The node above B's reader that gives it what A's does not read, if that is what is wrong with the reader."""
        rows = list(self._unlike(a, b))
        found = [f for row in rows if (f := self._above(*row, _DEPTH)) is not None]
        if not found or not self._repairs(a, b, rows):
            return None
        return min(found, key=lambda pair: self.sides[1].order.index(pair[1]))

    def _unlike(self, a: Step, b: Step) -> Iterator[tuple[ir.Value, ir.Value]]:
        """What two nodes read at the same places and is not the same, nor only in another order."""
        rows = [(x, y) for x, y in zip(a.node.inputs, b.node.inputs, strict=False) if x is not None and y is not None]
        rows += list(zip(a.results, b.results, strict=False))
        seen = [(self.content(0, x), self.content(1, y)) for x, y in rows]
        if Counter(x for x, _ in seen) != Counter(y for _, y in seen):
            yield from (row for row, (x, y) in zip(rows, seen, strict=True) if x != y)

    def _above(self, x: ir.Value, y: ir.Value, depth: int) -> tuple[Step | None, Step] | None:
        """The topmost node from which on y is not x; None if B's tensor is made as A makes it."""
        y = self.sides[1].source(y)
        step = self.sides[1].made.get(y)
        if step is None or not depth or step.node.op_type == "Constant" or self._clean(step):
            return None
        partner = self.namesake(step) or self.sides[0].made.get(self.sides[0].source(x))
        if partner is not None and partner.node.op_type == step.node.op_type:
            rows = self._unlike(partner, step)
        else:
            rows = iter([(x, v) for v in step.reads() if self.seen(1, v) not in (None, *self.known[0])])
        return next((f for row in rows if (f := self._above(*row, depth - 1)) is not None), (partner, step))

    def _clean(self, step: Step) -> bool:
        """Whether a node of B gives what its namesake in A gives, or, without one, what some node of A like it does."""
        namesake = self.namesake(step)
        called = [(self.tensors.get(y.name), y) for y in step.node.outputs]
        rows = [(x, y) for x, y in called if x and self.sides[0].made[x].node.op_type == step.node.op_type]
        if namesake is not None or rows:
            rows += [] if namesake is None else zip(namesake.node.outputs, step.node.outputs, strict=False)
            return all(self._same(x, y) for x, y in rows)
        key = self._key(1, step)
        return self.alike[0][key] >= self.alike[1][key]

    def _repairs(self, a: Step, b: Step, rows: Sequence[tuple[ir.Value, ir.Value]]) -> bool:
        """Whether B's node gives what A's does once it reads A's tensors in the places of its own."""
        if b.results:
            return True  # what a body gives is not read, but handed on
        others = {}
        for x, y in rows:
            other, mine = (self.sides[side].values.get(v) for side, v in ((0, x), (1, y)))
            tensors = isinstance(mine, Tensor) and isinstance(other, Tensor) and mine.shape == other.shape
            if not tensors and not (isinstance(mine, np.ndarray) and isinstance(other, np.ndarray)):
                return False
            others[y] = other
        steps, opsets = self.sides[1], self.models[1].opset_imports
        env = {v: steps.values[v] for v in b.node.inputs if v is not None and v in steps.values}
        try:
            results = Interpreter(self.models[1], self.pair.algebra).evaluate(b.node, env | others, {}, opsets)
        except (Exhausted, Oversized):
            raise
        except (Undecided, GraphcheckError, KeyError):
            return False
        made = [None if v is None else self.tensor(0, v) for v in a.node.outputs]
        return any(
            isinstance(r, Tensor) and m is not None and self.terms.find(r.cls) == self.terms.find(m.cls)
            for r, m in zip(results, made, strict=False)
        )

    def _told(self, a: Step | None, b: Step | None, followers: int) -> Divergence:
        """The divergence at these nodes, with the tensors of theirs that differ."""
        sides = [[] if step is None else [v for v in step.node.outputs if v.name] for step in (a, b)]
        by_name = {v.name: v for v in sides[0]}
        rows = [(by_name[y.name], y) for y in sides[1] if y.name in by_name]
        rows += list(zip(*sides, strict=False))
        chosen = next(((x, y) for x, y in rows if not self._same(x, y)), (None, None))
        places = [self._place(side, step, chosen[side]) for side, step in ((0, a), (1, b))]
        return Divergence(places[0], places[1], followers)

    def _place(self, side: int, step: Step | None, tensor: ir.Value | None) -> Place | None:
        if step is None:
            return None
        named = [v for v in step.node.outputs if v.name]
        tensor = tensor or next((v for v in named if not self.aligned(side, v)), next(iter(named), None))
        name = "" if tensor is None else str(tensor.name)
        return Place(name, node_name(step.node), op_name(step.node), tuple(map(node_name, step.around)))


def _same_attributes(a: ir.Node, b: ir.Node) -> bool:
    """Whether two nodes have the same attributes; bodies are looked at node by node elsewhere."""
    rows = [{k: v.value for k, v in n.attributes.items() if v.type != ir.AttributeType.GRAPH} for n in (a, b)]
    plain = all(not isinstance(v, ir.TensorProtocol) for row in rows for v in row.values())
    return plain and rows[0] == rows[1]


def located(
    models: tuple[ir.Model, ir.Model],
    pair: Pair,
    open_outputs: Sequence[tuple[int, int]],
    inputs: Mapping[str, np.ndarray],
    seed: int,
    tick: Callable[[], None],
) -> Divergence | None:
    """The first divergence that is more than rounding at ``inputs`` (by pair key); None if there is none, or one alone."""
    terms = pair.terms
    leaves = leaves_of(inputs)
    outputs = [(pair.a.outputs[i], pair.b.outputs[j]) for i, j in open_outputs]
    roots = [(x.cls, y.cls) for x, y in outputs if isinstance(x, Tensor) and isinstance(y, Tensor)]
    exact = Locator(models, pair)
    if exact.settled(open_outputs):
        return None
    tensors = tuple(set(exact.roots[side]) for side in (0, 1))
    found = near(terms, roots, (tensors[0], tensors[1]), leaves, unit_of(pair.a, pair.b), seed, tick)
    if not found:
        return None
    locator = Locator(models, pair, found)
    return locator.divergence(open_outputs) if locator.apart(1, [j for _, j in open_outputs]) else None


__all__ = ["Locator", "Near", "located"]
