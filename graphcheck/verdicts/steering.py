"""The numbers at which an input of one element chooses what a model does: those that it is compared with, and one other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.files.model import all_nodes, required_inputs
from graphcheck.graphs import walk
from graphcheck.interface import inputs
from graphcheck.interface.ports import Interface

_STEPS = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape")
_ORDERS = {"Less": -1, "GreaterOrEqual": -1, "Greater": 1, "LessOrEqual": 1}  # where the other answer is, beside the number


def met(models: Sequence[ir.Model], interface: Interface, ranges: Mapping[str, tuple[float, float]]) -> dict[str, list[int]]:
    """The values of inputs of one element that the models meet, and one that is none of them, within the ranges.

    Those of integers are the constants that they are compared with, 0 and 1 where they are cast to booleans; a boolean has both.
    """
    single = {p.key: p.ports() for p in interface.inputs if all(_is_single(port.shape) for port in p.ports())}
    kinds = {key: {port.numpy_dtype().kind for port in ports} for key, ports in single.items()}
    found: dict[str, list[int]] = {key: [False, True] for key, kind in kinds.items() if kind == {"b"}}
    integers = any(kind <= {"i", "u"} for kind in kinds.values())
    for side, model in enumerate(models if integers else ()):
        there = {port.name: p.key for p in interface.inputs if (port := (p.a, p.b)[side]) is not None}
        names = {value.name for value in required_inputs(model)} & there.keys()
        for name, numbers in _compared(model):
            key = there[name] if name in names else ""
            if kinds.get(key, {""}) <= {"i", "u"}:
                found[key] = list(dict.fromkeys((*found.get(key, ()), *numbers)))
    for key, of in found.items():
        if "b" not in kinds[key]:
            others = (*(n // 2 for n in of), *(n + 1 for n in of))  # of a sampling rate the half
            of += [next(n for n in others if n not in of)]
            low, high = inputs.reach(*(port.numpy_dtype() for port in single[key]))
            found[key] = [n for n in of if low <= n <= high]
    return {key: [n for n in of if _within(ranges, key, n)] for key, of in found.items()}


def _within(ranges: Mapping[str, tuple[float, float]], key: str, number: int) -> bool:
    low, high = ranges.get(key, ranges.get("", (number, number)))
    return low <= number <= high


def _is_single(shape: Sequence[Any] | None) -> bool:
    return shape is not None and all(dim == 1 for dim in shape)


def _compared(model: ir.Model) -> Iterator[tuple[str, Sequence[int]]]:
    """Names of values with the numbers at which a comparison of theirs takes another answer."""
    for node in all_nodes(model):
        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == ir.DataType.BOOL:
            yield _origin(node.inputs[0]), (0, 1)
        if node.op_type != "Equal" and node.op_type not in _ORDERS:
            continue
        first, second = node.inputs
        for value, other, sign in ((first, second, 1), (second, first, -1)):
            number = _number(other)
            if number is not None:
                yield _origin(value), (number,) if node.op_type == "Equal" else (number, number + sign * _ORDERS[node.op_type])


def _origin(value: ir.Value | None) -> str:
    *_, last = walk.chain(value, lambda node: node.inputs[0] if node.op_type in _STEPS else None) or [None]
    return (last.name or "") if last is not None else ""


def _number(value: ir.Value | None) -> int | None:
    """The integer that a constant of one element holds."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    number = tensor.numpy().reshape(-1)[0]
    return int(number) if number == int(number) else None
