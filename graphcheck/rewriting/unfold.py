"""The patch embedding as im2col by one Gather, and a MatMul: for windows that overlap, or leave gaps."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphcheck.kernel.geometry import Window
from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import Dim, Dims, SiteBuilder, count_of, product, size_of
from graphcheck.rewriting.common import Groups, add_bias, axes_of, columns_weight, padded, scale

NAME = "unfold"


def why_not(site: Site) -> str | None:
    """Why there is nothing to unfold."""
    if site.pointwise:
        return "its kernel is one, so there is nothing to unfold"
    return "its patches are flattened already, so there is nothing to unfold" if site.flattened else None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """Spatial axes flattened to one, gathered at [windows, kernel] (channels last) or [kernel, windows] (first)."""
    site = b.site
    batch, channel, spatial = (axes_of(site, role) for role in ("batch", "channel", "spatial"))
    x = padded(b, b.source)
    last = bool(channel) and min(channel) > max(spatial)
    order = [*batch, *spatial, *channel] if last else [*batch, *channel, *spatial]
    x = b.transpose(x, order)
    n = product(count_of(site, i) for i in batch)
    c = product(size_of(site, i) for i in channel)
    places = product(size_of(site, i, padded=True) for i in spatial)
    rows, kernel = product(count_of(site, i) for i in spatial), product(Dim(site.axes[i].kernel) for i in spatial)
    x = b.reshape(x, (n, places, c) if last else (n, c, places))
    index = _index(b, spatial, last)
    at = 1 if last else 2
    dims = (n, rows * kernel, c) if last else (n, c, kernel * rows)
    x = b.op("Gather", [x, index], dims, axis=at)
    if last:
        x = b.reshape(x, (n, rows, kernel * c))
        columns = [*spatial, *channel]
    else:
        x = b.reshape(x, (n, c * kernel, rows))
        columns = [*channel, *spatial]
        if site.quantized is not None and site.quantized[1].ndim:
            return _weight_first(b, x, columns_weight(site, columns), (n, Dim(site.out_channels), rows))
        x = b.transpose(x, (0, 2, 1))
    weight = b.weight(columns_weight(site, columns), 1)
    y = b.op("MatMul", [x, weight], (n, rows, Dim(site.out_channels)))
    return add_bias(b, y), [tuple(batch), tuple(spatial), (len(site.axes),)]


def _weight_first(b: SiteBuilder, x: ir.Value, index: np.ndarray, dims: Dims) -> tuple[ir.Value, Groups]:
    """The weight as the left operand: onnxruntime makes no MatMulNBits of that (see :meth:`SiteBuilder.weight`)."""
    site = b.site
    y = scale(b, b.op("MatMul", [b.weight(np.ascontiguousarray(index.T), 0), x], dims))
    if site.bias is not None:
        y = b.op("Add", [y, b.constant(site.bias.reshape(-1, 1), "bias_column")], dims)
    return y, [tuple(axes_of(site, "batch")), (len(site.axes),), tuple(axes_of(site, "spatial"))]


def _index(b: SiteBuilder, spatial: list[int], last: bool) -> ir.Value:
    """The flat spatial index of every window's every element, int64 [windows * kernel]."""
    site = b.site
    axes = [site.axes[i] for i in spatial]
    sizes = [size_of(site, i, padded=True) for i in spatial]
    if all(size.static for size in sizes):
        window = Window(
            tuple(a.kernel for a in axes),
            tuple(a.stride for a in axes),
            (0,) * (2 * len(axes)),
            tuple(a.dilation for a in axes),
        )
        table = window.gather([size.number for size in sizes]) - 1  # [*windows, *kernel]
        table = table[tuple(slice(a.count) for a in axes)].reshape(-1, np.prod([a.kernel for a in axes], dtype=int))
        return b.constant((table if last else table.T).reshape(-1), "index")
    return _run_time_index(b, spatial, sizes, last)


def _run_time_index(b: SiteBuilder, spatial: list[int], sizes: list[Dim], last: bool) -> ir.Value:
    """The same, computed from the input's shape: row index times width plus column index."""
    site, rank, total = b.site, len(spatial), None
    for at, i in enumerate(spatial):
        axis = site.axes[i]
        starts = _range(b, count_of(site, i) * Dim(axis.stride), axis.stride)
        shape = [1] * (2 * rank)
        shape[at if last else rank + at] = -1
        starts = b.op("Reshape", [starts, b.constant(np.asarray(shape, np.int64), "shape")], None, ir.DataType.INT64)
        shape = [1] * (2 * rank)
        shape[rank + at if last else at] = axis.kernel
        steps = b.constant((np.arange(axis.kernel) * axis.dilation).reshape(shape), "steps")
        places = b.op("Add", [starts, steps], None, ir.DataType.INT64)
        stride = product(sizes[at + 1 :])
        if at + 1 < rank:
            places = b.op("Mul", [places, b.number(stride)], None, ir.DataType.INT64)
        total = places if total is None else b.op("Add", [total, places], None, ir.DataType.INT64)
    return b.op("Reshape", [total, b.constant(np.asarray([-1], np.int64), "shape")], None, ir.DataType.INT64)


def _range(b: SiteBuilder, end: Dim, step: int) -> ir.Value:
    """0, step, 2 step ... below ``end``."""
    scalars = [b.constant(np.asarray(v, np.int64), n) for v, n in ((0, "start"), (step, "step"))]
    nothing = b.constant(np.asarray([], np.int64), "shape")
    stop = b.op("Reshape", [b.number(end), nothing], (), ir.DataType.INT64)
    return b.op("Range", [scalars[0], stop, scalars[1]], None, ir.DataType.INT64)
