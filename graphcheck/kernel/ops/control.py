"""If, Loop, Scan and SequenceMap, where what steers them is concrete: their bodies are evaluated step by step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Endless, Undecided
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor
from graphcheck.kernel.ops.node import Node


@dataclasses.dataclass(frozen=True)
class Body:
    """What an operator may do with its subgraphs: ``run`` gives the outputs of one at its inputs."""

    m: Algebra
    run: Callable[[ir.Graph, Sequence[Any]], list[Any]]

    def __call__(self, graph: ir.Graph, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of a subgraph."""
        return self.run(graph, inputs)

    def take(self, x: Some, at: int, axis: int) -> Some:
        """The slice of ``x`` at one index of ``axis``."""
        return take(self.m, x, at, axis)

    def stack(self, node: Node, parts: list[Some], axis: int, declared: ir.Value) -> Some:
        """Equal shapes along a new axis."""
        return stack(self.m, node, parts, axis, declared)


_MAX_TRIPS = 10_000


def if_(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """One of two branches; where the condition is computed, a selection between what both give in equal shapes."""
    condition = inputs[0]
    if isinstance(condition, np.ndarray):
        return body(node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"), ())
    then, other = (body(node.attr(name), ()) for name in ("then_branch", "else_branch"))
    for x, y in zip(then, other, strict=True):
        alike = isinstance(x, (np.ndarray, Tensor)) and isinstance(y, (np.ndarray, Tensor)) and x.dtype == y.dtype
        if not alike or x.shape != y.shape:
            raise Undecided("the condition of If depends on the inputs, and its branches differ in shape", node.name)
    return [m.where(m.reshape(condition, ()), x, y) for x, y in zip(then, other, strict=True)]


def loop(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """State, carried from step to step, and scan outputs, stacked."""
    graph = node.attr("body")
    padded: list[Any] = [*inputs, *[None] * (2 - len(inputs))]
    trips, go_on, state = padded[0], padded[1], padded[2:]
    state += [None] * (len(graph.inputs) - 2 - len(state))
    for value, what in ((trips, "trip count"), (go_on, "condition")):
        if isinstance(value, Tensor):
            raise Undecided(f"the {what} of Loop depends on the inputs", node.name)
    limit = math.inf if trips is None else int(trips.reshape(-1)[0])
    go_on = np.asarray(True) if go_on is None else go_on
    scanned: list[list[Some]] = [[] for _ in range(len(graph.outputs) - 1 - len(state))]
    trip = 0
    while trip < limit and bool(go_on.reshape(-1)[0]):
        if trip >= _MAX_TRIPS:
            raise Endless(f"Loop goes on beyond {_MAX_TRIPS} steps", node.name)
        go_on, *rest = body(graph, [np.asarray(trip, np.int64), go_on, *state])
        if isinstance(go_on, Tensor):
            raise Undecided("the condition of Loop depends on the inputs", node.name)
        state = rest[: len(state)]
        for column, value in zip(scanned, rest[len(state) :], strict=True):
            column.append(value)
        trip += 1
    declared = graph.outputs[1 + len(state) :]
    return [*state, *(body.stack(node, column, 0, value) for column, value in zip(scanned, declared, strict=True))]


def scan(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """Like Loop, over slices of the scan inputs along their axes, forwards or backwards."""
    if node.version < 9:
        raise Undecided("Scan before operator set 9 is not evaluated", node.name)
    graph, count = node.attr("body"), node.attr("num_scan_inputs")
    state, data = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    outputs = len(graph.outputs) - len(state)
    axes = node.attr("scan_input_axes") or [0] * count
    backwards = node.attr("scan_input_directions") or [0] * count
    trips = data[0].shape[axes[0]]
    if trips > _MAX_TRIPS:
        raise Endless(f"Scan goes on beyond {_MAX_TRIPS} steps", node.name)
    scanned: list[list[Some]] = [[] for _ in range(outputs)]
    for trip in range(trips):
        at = [trips - 1 - trip if back else trip for back in backwards]
        slices = [body.take(x, i, axis) for x, i, axis in zip(data, at, axes, strict=True)]
        results = body(graph, [*state, *slices])
        state = results[: len(state)]
        for column, value in zip(scanned, results[len(state) :], strict=True):
            column.append(value)
    out_axes = node.attr("scan_output_axes") or [0] * outputs
    out_backwards = node.attr("scan_output_directions") or [0] * outputs
    columns = [column[::-1] if back else column for column, back in zip(scanned, out_backwards, strict=True)]
    declared = graph.outputs[len(state) :]
    stacked = (body.stack(node, c, axis, value) for c, axis, value in zip(columns, out_axes, declared, strict=True))
    return [*state, *stacked]


def sequence_map(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """The body on each element of the sequences; a tensor among the inputs is the same for all."""
    graph = node.attr("body")
    count = len(inputs[0])
    results = [body(graph, [x[i] if isinstance(x, list) else x for x in inputs]) for i in range(count)]
    return [[r[j] for r in results] for j in range(len(graph.outputs))]


def take(m: Algebra, x: Some, at: int, axis: int) -> Some:
    """The slice of ``x`` at one index of ``axis``."""
    if isinstance(x, np.ndarray):
        return np.asarray(x.take(at, axis))
    index = np.asarray(np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape).take(at, axis))
    return m.pick(x, index, index.shape)


def stack(m: Algebra, node: Node, parts: list[Some], axis: int, declared: ir.Value | None = None) -> Some:
    """Equal shapes along a new axis; the declared type is what no parts at all have."""
    if not parts:
        shape = declared.shape.numpy() if declared is not None and declared.shape is not None else None
        if shape is None or declared is None or declared.dtype is None or not all(isinstance(n, int) for n in shape):
            raise Undecided(f"{node.op_type} runs no step, so the shape of its scan outputs is unknown", node.name)
        return np.zeros(
            (*shape[: axis % (len(shape) + 1)], 0, *shape[axis % (len(shape) + 1) :]), declared.dtype.numpy()
        )
    if all(isinstance(x, np.ndarray) for x in parts):
        return np.stack(parts, axis)  # type: ignore[arg-type]
    size = math.prod(parts[0].shape)
    index = np.stack([np.arange(1, 1 + size).reshape(p.shape) + i * size for i, p in enumerate(parts)], axis)
    return m.join(parts, index, index.shape, parts[0].dtype)


OPS: dict[str, Callable[[Algebra, Node, list[Any], Body], list[Any]]] = {
    "If": if_,
    "Loop": loop,
    "Scan": scan,
    "SequenceMap": sequence_map,
}
