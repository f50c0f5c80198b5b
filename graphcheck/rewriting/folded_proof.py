"""The proof of a folded normalization or a summed weight: both models with those as free inputs, compared exactly.

In the result each folded constant gives way to the expression that it was computed from, so that a proof of the pair holds
for all weights, means and deviations; the constants themselves are those expressions, evaluated in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphcheck.patches.site import Site
from graphcheck.rewriting.apply import register, unregister
from graphcheck.rewriting.builder import ARRANGED, Builder
from graphcheck.rewriting.normalization import CONSTANT


def parametric(original: ir.Model, rewritten: ir.Model, sites: Sequence[Site]) -> tuple[ir.Model, ir.Model] | str:
    """(original, result) with the constants of folded and summed sites as inputs; the reason if that cannot be done."""
    a, b = original.clone(), rewritten.clone()
    for site in sites:
        before = site.folded or (site if site.summed is not None else None)
        if before is None:
            continue
        if bool((before.weight_index < 0).any()):
            return "its weight has zeros that the original's has not"
        steps = [] if site.folded is None else _steps(site)
        names = [before.weight_value.name or "", *(_constant_of(node) for node in steps)]
        inside = {v.name: v for v in a.graph.initializers.values()}
        inside |= {v.name: v for node in a.graph for v in node.outputs}
        if not all(name in inside and inside[name].const_value is not None for name in names):
            return "its constants are not stored, but computed in the graph"
        free: dict[str, ir.Value] = {}
        for name in dict.fromkeys(names):
            free[name] = _free(b, f"{name}/free", inside[name])
            inside[name].replace_all_uses_with(_free(a, f"{name}/free", inside[name]))
            if name in a.graph.initializers:
                unregister(a, inside[name])
        for name, value in rewritten.graph.initializers.items():
            kept = site.folded is None and value.meta.get(ARRANGED) is None  # a bias that is not folded
            if ARRANGED in value.meta and not kept and (name or "").startswith(f"{site.output.name}/graphcheck/"):
                given = {free[n]: _array(inside[n]) for n in free}
                if not _install(b, site, before, value, b.graph.initializers[name], free, given):
                    return f"{name} is not the exact constant, rounded once"
    return a, b


def _steps(site: Site) -> list[ir.Node]:
    """The normalization's nodes, in order."""
    assert site.folded is not None
    return list(site.region[: len(site.region) - len(site.folded.region)])


def _constant_of(node: ir.Node) -> str:
    """The name of the constant operand of a normalization node."""
    return str(node.meta[CONSTANT][1])


def _free(model: ir.Model, name: str, like: ir.Value) -> ir.Value:
    tensor = like.const_value
    shape = like.shape if like.shape is not None or tensor is None else ir.Shape(tensor.shape.numpy())
    value = ir.Value(
        name=name, type=like.type or (None if tensor is None else ir.TensorType(tensor.dtype)), shape=shape
    )
    model.graph.inputs.append(value)
    return value


def _install(
    model: ir.Model,
    site: Site,
    before: Site,
    folded: ir.Value,
    constant: ir.Value,
    free: dict[str, ir.Value],
    given: dict[ir.Value, np.ndarray],
) -> bool:
    """Put the expression of a folded weight or bias in its initializer's place; whether the constant is its rounding."""
    weight = free[before.weight_value.name or ""]
    b = Builder(model, weight, (), f"{constant.name}/exact", "folded", before.weight_value.dtype)
    value, terms = _sum(b, site, weight, folded) if site.summed is not None else _product(b, site, before, folded, free)
    right = _is_rounding(_array(folded), *_evaluate(b, value, given), terms)
    for added in b.constants:
        if added.uses():
            register(model, added)
    model.graph.insert_before(model.graph[0], b.nodes)
    constant.replace_all_uses_with(value)
    unregister(model, constant)
    return right


def _sum(b: Builder, site: Site, weight: ir.Value, folded: ir.Value) -> tuple[ir.Value, int]:
    """The weight summed over the copies of a repeated image, and how many there are."""
    assert site.summed is not None
    index, flat = folded.meta[ARRANGED], _reshape(b, weight, [-1])
    copies = site.summed.terms.T
    total = _gather(b, flat, copies[0][index.reshape(-1)])
    for copy in copies[1:]:
        total = b.op("Add", [total, _gather(b, flat, copy[index.reshape(-1)])], None)
    return _reshape(b, total, list(index.shape)), len(copies)


