"""Operators of com.microsoft.nchwc, which onnxruntime writes at optimization level "all" for every Conv net on a CPU.

Their tensors have the shape [N, C, H, W], C a multiple of the block size b (channels of zeros behind the last), and lie in
memory as [N, C/b, H, W, b]. That order is kept here as movement, for any other operator may read such a tensor as it lies.
The file does not say b. It is read with that of this machine, as onnxruntime does, and that is an assumption.

Source: https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/contrib_ops/cpu/nchwc_ops.cc and, for the order of
the weights, onnxruntime/core/mlas/lib/reorder.cpp (MlasReorderFilterOIHWBiBo, MlasReorderFilterOIHWBo)
"""

from __future__ import annotations

import dataclasses
import functools
import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Undecided, Untaught
from graphcheck.kernel.ops import contraction, contrib, reduction, resizing, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value
from graphcheck.kernel.ops.node import Node

DOMAIN = "com.microsoft.nchwc"


@functools.cache
def machine_block() -> int | None:
    """Channels of a block in onnxruntime on this machine: 16 with AVX-512 and on 64-bit Arm, 8 on other x86-64; else None.

    Source: onnxruntime/core/mlas/lib/platform.cpp
    """
    kind = platform.machine().lower()
    if kind in ("aarch64", "arm64"):
        return 16
    if kind not in ("x86_64", "amd64"):
        return None
    from numpy._core._multiarray_umath import __cpu_features__ as features

    return 16 if features.get("AVX512F", False) else 8


def block_size(m: Algebra, node: Node, channels: int = 0) -> int:
    """The block size, an assumption; raises :class:`Undecided` where it does not divide ``channels`` of a blocked tensor."""
    size = machine_block()
    if size is None or channels % size:
        here = "no blocks of channels" if size is None else f"blocks of {size} channels, no divisor of {channels},"
        raise Undecided(f"{DOMAIN}.{node.op_type}: onnxruntime has {here} on this kind of machine", node.name)
    m.assumptions.add(f"{DOMAIN} tensors lie in blocks of {size} channels, as onnxruntime has them on this machine")
    return size


