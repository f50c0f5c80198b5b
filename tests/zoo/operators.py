"""Mutants of single operators, made of ONNX's own node tests: an operand disturbed, an attribute changed, another case.

They watch the uninterpreted functions, multiset hashes included: a hash that collapses is invisible to equal pairs.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STEERING = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2), "OneHot": (0, 1), "CenterCropPad": (1,)}
FLAGS = frozenset(
    {"align_corners", "fmod", "keepdims", "ceil_mode", "count_include_pad", "is_causal", "transA", "transB"}
)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "mode": (
        "nearest",
        "linear",
        "cubic",
        "constant",
        "reflect",
        "edge",
        "wrap",
        "DCR",
        "CRD",
        "bilinear",
        "avg",
        "max",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    "coordinate_transformation_mode": ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"),
    "padding_mode": ("zeros", "border", "reflection"),
    "auto_pad": ("SAME_UPPER", "SAME_LOWER", "VALID"),
    "approximate": ("none", "tanh"),
    "reduction": ("none", "add", "mul", "max", "min", "mean", "sum"),
    "direction": ("forward", "reverse", "bidirectional", "LEFT", "RIGHT"),
}


@functools.cache
def cases() -> dict[str, Any]:
    """The node tests of the installed onnx by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


def standalone(case: Any) -> onnx.ModelProto | None:
    """The case's model with its steering inputs stored; None if it has no float input to disturb, or strings or lists."""
    (given, _) = case.data_sets[0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    node = graph.node[0]
    if len(given) != len(graph.input) or any(
        v.type.WhichOneof("value") != "tensor_type" for v in (*graph.input, *graph.output)
    ):
        return None
    kept = []
    for value, data in zip(graph.input, given, strict=True):
        array = (
            data
            if isinstance(data, np.ndarray)
            else numpy_helper.to_array(data)
            if isinstance(data, TensorProto)
            else None
        )
        if array is None:
            return None
        steers = any(i < len(node.input) and node.input[i] == value.name for i in STEERING.get(node.op_type, ()))
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and not steers and array.size:
            kept.append(value)
        else:
            graph.initializer.append(numpy_helper.from_array(np.asarray(array), value.name))
    names = {v.name for v in kept}
    inputs = [v for v in graph.input if v.name in names]
    del graph.input[:]
    graph.input.extend(inputs)
    return model if inputs else None


def mutants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Each input disturbed in each way, each attribute changed in each way; many are invalid or change nothing."""
    for value in model.graph.input:
        dims = [d.dim_value for d in value.type.tensor_type.shape.dim]
        for how in ("element by an ulp", "last two swapped", "first two swapped", "negated", "doubled", "one repeated"):
            mutant = _disturbed(model, value.name, dims, how)
            if mutant is not None:
                yield f"{value.name}: {how}", mutant
    for i, node in enumerate(model.graph.node):
        for a in node.attribute:
            for new in _others(a, node.op_type):
                mutant = onnx.ModelProto()
                mutant.CopyFrom(model)
                changed = mutant.graph.node[i]
                kept = [b for b in changed.attribute if b.name != a.name]
                del changed.attribute[:]
                changed.attribute.extend([*kept, helper.make_attribute(a.name, new)])
                yield f"{a.name} = {new!r}", mutant


def _others(a: onnx.AttributeProto, op_type: str) -> list[Any]:
    """Other values of an attribute; invalid ones are left out where the oracle would take them."""
    value = helper.get_attribute_value(a)
    if a.name in FLAGS:
        return [1 - value]
    if a.name == "reduction" and value in (b"none", b"sum", b"mean") and op_type.endswith("Loss"):
        return [v for v in ("none", "sum", "mean") if v.encode() != value]
    if isinstance(value, int):
        return [value + 1, value - 1, 1 - value]
    if isinstance(value, float):
        return [float(np.nextafter(np.float32(value), np.float32(9e9))), value * 2 + 0.5]
    if isinstance(value, bytes):
        return [v for v in ATTRIBUTES.get(a.name, ()) if v.encode() != value]
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        out = [value[::-1], [value[0] + 1, *value[1:]], [*value[:-1], value[-1] + 1]]
        return [v for v in out if v != value]
    return []


def _disturbed(model: onnx.ModelProto, name: str, dims: list[int], how: str) -> onnx.ModelProto | None:
    mutant = onnx.ModelProto()
    mutant.CopyFrom(model)
    graph = mutant.graph
    outer = f"{name} disturbed"
    for node in graph.node:
        for i, operand in enumerate(node.input):
            if operand == name:
                node.input[i] = outer
    rng = np.random.default_rng(len(how))
    if how in ("negated", "doubled", "element by an ulp"):
        factor = np.full(dims, {"negated": -1, "doubled": 2}.get(how, 1), np.float32)
        if how == "element by an ulp":
            factor.reshape(-1)[rng.integers(factor.size)] = np.nextafter(np.float32(1), np.float32(2))
        disturbance: np.ndarray = factor
        new = helper.make_node("Mul", [name, f"{name} disturbance"], [outer])
    else:
        axis = len(dims) - 1 if how != "first two swapped" else 0
        if not dims or dims[axis] < 2:
            return None
        index = np.arange(dims[axis])
        if how == "one repeated":
            index[-1] = index[-2]
        else:
            at = slice(0, 2) if how == "first two swapped" else slice(-2, None)
            index[at] = index[at][::-1].copy()
        disturbance = index
        new = helper.make_node("Gather", [name, f"{name} disturbance"], [outer], axis=axis)
    graph.initializer.append(numpy_helper.from_array(disturbance, f"{name} disturbance"))
    graph.node.insert(0, new)
    return mutant