def _product(b: Builder, site: Site, before: Site, folded: ir.Value, free: dict[str, ir.Value]) -> tuple[ir.Value, int]:
    """A weight or bias with the normalization taken in, and how many products it is summed of."""
    weight = free[before.weight_value.name or ""]
    scale, shift = _scale_and_shift(b, site, free)
    shape = before.weight_index.shape
    ones = [1] * (len(shape) - 2)
    flat = _reshape(b, weight, [-1])
    own = _gather(b, flat, before.weight_index.reshape(-1))
    grouped = _reshape(b, own, [site.groups, shape[0] // site.groups, *shape[1:]])
    per = [site.groups, 1, shape[1], *ones]
    index = folded.meta[ARRANGED]
    if index is not None:
        product = _reshape(b, b.op("Mul", [grouped, _reshape(b, scale, per)], None), [-1])
        value = _reshape(b, _gather(b, product, index.reshape(-1)), list(index.shape))
    else:
        product = _reshape(b, b.op("Mul", [grouped, _reshape(b, shift, per)], None), [shape[0], -1])
        ones_ = b.constant(np.ones((math.prod(shape[1:]), 1), site.weight.dtype), "ones")
        total = _reshape(b, b.op("MatMul", [product, ones_], None), [-1])
        if before.alpha != 1.0:
            total = b.op("Mul", [total, b.constant(np.asarray(before.alpha, site.weight.dtype), "alpha")], None)
        if before.bias is not None:
            total = b.op("Add", [total, b.constant(before.bias, "bias")], None)
        assert folded.const_value is not None
        value = _reshape(b, total, list(folded.const_value.shape.numpy()))
    return value, math.prod(shape[1:])


def _evaluate(b: Builder, result: ir.Value, given: dict[ir.Value, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The expression in float64, and with every term taken positive: the scale of its rounding errors."""
    exact, size = ({v: x.astype(np.float64) for v, x in given.items()} for _ in range(2))
    size = {v: np.abs(x) for v, x in size.items()}
    for constant in b.constants:
        array = _array(constant)
        exact[constant], size[constant] = (
            (array, array) if array.dtype == np.int64 else (array * 1.0, np.abs(array) * 1.0)
        )
    for node in b.nodes:
        for values, positive in ((exact, False), (size, True)):
            x, y = (values[v] for v in node.inputs if v is not None)
            values[node.outputs[0]] = _OPS["Add" if positive and node.op_type == "Sub" else node.op_type](x, y)
    return exact[result], size[result]


_OPS: dict[str, Callable[[Any, Any], np.ndarray]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "MatMul": np.matmul,
    "Gather": np.take,
    "Reshape": np.reshape,
    "Expand": lambda x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape))),
}


def _is_rounding(stored: np.ndarray, exact: np.ndarray, size: np.ndarray, terms: int) -> bool:
    """Whether every element is within one ulp of the exact one (float64's own errors granted)."""
    unit = float(ml_dtypes.finfo(stored.dtype).eps)  # type: ignore[no-untyped-call]
    allowed = unit * np.abs(exact) + (terms + 8) * 2.0**-53 * size
    return bool((np.abs(stored.astype(np.float64) - exact) <= allowed).all())


def _array(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _scale_and_shift(b: Builder, site: Site, free: dict[str, ir.Value]) -> tuple[ir.Value, ir.Value]:
    """scale and shift [channels] of ``x * scale + shift``, from the normalization's free constants."""
    sizes = [a.size or 1 if a.role == "channel" else 1 for a in site.axes]
    dtype = site.weight.dtype
    scale: ir.Value = b.constant(np.ones(math.prod(sizes), dtype), "one")
    shift: ir.Value = b.constant(np.zeros(math.prod(sizes), dtype), "zero")
    minus = b.constant(np.asarray(-1, dtype), "minus")
    for node in _steps(site):
        at = node.meta[CONSTANT][0]
        wide = b.op("Expand", [free[_constant_of(node)], b.constant(np.asarray(sizes, np.int64), "sizes")], None)
        k = _reshape(b, wide, [-1])
        if node.op_type in ("Mul", "Div"):
            scale, shift = (b.op(node.op_type, [v, k], None) for v in (scale, shift))
        elif node.op_type == "Add":
            shift = b.op("Add", [shift, k], None)
        elif at == 1:
            shift = b.op("Sub", [shift, k], None)
        else:
            scale, shift = b.op("Mul", [scale, minus], None), b.op("Sub", [k, shift], None)
    return scale, shift


def _reshape(b: Builder, x: ir.Value, shape: Sequence[int]) -> ir.Value:
    return b.op("Reshape", [x, b.constant(np.asarray(shape, np.int64), "shape")], None)


def _gather(b: Builder, x: ir.Value, index: np.ndarray) -> ir.Value:
    return b.op("Gather", [x, b.constant(index.astype(np.int64), "index")], None, axis=0)
