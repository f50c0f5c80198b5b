"""Inputs that are held at one number: they become constants of a model, which then no longer takes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import UsageError
from graphcheck.files.model import declared_shape, required_inputs


def fixed(model: ir.Model, values: Mapping[str, float]) -> ir.Model:
    """A clone of the model with these inputs as constants; the model itself where it has none of them.

    A dim that another input has too is as long as it is there; any other free one is 1.

    :class:`UsageError` where an input is no tensor of numbers, or holds no such number.
    """
    names = {value.name for value in required_inputs(model)} & values.keys()
    if not names:
        return model
    made = model.clone()
    made.meta.update(model.meta)
    made.graph.meta.update(model.graph.meta)
    for value in [v for v in made.graph.inputs if v.name in names]:
        made.graph.inputs.remove(value)
        array = _array(value, values[value.name or ""])
        lengths = _lengths(made, value, names)
        if lengths:
            _widened(made, value, array, lengths)
            continue
        value.const_value = ir.tensor(array, name=value.name)
        made.graph.register_initializer(value)
    return made


def _lengths(model: ir.Model, value: ir.Value, names: Collection[str | None]) -> dict[int, tuple[ir.Value, int]]:
    """Where the free dims of a value stand in the inputs that stay: axis -> (input, axis)."""
    there: dict[str, tuple[ir.Value, int]] = {}
    for other in required_inputs(model):
        for axis, dim in enumerate(declared_shape(other) or () if other.name not in names else ()):
            if isinstance(dim, str):
                there.setdefault(dim, (other, axis))
    dims = declared_shape(value) or ()
    return {axis: there[dim] for axis, dim in enumerate(dims) if isinstance(dim, str) and dim in there}


def _widened(model: ir.Model, value: ir.Value, array: np.ndarray, lengths: Mapping[int, tuple[ir.Value, int]]) -> None:
    """Make ``value`` the array, expanded to the sizes that other inputs have at ``lengths``."""
    if model.opset_imports.get("", 1) < 8:
        raise UsageError(f"input {value.name!r} cannot be held: its free dims need Expand, from operator set 8 on")
    nodes: list[ir.Node] = []

    def put(op: str, inputs: Sequence[ir.Value], **attributes: Any) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes, name=f"held/{value.name}/{len(nodes)}"))
        nodes[-1].outputs[0].name = nodes[-1].name
        return nodes[-1].outputs[0]

    def numbers(array: np.ndarray) -> ir.Value:
        return put("Constant", [], value=ir.tensor(array))

    parts = [numbers(np.array([size])) for size in array.shape]
    for axis, (other, at) in lengths.items():
        parts[axis] = put("Gather", [put("Shape", [other]), numbers(np.array([at]))], axis=0)
    nodes.append(ir.Node("", "Expand", [numbers(array), put("Concat", parts, axis=0)], outputs=[value]))
    first = next(iter(model.graph), None)
    if first is None:
        model.graph.extend(nodes)
    else:
        model.graph.insert_before(first, nodes)


def notes(models: tuple[ir.Model, ir.Model], values: Mapping[str, float]) -> list[str]:
    """What is said of each input that is held; :class:`UsageError` for a name that neither model has."""
    sides = [{value.name for value in required_inputs(model)} for model in models]
    known = sorted({str(name) for side in sides for name in side})
    if unknown := [name for name in values if name not in known]:
        raise UsageError(f"no input is named {unknown[0]!r}; there are {', '.join(known) or 'none'}")
    held = {n: " and ".join(side for side, names in zip("AB", sides, strict=True) if n in names) for n in values}
    found = [f"input {name!r} of {held[name]} is held at {value:.10g}, as asked" for name, value in values.items()]
    for side, model in zip("AB", models, strict=True):
        for value in [value for value in required_inputs(model) if value.name in values]:
            lengths, dims = _lengths(model, value, values.keys()), declared_shape(value) or ()
            free = [axis for axis, dim in enumerate(dims) if not isinstance(dim, int) and axis not in lengths]
            for axis in free:
                named = f"dim {dims[axis]!r}" if dims[axis] else f"axis {axis}"
                found.append(f"{named} of input {value.name!r} of {side}, which no other input has, is 1 where it is held")
    return found


def _array(value: ir.Value, number: float) -> np.ndarray:
    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
        raise UsageError(f"input {value.name!r} cannot be held at {number:g}: its type is {str(value.type).lower()}")
    shape = [dim if isinstance(dim, int) else 1 for dim in declared_shape(value) or ()]
    array = np.full(shape, number).astype(value.dtype.numpy())
    if (array.astype(np.float64) != number).any() and array.dtype.kind in "iub":
        raise UsageError(f"input {value.name!r} is {value.dtype.name.lower()}, and cannot be {number:g}")
    return array
