"""Why a proof holds, for people: which tensors of A and B are one, in order, each with the reason that the store kept.

Two tensors are in step where their classes met, up to the order of their elements. A step is such a pair, what lies
between it and the pairs that it was made from (``given``), and one reason; the first that holds is told:

congruence  the same operator with the same attributes on the same operands
window      equal fingerprints on free tensors (:mod:`graphcheck.kernel.proof.prover`)
rounding    constants put in each other's place within their roundings (:mod:`graphcheck.kernel.proof.rounding`)
movement    operators that only move elements, the same map in the end
rules       numbered rules of :mod:`graphcheck.kernel.terms.rules`, all that were applied between the given pairs and this one
verbs       different operators that mean the same expression of verbs
input       the same input; constant: equal constants
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.files.model import node_name, op_name
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.ops import movement
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum, Verb
from graphcheck.kernel.terms.why import Rounded, Why, Window, distinct
from graphcheck.verdicts.stages import Stage, Stages

Values = tuple[ir.Value, ir.Value]  # a tensor of A and one of B
_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal"})
_VERBS: dict[type[Verb], str] = {
    Contract: "contraction",
    Ew: "elementwise expression",
    Sum: "sum",
    Rows: "function of rows",
    Opaque: "unknown function",
    Move: "selection of elements",
    Leaf: "tensor",
    Const: "constant",
}


@dataclasses.dataclass(frozen=True)
class Region:
    """What makes a tensor: the nodes back to the tensors that are in step (``given``), and the constants that they read."""

    nodes: tuple[ir.Node, ...]
    given: tuple[ir.Value, ...]
    constants: tuple[ir.Value, ...]


class Side:
    """One graph: which of its tensors make something anew, and the region behind each."""

    def __init__(self, trace: Trace, stages: Stages) -> None:
        self.trace = trace
        self.makers: dict[int, list[ir.Value]] = {}  # class -> tensors that are it, but for those that only move another
        self.root_of: dict[ir.Value, int] = {}
        for value, held in trace.values.items():
            root = stages.root(held.cls) if isinstance(held, Tensor) else None
            if isinstance(held, Tensor) and root is not None and not self._moved(value, held, stages):
                self.makers.setdefault(root, []).append(value)
                self.root_of[value] = root

    def _moved(self, value: ir.Value, held: Tensor, stages: Stages) -> bool:
        """Whether a node gives the elements of its operand, by their keys alone."""
        node = value.producer()
        operands = [self.trace.values.get(v) for v in _operands(node)] if node is not None else []
        root = stages.traced(held.cls)
        return any(isinstance(x, Tensor) and stages.traced(x.cls) == root for x in operands)

    def region(self, value: ir.Value, other: Side) -> Region:
        """Back from a tensor to those that the other side makes too."""
        nodes: dict[ir.Node, None] = {}
        given: dict[ir.Value, None] = {}
        constants: dict[ir.Value, None] = {}
        stack = [value.producer()]
        while stack:
            node = stack.pop()
            if node is None or node in nodes:
                continue
            nodes[node] = None
            for operand in _operands(node):
                if not isinstance(self.trace.values.get(operand), Tensor):
                    constants[operand] = None
                elif self.root_of.get(operand) in other.makers:
                    given[operand] = None
                else:
                    stack.append(operand.producer())
        return Region(tuple(nodes)[::-1], tuple(given), tuple(constants))


class Steps:
    """The steps of a proof; each pair of outputs adds those that no earlier one has."""

    def __init__(self, pair: Pair, stages: Stages) -> None:
        self.pair, self.stages = pair, stages
        self.sides = (Side(pair.a, stages), Side(pair.b, stages))
        self.numbers: dict[Values, int] = {}

    def chain(self, a: ir.Value, b: ir.Value) -> list[dict[str, Any]]:
        """The steps to a pair of outputs, those before it first."""
        found: list[dict[str, Any]] = []
        stack: list[tuple[Values, bool]] = [((a, b), False)]
        begun: dict[Values, tuple[tuple[Region, Region], list[Values]]] = {}
        while stack:
            pair, done = stack.pop()
            if pair in self.numbers or (pair in begun) != done:
                continue
            if done:
                regions, given = begun[pair]
                self.numbers[pair] = len(self.numbers) + 1
                found.append(self._step(pair, regions, given))
                continue
            one, two = (self._region(i, pair) for i in (0, 1))
            given = [(x, self._partner(0, x)) for x in one.given] + [(self._partner(1, y), y) for y in two.given]
            begun[pair] = (one, two), list(dict.fromkeys(given))
            stack.append((pair, True))
            stack += [(before, False) for before in reversed(begun[pair][1])]
        return found

    def _region(self, side: int, pair: Values) -> Region:
        here, other = pair[side], self.sides[1 - side]
        if self.sides[side].root_of.get(here) in other.makers and self._partner(side, here) is not pair[1 - side]:
            return Region((), (here,), ())  # in step with another tensor: there is only movement between the two
        return self.sides[side].region(here, other)

    def _partner(self, side: int, value: ir.Value) -> ir.Value:
        """The tensor of the other graph that is in step: the same one in the order of those that make the class."""
        root = self.sides[side].root_of[value]
        makers = self.sides[1 - side].makers[root]
        return makers[min(self.sides[side].makers[root].index(value), len(makers) - 1)]

    def _step(self, pair: Values, regions: tuple[Region, Region], given: list[Values]) -> dict[str, Any]:
        return {
            "number": self.numbers[pair],
            "a": _place(pair[0]),
            "b": _place(pair[1]),
            "why": self._why(pair, regions, given),
            "given": sorted(self.numbers[before] for before in given if before in self.numbers),
            "nodes": {side: [node_name(n) for n in r.nodes] for side, r in zip("ab", regions, strict=True)},
        }

    def _why(self, pair: Values, regions: tuple[Region, Region], given: list[Values]) -> dict[str, Any]:
        x, y = (side.trace.values[value] for side, value in zip(self.sides, pair, strict=True))
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            return _reason("constant", "equal constants")
        nodes = (pair[0].producer(), pair[1].producer())
        if nodes == (None, None):
            return _reason("input", "the same input")
        known = [h.cls for i in (0, 1) for h in self._held(i, [p[i] for p in given])]
        operands = self._operands_met(pair, given)
        if operands is not None:
            whys = [w for operand in operands for w in self.stages.whys(*operand, known)]
            if not any(isinstance(w, Window | Rounded) for w in whys):
                return _reason("congruence", "the same operator on the same operands")
        else:
            whys = self.stages.whys(x.cls, y.cls, known)
        order = "" if self.stages.same(x.cls, y.cls) else ", in another order of the elements"
        sides = zip((self.pair.a, self.pair.b), regions, strict=True)
        applied = [rule for trace, region in sides for node in region.nodes for rule in trace.rules.get(node, ())]
        rules = distinct([*applied, *(rule for w in whys if not isinstance(w, Rounded) for rule in w.rules)])
        if all(_moves(n) for region in regions for n in region.nodes) and not (whys or rules):
            return _reason("movement", f"the same elements, movement in one normal form{order}")
        return _told(whys, rules, _VERBS[type(self.stages.verb(x.cls))], order)

    def _held(self, side: int, values: Sequence[ir.Value]) -> Iterator[Tensor]:
        for value in values:
            held = self.sides[side].trace.values[value]
            if isinstance(held, Tensor):
                yield held

    def _operands_met(self, pair: Values, given: list[Values]) -> list[tuple[int, int]] | None:
        """The operands of the same operator on the same operands that are no step themselves, as classes; else None."""
        one, two = (value.producer() for value in pair)
        if one is None or two is None or not _same_operator(one, two, pair) or len(one.inputs) != len(two.inputs):
            return None
        ways = [one.inputs, one.inputs[::-1]] if one.op_type in _COMMUTATIVE else [one.inputs]
        known = {self._classes(self.pair.a.values[x], self.pair.b.values[y]) for x, y in given}
        for inputs in ways:
            operands = [
                (None if x is None else self.pair.a.values.get(x), None if y is None else self.pair.b.values.get(y))
                for x, y in zip(inputs, two.inputs, strict=True)
            ]
            if all(self._met(*operand) for operand in operands):
                met = [self._classes(x, y) for x, y in operands]
                return [pair for pair in met if pair is not None and pair not in known]
        return None

    def _classes(self, x: Value, y: Value) -> tuple[int, int] | None:
        return (x.cls, y.cls) if isinstance(x, Tensor) and isinstance(y, Tensor) else None

    def _met(self, x: Value, y: Value) -> bool:
        """Whether two operands are the same: tensors of one class, equal constants, or none."""
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x.shape == y.shape and self.stages.same(x.cls, y.cls)
        return self._equal(x, y) if isinstance(x, np.ndarray) and isinstance(y, np.ndarray) else x is y is None

    def _equal(self, x: np.ndarray, y: np.ndarray) -> bool:
        if x is y:
            return True
        if x.shape != y.shape or x.dtype != y.dtype:
            return False
        contents = self.pair.terms.contents
        return np.array_equal(x, y) if x.dtype == object else contents.of(x.reshape(-1)) == contents.of(y.reshape(-1))


Met = tuple[Pair, Sequence[Stage]]  # two graphs in a store where their outputs are one, or came to be in later ones


def steps(
    models: tuple[ir.Model, ir.Model], positions: Sequence[tuple[int, int]], proofs: Iterable[Met]
) -> list[dict[str, Any]]:
    """The ``proof.steps`` of the JSON: for each pair of outputs (positions in A and B) the steps that join it.

    The proof at other sizes is told where it goes another way.
    """
    outputs = [(models[0].graph.outputs[i], models[1].graph.outputs[j]) for i, j in positions]
    ways: list[Any] = []
    told: list[dict[str, Any]] = []
    for pair, stages in proofs:
        found = Steps(pair, Stages(pair.terms, stages))
        chains = [found.chain(a, b) for a, b in outputs]
        way = [(s["a"], s["b"], _without_sizes(s["why"])) for chain in chains for s in chain]
        if way in ways:
            continue
        ways.append(way)
        shapes = {name: list(shape) for name, shape in pair.shapes.items()}
        for (a, b), chain in zip(outputs, chains, strict=True):
            rules = {rule: rule_text(rule) for step in chain for rule in step["why"]["rules"]}
            told.append({"a": a.name, "b": b.name, "shapes": shapes, "steps": chain, "rules": rules})
    return told


def _without_sizes(why: dict[str, Any]) -> Any:
    return why["kind"], why["rules"], [window["tier"] for window in why.get("windows", ())]


def rule_text(rule: str) -> str:
    """What a rule says: the line with its number in the docstring of its file; "" if it has none."""
    file, number = rule.split()
    doc = importlib.import_module(f"graphcheck.kernel.terms.rules.{file}").__doc__ or ""
    line = re.search(rf"^{number}\. (.*)$", doc, re.M)
    return line[1].split(" (:mod:")[0] if line is not None else ""


def _told(whys: Sequence[Why], rules: tuple[str, ...], verb: str, order: str) -> dict[str, Any]:
    windows = list(dict.fromkeys(w for w in whys if isinstance(w, Window)))
    rounded = list(dict.fromkeys(pair for w in whys if isinstance(w, Rounded) for pair in w.constants))
    if windows:
        rows = [
            {"tier": w.tier, "rows": w.rows or None, "primes": w.primes, "error_probability": 2.0**w.log2_error}
            for w in windows
        ]
        text = " and ".join(_window_text(w) for w in windows) + order
        return _reason("window", text, rules, windows=rows)
    if rounded:
        names = " and ".join(f"{a or 'an expression'} of A with {b or 'an expression'} of B" for a, b in rounded)
        text = f"the same once constants change places within their roundings: {names}{order}"
        return _reason("rounding", text, rules, constants=[list(pair) for pair in rounded])
    if rules:
        return _reason("rules", f"the same {verb} by rules {', '.join(rules)}{order}", rules)
    return _reason("verbs", f"the same {verb}, once both are told in verbs{order}")


def _window_text(window: Window) -> str:
    modulo = f"evaluated modulo {window.primes} primes"
    if window.rows:
        return f"a window of {window.rows} rows, one of which stands for all, {modulo}"
    return f"{modulo} from the inputs" if window.tier == "inputs" else f"a window on free tensors, {modulo}"


def _reason(kind: str, text: str, rules: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    return {"kind": kind, "text": text, "rules": list(rules), **more}


def _place(value: ir.Value) -> dict[str, Any]:
    node = value.producer()
    return {"tensor": value.name, "node": node and node_name(node), "op_type": node and op_name(node)}


def _moves(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in movement.OPS


def _same_operator(a: ir.Node, b: ir.Node, outputs: Values) -> bool:
    """Whether two nodes are one operator with the same attributes (graphs aside), seen at the same output."""
    places = [list(node.outputs).index(value) for node, value in zip((a, b), outputs, strict=True)]
    if a.op_identifier() != b.op_identifier() or places[0] != places[1] or a.attributes.keys() != b.attributes.keys():
        return False
    pairs = [(a.attributes[name], b.attributes[name]) for name in a.attributes]
    plain = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS, ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)
    return all(
        x.type == y.type and x.type not in plain and not x.is_ref() and not y.is_ref() and x.value == y.value
        for x, y in pairs
    )


def _operands(node: ir.Node) -> list[ir.Value]:
    """What a node reads, in its subgraphs too."""
    found = [v for v in node.inputs if v is not None]
    for attribute in node.attributes.values():
        graphs = (
            [attribute.value]
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref()
            else list(attribute.value)
            if attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref()
            else []
        )
        for graph in graphs:
            inside = {*graph.inputs, *graph.initializers.values(), *(v for n in graph for v in n.outputs)}
            found += [v for n in graph for v in _operands(n) if v not in inside]
            found += [v for v in graph.outputs if v not in inside]
    return list(dict.fromkeys(found))