def blocked(m: Algebra, x: Some, b: int) -> Tensor:
    """[N, C, H, W] as it lies in blocks: [N, C/b, H, W, b] under the same four sizes."""
    n, c, h, w = x.shape
    return m.reshape(m.transpose(m.reshape(x, (n, c // b, b, h, w)), (0, 1, 3, 4, 2)), x.shape)


def plain(m: Algebra, node: Node, x: Some) -> Tensor:
    """[N, C, H, W] out of its blocks."""
    n, c, h, w = x.shape
    b = block_size(m, node, c)
    return m.reshape(m.transpose(m.reshape(x, (n, c // b, h, w, b)), (0, 1, 4, 2, 3)), x.shape)


def reorder_input(m: Algebra, node: Node, x: Some) -> Some:
    """[N, C, H, W], or [N, H, W, C] with ``channels_last``, into blocks, zeros behind the last channel."""
    x = m.transpose(x, (0, 3, 1, 2)) if node.attr("channels_last", 0) else x
    b = block_size(m, node)
    return blocked(m, _filled(m, x, np.zeros((x.shape[0], -x.shape[1] % b, *x.shape[2:]), x.dtype)), b)


def reorder_output(m: Algebra, node: Node, x: Some) -> Some:
    """The first ``channels`` out of the blocks, as [N, H, W, C] with ``channels_last``."""
    count = node.attr("channels", 0)
    if not 0 <= x.shape[1] - count < block_size(m, node, x.shape[1]):
        raise Refused(f"ReorderOutput to {count} channels out of {x.shape[1]} in blocks is not defined", node.name)
    y = _channels(m, plain(m, node, x), 0, count)
    return m.transpose(y, (0, 2, 3, 1)) if node.attr("channels_last", 0) else y


def _channels(m: Algebra, x: Some, start: int, stop: int) -> Tensor:
    """Channels from ``start`` to before ``stop``."""
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)[:, start:stop]
    return m.lift(x) if index.shape == x.shape else m.pick(x, np.ascontiguousarray(index), index.shape)


def _filled(m: Algebra, x: Some, rest: Some) -> Tensor:
    """``rest`` behind the channels of ``x``."""
    ends = np.cumsum([1, math.prod(x.shape), math.prod(rest.shape)])
    parts = [np.arange(*ends[i : i + 2]).reshape(part.shape) for i, part in enumerate((x, rest))]
    index = np.concatenate(parts, axis=1)
    return m.join((x, rest), index, index.shape, x.dtype) if rest.shape[1] else m.lift(x)


def filters(w: np.ndarray, b: int, both: bool) -> np.ndarray:
    """Weights [M, C, kH, kW] in their order in the file: [M/b, C/b, kH, kW, b, b] if ``both``, else [M/b, C, kH, kW, b]."""
    many, c, kh, kw = w.shape
    inner = b if both else 1
    apart = w.reshape(many // b, c // inner, kh, kw, inner, b).transpose(0, 5, 1, 4, 2, 3)
    return np.ascontiguousarray(apart).reshape(w.shape)


def conv(m: Algebra, node: Node, x: Some, w: Some, b: Value = None, z: Value = None) -> Some:
    """activation(Conv(x, w, b) + z); fewer input channels than a block are not blocked.

    Trailing filters of zeros without a bias are those that fill a block: they are not multiplied, and neither are input
    channels that meet zeros only.
    """
    if not isinstance(w, np.ndarray) or isinstance(b, Tensor) or w.ndim != 4 or not np.isfinite(w).all():
        raise Untaught("a Conv in blocks whose weights are not constant and finite", node.name)
    groups, size = node.attr("group", 1), block_size(m, node, w.shape[0])
    by_channel, whole = w.shape[:2] == (groups, 1), x.shape[1] < size and groups == 1
    x, both = m.lift(x) if whole else plain(m, node, x), not whole and not by_channel
    if both and (w.shape[1] % size or w.shape[0] // groups % size):
        raise Untaught(f"a Conv in blocks of {w.shape[1]} channels in {groups} groups", node.name)
    w = filters(w, size, both)
    if x.shape[1] != w.shape[1] * groups or (b is not None and b.size != len(w)):
        raise Refused(f"Conv of {list(x.shape)} by {list(w.shape)} in {groups} groups is not defined", node.name)
    bias = np.zeros(len(w), w.dtype) if b is None else b.reshape(-1)
    used = np.asarray(w.any(axis=(1, 2, 3)) | (bias != 0))
    count = len(used) if groups > 1 and not by_channel else _until(used)
    if groups == 1:
        reach = _until(np.asarray(w.any(axis=(0, 2, 3))))
        x, w = _channels(m, x, 0, reach), w[:, :reach]
    elif by_channel:
        x, groups = _channels(m, x, 0, count), count
    alone = dataclasses.replace(node, attributes={**node.attributes, "group": groups})
    y = contraction.conv(m, alone, x, w[:count], None if b is None else bias[:count])
    rest: Some = np.zeros((y.shape[0], len(used) - count, *y.shape[2:]), y.dtype)
    if z is not None:
        if z.shape != (*y.shape[:1], len(used), *y.shape[2:]):
            raise Refused(f"a sum of {list(z.shape)} to a Conv that gives {list(y.shape)} is not defined", node.name)
        z = plain(m, node, z)
        y, rest = m.add(y, _channels(m, z, 0, count)), _channels(m, z, count, len(used))
    y = contrib.activation(m, node, y)
    return blocked(m, _filled(m, y, contrib.activation(m, node, m.lift(rest)) if rest.shape[1] else rest), size)


def _until(used: np.ndarray) -> int:
    """The count up to the last that is used, at least one."""
    return int(np.flatnonzero(used)[-1]) + 1 if used.any() else 1


def pool(op: Callable[..., Some]) -> Callable[..., Some]:
    """A pooling operator of ONNX on the channels out of their blocks."""

    def checked(m: Algebra, node: Node, x: Some) -> Some:
        average = node.op_type == "AveragePool"
        if average and (node.attr("ceil_mode", 0) or any(d != 1 for d in node.attr("dilations") or ())):
            raise Untaught("AveragePool in blocks with dilations or ceil_mode", node.name)
        x = plain(m, node, x)
        return blocked(m, op(m, node, x), block_size(m, node, x.shape[1]))

    return checked


_COORDINATES = {"nearest": ("asymmetric",), "linear": ("asymmetric", "align_corners", "half_pixel")}


def upsample(m: Algebra, node: Node, x: Some) -> Some:
    """Resize by whole factors: nearest takes the floor, linear is by ``coordinate_transformation_mode``."""
    how, mode = node.attr("coordinate_transformation_mode", "asymmetric"), node.attr("mode", "nearest")
    scales = np.asarray(node.attr("scales"), np.float32)
    if how not in _COORDINATES.get(mode, ()) or scales.shape != (4,) or (scales[:2] != 1).any():
        raise Untaught(f"Upsample in blocks by {mode} and {scales.tolist()}", node.name)
    attributes = {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": "floor"}
    resize = dataclasses.replace(node, domain="", op_type="Resize", version=13, attributes=attributes, source=None)
    y: Any = resizing.resize(m, resize, plain(m, node, x), None, scales)
    return blocked(m, y, block_size(m, node, x.shape[1]))


_POOL = "auto_pad kernel_shape dilations strides pads ceil_mode"
_CONV = "auto_pad kernel_shape dilations strides pads group activation activation_params"

_IMAGES: dict[str, Callable[..., Any]] = {
    "ReorderInput": contrib.guarded(reorder_input, "channels_last"),
    "ReorderOutput": contrib.guarded(reorder_output, "channels channels_last"),
    "AveragePool": contrib.guarded(pool(reduction.average_pool), f"{_POOL} count_include_pad"),
    "GlobalMaxPool": contrib.guarded(pool(reduction.global_pool("max")), ""),
    "GlobalAveragePool": contrib.guarded(pool(reduction.global_pool("mean")), ""),
    "Upsample": contrib.guarded(upsample, "scales mode coordinate_transformation_mode"),
}
OPS: dict[str, Callable[..., Any]] = {
    **rows.ops(rows.first, _IMAGES),
    "Conv": rows.Op(contrib.guarded(conv, _CONV), rows.batched((0, 3))),
    "MaxPool": rows.Op(contrib.guarded(pool(reduction.max_pool), f"{_POOL} storage_order"), rows.pooled),
}
