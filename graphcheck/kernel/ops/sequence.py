"""Sequences and optionals: Python lists of concrete arrays or tensors (None: an empty optional)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Undecided
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, axis_of
from graphcheck.kernel.ops.control import stack
from graphcheck.kernel.ops.node import Node


def _position(node: Node, at: Any) -> int:
    if isinstance(at, Tensor):
        raise Undecided(f"the position of {node.op_type} depends on the inputs", node.name)
    return int(at.reshape(-1)[0])


def at(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """One element."""
    return [inputs[0][_position(node, inputs[1])]]


def insert(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """One element more, at the end unless a position is given."""
    items = list(inputs[0])
    position = _position(node, inputs[2]) if len(inputs) > 2 else len(items)
    items.insert(position if position >= 0 else position + len(items), inputs[1])
    return [items]


def erase(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """One element less, the last unless a position is given."""
    items = list(inputs[0])
    items.pop(_position(node, inputs[1]) if len(inputs) > 1 else -1)
    return [items]


def split(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """Pieces along ``axis``: of size 1 (without that axis unless ``keepdims``), of one size, or of the sizes given."""
    x, sizes = inputs[0], inputs[1] if len(inputs) > 1 else None
    if isinstance(sizes, Tensor):
        raise Undecided("the sizes of SplitToSequence depend on the inputs", node.name)
    axis = axis_of(x, node.attr("axis", 0))
    n, keep = x.shape[axis], sizes is not None or bool(node.attr("keepdims", 1))
    if sizes is None or sizes.ndim == 0:
        step = 1 if sizes is None else int(sizes)
        cuts = list(range(step, n, step))
    else:
        cuts = [int(c) for c in np.cumsum(sizes)[:-1]]
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    pieces = [p if keep else p.squeeze(axis) for p in np.split(index, cuts, axis)]
    if isinstance(x, np.ndarray):
        return [[x.reshape(-1)[p - 1] for p in pieces]]
    return [[m.pick(x, p, p.shape) for p in pieces]]


def concat(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """All elements along ``axis``, or along a new one."""
    parts: list[Some] = inputs[0]
    axis = node.attr("axis")
    if node.attr("new_axis", 0):
        return [stack(m, node, parts, axis)]
    if all(isinstance(p, np.ndarray) for p in parts):
        return [np.concatenate(parts, axis)]  # type: ignore[arg-type]
    ends = np.cumsum([0, *(math.prod(p.shape) for p in parts)])
    index = np.concatenate(
        [np.arange(1, 1 + math.prod(p.shape)).reshape(p.shape) + e for p, e in zip(parts, ends, strict=False)], axis
    )
    return [m.join(parts, index, index.shape, parts[0].dtype)]


def has_element(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """Whether there is a value."""
    return [np.asarray(bool(inputs) and inputs[0] is not None)]


def identity(m: Algebra, node: Node, inputs: list[Any]) -> list[Any]:
    """The input as it is."""
    if not inputs and node.op_type == "OptionalGetElement":
        raise Refused("OptionalGetElement of nothing", node.name)
    return [inputs[0] if inputs else None]


OPS: dict[str, Callable[[Algebra, Node, list[Any]], list[Any]]] = {
    "SequenceAt": at,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "SequenceConstruct": lambda m, node, inputs: [list(inputs)],
    "SequenceEmpty": lambda m, node, inputs: [[]],
    "SequenceLength": lambda m, node, inputs: [np.asarray(len(inputs[0]), np.int64)],
    "SplitToSequence": split,
    "ConcatFromSequence": concat,
    "Identity": identity,
    "Optional": identity,
    "OptionalGetElement": identity,
    "OptionalHasElement": has_element,
}
