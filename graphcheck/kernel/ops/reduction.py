"""Reductions, softmax, pooling and normalization, expanded into their primitive definitions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Undecided, Untaught
from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.ops import rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of, shaped
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.rules.columns import elements


def _axes(node: Node, x: Some, axes: Value) -> list[int] | None:
    """The axes of a Reduce operator (attribute or input); None for nothing to reduce."""
    if isinstance(axes, Tensor):
        raise Untaught(f"{node.op_type} over axes that depend on the inputs", node.name)
    found = [int(a) for a in axes.reshape(-1)] if axes is not None else list(node.attr("axes") or [])
    if not found:
        return None if node.attr("noop_with_empty_axes", 0) else list(range(len(x.shape)))
    return found


def reduce(
    fn: Callable[[Algebra, Some, list[int], bool], Some], noop: Callable[[Algebra, Some], Some]
) -> Callable[..., Some]:
    """A Reduce operator; ``noop`` is its elementwise part, all that is left where nothing is reduced."""

    def op(m: Algebra, node: Node, x: Some, axes: Value = None) -> Some:
        if node.op_type not in _WHOLE and x.dtype.kind in "iu":
            raise Untaught(f"{node.op_type} of computed integers", node.name)
        over = _axes(node, x, axes)
        return noop(m, x) if over is None else fn(m, x, over, bool(node.attr("keepdims", 1)))

    return op


def _same(m: Algebra, x: Some) -> Some:
    return x


def _square(m: Algebra, x: Some) -> Some:
    return m.mul(x, x)


def _sum(m: Algebra, x: Some, axes: list[int], keep: bool) -> Some:
    return m.sum(x, axes, keep)


def _sum_of(part: Callable[[Algebra, Some], Some], then: str | None = None) -> Callable[..., Some]:
    def op(m: Algebra, x: Some, axes: list[int], keep: bool) -> Some:
        total = m.sum(part(m, x), axes, keep)
        return m.ew(then, total) if then else total

    return op


def softmax(m: Algebra, node: Node, x: Some) -> Some:
    """Softmax along ``axis``; before opset 13 over all axes from ``axis`` on."""
    return _softened(m, node, x, "softmax")


def log_softmax(m: Algebra, node: Node, x: Some) -> Some:
    """Log of Softmax."""
    return m.ew("log", _softened(m, node, x, "softmax"))


def _softened(m: Algebra, node: Node, x: Some, fn: str) -> Some:
    if node.version >= 13:
        return m.along(fn, x, node.attr("axis", -1))
    axis = axis_of(x, node.attr("axis", 1))
    flat = m.reshape(x, (math.prod(x.shape[:axis]), -1))
    return m.reshape(m.along(fn, flat, 1), x.shape)


def arg(fn: str) -> Callable[..., Some]:
    """ArgMax and ArgMin: uninterpreted functions of the row."""

    def op(m: Algebra, node: Node, x: Some) -> Some:
        axis = axis_of(x, node.attr("axis", 0))
        moved, keep, rows, k = m.last(x, [axis])
        cls = m.terms.rows(f"{fn}:{node.attr('select_last_index', 0)}", moved.cls, rows, k)
        return m.reduced(Tensor(cls, keep, np.dtype(np.int64)), x, [axis], bool(node.attr("keepdims", 1)))

    return op


def _windows(m: Algebra, node: Node, x: Tensor, once: bool) -> tuple[Tensor, list[np.ndarray], tuple[int, ...]]:
    """Windows [N*C*L, K] of a pooling operator, what of them is inside along each axis, and the output's sizes; padding is 0,
    or with ``once`` another element of the window in its place, which no maximum sees."""
    spatial = x.shape[2:]
    window = Window.resolve(node.attributes, spatial)
    out = window.out_shape(spatial)
    if min(out, default=1) < 1:
        raise Refused(f"the kernel of {node.op_type} does not fit its input {list(x.shape)}", node.name)
    if node.attr("auto_pad") == "VALID" and dataclasses.replace(window, ceil_mode=False).out_shape(spatial) != out:
        raise Untaught(
            f"{node.op_type} with auto_pad VALID and ceil_mode: the standard and the runtimes differ", node.name
        )
    odd = any(d > 1 or s > k for d, s, k in zip(window.dilations, window.strides, window.kernel_shape, strict=True))
    if odd and str(node.attr("auto_pad", "")).startswith("SAME"):
        raise _unknown(
            node, window, spatial, f"{node.op_type} with auto_pad SAME and gaps: the standard and the runtimes differ"
        )
    inside = window.inside(spatial)
    if not all(axis.any(axis=1).all() for axis in inside) and node.op_type != "LpPool":
        raise _unknown(node, window, spatial, f"{node.op_type} with a window that lies on padding only")
    images = math.prod(x.shape[:2])
    shape = (images * math.prod(out), math.prod(window.kernel_shape))
    limits.current().check_elements(math.prod(shape), "a table of windows")
    if once and not all(axis.all() for axis in inside):
        at = window.gather(spatial).reshape(math.prod(out), -1)
        at = elements(np.where(at > 0, at, at.max(axis=-1, keepdims=True)))
        map_ = m.terms.maps.repeated(at, math.prod(spatial), images)
        return m.pick(x, map_, (shape[0], at.shape[1])), inside, out
    map_ = m.terms.maps.of(im2col_form((images, 1, *spatial), window), lambda: np.zeros(shape, np.int64))
    return m.pick(x, map_, shape), inside, out


def _unknown(node: Node, window: Window, spatial: Sequence[int], what: str) -> Undecided:
    """What to raise for pooling that is an unknown function: its shape is not known either where ceil_mode rounds up, since ONNX
    shape inference counts the windows that begin behind the end, and runtimes do not."""
    if window.ceil_mode and not window.even(spatial):
        return Undecided(f"{what}; its shape in ceil mode is not known", node.name)
    return Untaught(what, node.name)


def max_pool(m: Algebra, node: Node, x: Some) -> Some:
    """The maximum of each window."""
    if sum(node.present_outputs) > 1:
        spatial = x.shape[2:]
        raise _unknown(node, Window.resolve(node.attributes, spatial), spatial, "MaxPool with Indices")
    x = m.lift(x)
    windows, _, out = _windows(m, node, x, True)
    return m.reshape(m.extreme("max", windows, [1], False), (*x.shape[:2], *out))


def average_pool(m: Algebra, node: Node, x: Some) -> Some:
    """The sum of each window divided by its count (padding counted as ``count_include_pad`` says)."""
    x = m.lift(x)
    windows, inside, out = _windows(m, node, x, False)
    if node.attr("count_include_pad", 0):  # pads count, what ceil_mode adds behind them does not
        window = Window.resolve(node.attributes, x.shape[2:])
        begins, ends = window.pads[: len(out)], window.pads[len(out) :]
        sizes = [b + n + e for b, n, e in zip(begins, x.shape[2:], ends, strict=True)]
        inside = dataclasses.replace(window, pads=(0,) * len(window.pads)).inside(sizes, out)
    counts = functools.reduce(np.multiply.outer, [axis.sum(axis=1) for axis in inside]).astype(np.float64)
    total = m.reshape(m.sum(windows, [1], False), (*x.shape[:2], *out))
    return m.div(total, counts)


def global_pool(fn: str) -> Callable[..., Some]:
    """Mean or maximum over all spatial axes."""

    def op(m: Algebra, node: Node, x: Some) -> Some:
        axes = list(range(2, len(x.shape)))
        return m.mean(x, axes) if fn == "mean" else m.extreme("max", x, axes)

    return op


def lp_pool(m: Algebra, node: Node, x: Some) -> Some:
    """The p-norm of each window."""
    x = m.lift(x)
    windows, _, out = _windows(m, node, x, False)
    return m.reshape(_norm(m, windows, [1], node.attr("p", 2), False), (*x.shape[:2], *out))


def _norm(m: Algebra, x: Some, axes: list[int], p: int, keep: bool = True) -> Some:
    """The 1-norm, the 2-norm, or any other p-norm."""
    if p == 2:
        return m.ew("sqrt", m.sum(_square(m, x), axes, keep))
    size = m.ew("abs", x)
    if p == 1:
        return m.sum(size, axes, keep)
    power = functools.reduce(m.mul, [size] * p)
    return m.ew("pow", m.sum(power, axes, keep), np.asarray(1 / p, x.dtype))


def normalized(m: Algebra, x: Some, axes: list[int], epsilon: float, stash: Any = None) -> tuple[Some, Some, Some]:
    """(x - mean) / Sqrt(variance + epsilon) over ``axes``, the mean and 1 / Sqrt(...)."""
    mean = m.mean(x, axes)
    centred = m.sub(x, mean)
    variance = m.mean(m.mul(centred, centred), axes)
    spread = m.ew("sqrt", m.add(variance, np.asarray(epsilon, np.float32).astype(stash or x.dtype)))
    inverse = m.recip(spread)
    return m.mul(centred, inverse), mean, inverse


def layer_normalization(m: Algebra, node: Node, x: Some, scale: Some, bias: Value = None) -> tuple[Some, ...]:
    """Normalized over the axes from ``axis`` on, times scale, plus bias; the optional mean and 1/deviation."""
    axes = list(range(axis_of(x, node.attr("axis", -1)), len(x.shape)))
    y, mean, inverse = normalized(m, x, axes, node.attr("epsilon", 1e-5), np.float32 if x.dtype.itemsize < 4 else None)
    y = m.mul(y, scale)
    return (shaped(node, y if bias is None else m.add(y, bias), x.shape), mean, inverse)[: max(node.n_outputs, 1)]


def rms_normalization(m: Algebra, node: Node, x: Some, scale: Some) -> Some:
    """x / Sqrt(mean(x^2) + epsilon) * scale."""
    return simplified_layer_normalization(m, node, x, scale)[0]


def simplified_layer_normalization(m: Algebra, node: Node, x: Some, scale: Some) -> tuple[Some, ...]:
    """RMSNormalization, and 1 / Sqrt(...): onnxruntime's operator, from before ONNX had one."""
    axes = list(range(axis_of(x, node.attr("axis", -1)), len(x.shape)))
    epsilon = np.asarray(node.attr("epsilon", 1e-5), np.float32).astype(x.dtype)
    inverse = m.recip(m.ew("sqrt", m.add(m.mean(m.mul(x, x), axes), epsilon)))
    return (shaped(node, m.mul(m.mul(x, inverse), scale), x.shape), inverse)[: max(node.n_outputs, 1)]


