"""Where graphs part of which one cannot be evaluated: the node that fails, or what made it fail."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Exhausted, Oversized, Undecided
from graphcheck.files.contents import Contents
from graphcheck.interface.ports import Interface
from graphcheck.kernel.interpreter import Env, Interpreter, Trace
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.rules import AFFINE
from graphcheck.kernel.terms.store import Terms
from graphcheck.parting.alignment import Divergence
from graphcheck.parting.locating import Locator


def broken(
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    shapes: Mapping[str, tuple[int, ...]],
    concrete: Mapping[str, np.ndarray],
    contents: Contents,
) -> Divergence | None:
    """The first divergence above the nodes that cannot be evaluated at these shapes (by pair key); None if both graphs fail
    alike, or a limit is reached."""
    algebra = Algebra(Terms(AFFINE[""], contents=contents))
    runs = [_AsFar(model, algebra) for model in models]
    try:
        traces = [run.trace(_given(algebra, interface, shapes, concrete, side)) for side, run in enumerate(runs)]
    except (Exhausted, Oversized, Undecided):
        return None
    pair = Pair(algebra, traces[0], traces[1], dict(shapes), concrete)
    return Locator(models, pair).before(runs[0].failed, runs[1].failed)


def _given(
    algebra: Algebra,
    interface: Interface,
    shapes: Mapping[str, tuple[int, ...]],
    concrete: Mapping[str, np.ndarray],
    side: int,
) -> dict[str, Value]:
    """The inputs of a side by its names: free tensors, and the integers that were chosen."""
    found: dict[str, Value] = {}
    for pair in interface.inputs:
        port = (pair.a, pair.b)[side]
        if port is None:
            continue
        shape = shapes[pair.key]
        leaf = algebra.terms.leaf(("input", pair.key), math.prod(shape))
        found[port.name] = concrete.get(pair.key, Tensor(leaf, shape, np.dtype(port.numpy_dtype())))
    return found


class _AsFar(Interpreter):
    """Passes over nodes that cannot be evaluated, and over what reads them; the first of those is kept."""

    def __init__(self, model: ir.Model, algebra: Algebra) -> None:
        super().__init__(model, algebra)
        self.failed: ir.Node | None = None
        self.env: Env = {}

    def trace(self, inputs: Mapping[str, Value]) -> Trace:
        """What could be evaluated; an output that could not is None."""
        try:
            return self.run(inputs)
        except KeyError:
            return Trace(self.env, [self.env.get(v) for v in self.model.graph.outputs], self.opaque, self.rules)

    def _nodes(self, nodes: Any, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]) -> None:
        if nodes is self.model.graph:
            self.env = env
        super()._nodes(nodes, env, attributes, opsets)

    def evaluate(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        if source.graph is not self.model.graph:  # in a body: the node around it fails
            return super().evaluate(source, env, attributes, opsets)
        if any(v is not None and v not in env for v in source.inputs):
            return []
        try:
            return super().evaluate(source, env, attributes, opsets)
        except (Exhausted, Oversized):
            raise
        except Undecided:
            self.failed = self.failed or source
            return []
