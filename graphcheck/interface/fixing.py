"""Inputs that are held at one number: they become constants of a model, which then no longer takes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from graphcheck.errors import UsageError
from graphcheck.files.model import declared_shape, required_inputs


def fixed(model: ir.Model, values: Mapping[str, float]) -> ir.Model:
    """A clone of the model with these inputs as constants; the model itself where it has none of them.

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
        value.const_value = ir.tensor(_array(value, values[value.name or ""]), name=value.name)
        made.graph.register_initializer(value)
    return made


def notes(models: tuple[ir.Model, ir.Model], values: Mapping[str, float]) -> list[str]:
    """What is said of each input that is held; :class:`UsageError` for a name that neither model has."""
    sides = [{value.name for value in required_inputs(model)} for model in models]
    known = sorted({str(name) for side in sides for name in side})
    if unknown := [name for name in values if name not in known]:
        raise UsageError(f"no input is named {unknown[0]!r}; there are {', '.join(known) or 'none'}")
    held = {n: " and ".join(side for side, names in zip("AB", sides, strict=True) if n in names) for n in values}
    return [f"input {name!r} of {held[name]} is held at {value:.10g}, as asked" for name, value in values.items()]


def _array(value: ir.Value, number: float) -> np.ndarray:
    if not isinstance(value.type, ir.TensorType) or value.dtype in (None, ir.DataType.UNDEFINED, ir.DataType.STRING):
        raise UsageError(f"input {value.name!r} cannot be held at {number:g}: its type is {str(value.type).lower()}")
    shape = [dim if isinstance(dim, int) else 1 for dim in declared_shape(value) or ()]
    array = np.full(shape, number).astype(value.dtype.numpy())
    if (array.astype(np.float64) != number).any() and array.dtype.kind in "iub":
        raise UsageError(f"input {value.name!r} is {value.dtype.name.lower()}, and cannot be {number:g}")
    return array