def _per_channel(m: Algebra, x: Some, parameter: Some) -> Some:
    shape = (-1, *(1,) * (len(x.shape) - 2))
    return parameter.reshape(shape) if isinstance(parameter, np.ndarray) else m.reshape(parameter, shape)


def batch_normalization(m: Algebra, node: Node, x: Some, scale: Some, bias: Some, mean: Some, var: Some) -> Some:
    """(x - mean) * scale / Sqrt(var + epsilon) + bias, the stored statistics being constants over the reals."""
    trains = node.attr("training_mode", 0) if node.version >= 14 else sum(node.present_outputs) > 1
    if trains or not node.attr("spatial", 1):
        raise Untaught("BatchNormalization in training mode, or with statistics per element", node.name)
    scale, bias, mean, var = (_per_channel(m, x, shaped(node, m.lift(p), (*x.shape, 1)[1:2])) for p in (scale, bias, mean, var))
    root = m.ew("sqrt", m.add(var, np.asarray(node.attr("epsilon", 1e-5), np.float32).astype(x.dtype)))
    return m.add(m.mul(m.mul(m.sub(x, mean), m.recip(root)), scale), bias)


def instance_normalization(m: Algebra, node: Node, x: Some, scale: Some, bias: Some) -> Some:
    """Normalized over the spatial axes, per image and channel."""
    scale, bias = (shaped(node, p, x.shape[1:2]) for p in (scale, bias))
    y = normalized(m, x, list(range(2, len(x.shape))), node.attr("epsilon", 1e-5))[0]
    return m.add(m.mul(y, _per_channel(m, x, scale)), _per_channel(m, x, bias))


