"""The nodes of a graph together with those in the bodies of If, Loop, Scan and functions, as they ran the first time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx_ir as ir

from graphcheck.errors import Exhausted, GraphcheckError, Oversized, Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Env, Interpreter, Trace
from graphcheck.kernel.ops.algebra import Algebra

_CARRIED = {"Loop": 2, "Scan": 0, "SequenceMap": 0}  # inputs of a body that stand before the node's own operands


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """A node, with the nodes ``around`` it whose body it is in, outermost first, and the ``results`` of its own bodies."""

    node: ir.Node
    around: tuple[ir.Node, ...] = ()
    results: tuple[ir.Value, ...] = ()

    @property
    def name(self) -> tuple[str, ...]:
        """What the node is called, with those around it."""
        return (*map(model_.node_name, self.around), model_.node_name(self.node))

    def reads(self) -> list[ir.Value]:
        """Its operands, and what its bodies give."""
        return [*(v for v in self.node.inputs if v is not None), *self.results]


class Steps:
    """All that ran in one graph: ``order`` has the nodes, a body's before the node that has it; ``values`` what they gave."""

    def __init__(self, model: ir.Model, trace: Trace, algebra: Algebra) -> None:
        self.model = model
        self.values: Env = {**trace.values, **_inside(model, trace, algebra)} if _hides(model) else trace.values
        self.given: dict[ir.Value, ir.Value] = {}  # an input of a body -> the operand that it is
        self.order = list(self._walk(model.graph, (), set()))
        self.made = {v: step for step in self.order for v in step.node.outputs}

    def source(self, value: ir.Value) -> ir.Value:
        """The value itself, or the operand that it is as the input of a body."""
        while value in self.given and value not in self.made:
            value = self.given[value]
        return value

    def _walk(self, nodes: Iterable[ir.Node], around: tuple[ir.Node, ...], seen: set[int]) -> Iterator[Step]:
        for node in nodes:
            results: list[ir.Value] = []
            for body in self._bodies(node):
                ran = [v for v in body.outputs if v in self.values]
                if id(body) in seen or not ran:
                    continue
                seen.add(id(body))
                results += ran
                skipped = _CARRIED.get(node.op_type, 0)
                for inner, outer in zip(list(body.inputs)[skipped:], list(node.inputs)[skipped:], strict=False):
                    if outer is not None:
                        self.given[inner] = outer
                yield from self._walk(body, (*around, node), seen)
            yield Step(node, around, tuple(results))

    def _bodies(self, node: ir.Node) -> list[Any]:
        function = self.model.functions.get((node.domain, node.op_type, node.overload))
        graphs = [a.value for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH and not a.is_ref()]
        return graphs if function is None else [function]


def _hides(model: ir.Model) -> bool:
    """Whether there are nodes of which a trace keeps no values, or the last alone."""
    return bool(model.functions) or any(node.op_type in _CARRIED for node in model_.all_nodes(model))


def _inside(model: ir.Model, trace: Trace, algebra: Algebra) -> Env:
    """What the nodes in bodies gave the first time; nothing where the graph cannot be traced again."""
    watching = _Watching(model, algebra)
    try:
        watching.run({str(v.name): trace.values[v] for v in model.graph.inputs if v in trace.values})
    except (Exhausted, Oversized):
        raise
    except (Undecided, GraphcheckError):
        return {}
    return watching.first


class _Watching(Interpreter):
    """Keeps what every node in a body gives when it runs for the first time."""

    def __init__(self, model: ir.Model, algebra: Algebra) -> None:
        super().__init__(model, algebra)
        self.first: Env = {}

    def _nodes(self, nodes: Any, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]) -> None:
        super()._nodes(nodes, env, attributes, opsets)
        if nodes is not self.model.graph and not self.first.keys() & set(nodes.outputs):
            for value in (*nodes.inputs, *(v for node in nodes for v in node.outputs)):
                if value in env:
                    self.first.setdefault(value, env[value])