def group_normalization(m: Algebra, node: Node, x: Some, scale: Some, bias: Some) -> Some:
    """Normalized over each group of channels; scale and bias per channel (per group before opset 21)."""
    groups = node.attr("num_groups")
    grouped = m.reshape(x, (x.shape[0], groups, -1))
    y: Some = normalized(m, grouped, [2], node.attr("epsilon", 1e-5))[0]
    if node.version < 21:
        y = m.add(m.mul(y, m.reshape(scale, (groups, 1))), m.reshape(bias, (groups, 1)))
        return m.reshape(y, x.shape)
    y = m.reshape(y, x.shape)
    return m.add(m.mul(y, _per_channel(m, x, scale)), _per_channel(m, x, bias))


def lp_normalization(m: Algebra, node: Node, x: Some) -> Some:
    """x / norm along ``axis``."""
    return m.mul(x, m.recip(_norm(m, x, [node.attr("axis", -1)], node.attr("p", 2))))


def lp_pool_global(m: Algebra, node: Node, x: Some) -> Some:
    """The p-norm over all spatial axes."""
    return _norm(m, x, list(range(2, len(x.shape))), node.attr("p", 2))


def local_response_normalization(m: Algebra, node: Node, x: Some) -> Some:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta."""
    x, size = m.lift(x), node.attr("size")
    before = (size - 1) // 2
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    padded = np.pad(index, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (len(x.shape) - 2)])
    near = np.stack([padded[:, i : i + x.shape[1]] for i in range(size)])
    total = m.sum(_square(m, m.pick(x, near, near.shape)), [0], False)
    scale = m.scalar(node.attr("alpha", 1e-4) / size, x)
    powered = m.ew(
        "pow", m.add(m.scalar(node.attr("bias", 1.0), x), m.mul(scale, total)), m.scalar(node.attr("beta", 0.75), x)
    )
    return m.mul(x, m.recip(powered))


def product(m: Algebra, x: Some, axes: list[int], keep: bool) -> Some:
    """The product over ``axes``, factor by factor."""
    moved, keeps, rows, k = m.last(x, axes)
    if not 0 < k <= _MAX_FACTORS:
        raise Untaught(f"a product of {k} factors")
    index = np.arange(1, 1 + rows * k).reshape(rows, k)
    factors: list[Some] = [m.pick(moved, index[:, i], keeps) for i in range(k)]
    return m.reduced(m.lift(functools.reduce(m.mul, factors)), x, axes, keep)


def cumsum(m: Algebra, node: Node, x: Some, axis: Some) -> Some:
    """Running sums along ``axis``: a product with a triangle of ones."""
    if isinstance(axis, Tensor):
        raise Untaught("CumSum along an axis that depends on the inputs", node.name)
    x = m.lift(x)
    rank, at = len(x.shape), axis_of(x, int(axis.reshape(-1)[0]))
    n = x.shape[at]
    triangle = np.triu(np.ones((n, n)), 1 if node.attr("exclusive", 0) else 0)
    triangle = triangle[::-1, ::-1] if node.attr("reverse", 0) else triangle
    y = m.matmul(m.transpose(x, [*(i for i in range(rank) if i != at), at]), np.ascontiguousarray(triangle))
    return m.transpose(Tensor(y.cls, y.shape, x.dtype), [*range(at), rank - 1, *range(at, rank - 1)])


_MAX_FACTORS = 64
_WHOLE = {"ReduceSum", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1", "ReduceProd"}  # integers stay integers

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": reduce(_sum, _same),
    "ReduceMean": reduce(lambda m, x, axes, keep: m.mean(x, axes, keep), _same),
    "ReduceMax": reduce(lambda m, x, axes, keep: m.extreme("max", x, axes, keep), _same),
    "ReduceMin": reduce(lambda m, x, axes, keep: m.extreme("min", x, axes, keep), _same),
    "ReduceProd": reduce(product, _same),
    "ReduceSumSquare": reduce(_sum_of(_square), _square),
    "ReduceL1": reduce(_sum_of(lambda m, x: m.ew("abs", x)), lambda m, x: m.ew("abs", x)),
    "ReduceL2": reduce(_sum_of(_square, "sqrt"), lambda m, x: m.ew("abs", x)),
    "ReduceLogSum": reduce(_sum_of(_same, "log"), lambda m, x: m.ew("log", x)),
    "ReduceLogSumExp": reduce(_sum_of(lambda m, x: m.exp(x), "log"), _same),
}
_IMAGES: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_pool("mean"),
    "GlobalMaxPool": global_pool("max"),
    "LpPool": lp_pool,
    "GlobalLpPool": lp_pool_global,
    "LRN": local_response_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
}
OPS: dict[str, Callable[..., Any]] = {
    **rows.ops(rows.reduced, _REDUCTIONS),
    **rows.ops(rows.first, _IMAGES),
    "Softmax": rows.Op(softmax, rows.softmax),
    "LogSoftmax": rows.Op(log_softmax, rows.softmax),
    "ArgMax": rows.Op(arg("argmax"), rows.off(rows.attribute(), keeps=False)),
    "ArgMin": rows.Op(arg("argmin"), rows.off(rows.attribute(), keeps=False)),
    "MaxPool": rows.Op(max_pool, rows.pooled),
    "LayerNormalization": rows.Op(layer_normalization, rows.off(rows.behind(-1))),
    "RMSNormalization": rows.Op(rms_normalization, rows.off(rows.behind(-1))),
    "BatchNormalization": rows.Op(batch_normalization, rows.statistics),
    "LpNormalization": rows.Op(lp_normalization, rows.off(rows.attribute("axis", -1))),
    "CumSum": rows.Op(cumsum, rows.off(lambda see: see.numbers(1).reshape(-1).tolist())),
}
