"""Fourier transforms, and what undoes im2col. Sources: https://onnx.ai/onnx/operators/onnx__DFT.html (17, 20), STFT (17),
Col2Im (18)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Untaught
from graphcheck.kernel.geometry import Window
from graphcheck.kernel.ops import rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of
from graphcheck.kernel.ops.node import Node


def _whole(node: Node, *values: Value) -> list[int]:
    """Sizes that an operator takes as inputs, which must be known."""
    if any(not isinstance(x, np.ndarray) for x in values):
        raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    return [int(x.reshape(-1)[0]) for x in values if isinstance(x, np.ndarray)]


def _transform(m: Algebra, x: Tensor, count: int, sign: int, scale: float) -> Tensor:
    """sum over n of x [..., n, 1 or 2] e^(sign 2 pi i k n / N) for the first ``count`` k, times ``scale``: [..., count, 2]."""
    n, parts = x.shape[-2:]
    angles = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(count)) % n)
    cos, sin = (np.where(np.abs(t) < 1e-12, 0.0, t) * scale for t in (np.cos(angles), sign * np.sin(angles)))
    rows = [np.stack([cos, sin], -1), np.stack([-sin, cos], -1)][:parts]
    weight = np.stack(rows, 1).reshape(n * parts, count * 2)
    y = m.matmul(m.reshape(x, (*x.shape[:-2], n * parts)), weight)
    return m.reshape(Tensor(y.cls, y.shape, x.dtype), (*x.shape[:-2], count, 2))


def dft(m: Algebra, node: Node, x: Some, length: Value = None, axis: Value = None) -> Some:
    """The discrete Fourier transform along an axis of [..., 1 or 2], cut or filled with zeros to ``length``."""
    default = node.attr("axis", 1) if node.version < 20 else -2
    at = axis_of(x, default if axis is None else _whole(node, axis)[0])
    back, one_sided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    if (back and one_sided) or at == len(x.shape) - 1:
        raise Untaught("DFT that is inverse and onesided, or along the parts of its numbers", node.name)
    order = [*(i for i in range(len(x.shape)) if i != at)]
    moved = m.transpose(x, [*order[:-1], at, order[-1]])
    n = moved.shape[-2] if length is None else _whole(node, length)[0]
    if n != moved.shape[-2]:
        index = np.arange(1, 1 + math.prod(moved.shape)).reshape(moved.shape)[..., :n, :]
        index = np.pad(index, [*[(0, 0)] * (index.ndim - 2), (0, n - index.shape[-2]), (0, 0)])
        moved = m.pick(moved, index, index.shape)
    y = _transform(m, moved, n // 2 + 1 if one_sided else n, 1 if back else -1, 1 / n if back else 1.0)
    rank = len(y.shape)
    return m.transpose(y, [*range(at), rank - 2, *range(at, rank - 2), rank - 1])


def stft(m: Algebra, node: Node, x: Some, step: Some, window: Value = None, length: Value = None) -> Some:
    """The DFT of each frame of a signal [batch, n, 1 or 2], times a window: [batch, frames, frequencies, 2]."""
    if window is None and length is None:
        raise Refused("STFT has neither a window nor a length", node.name)
    size = _whole(node, length)[0] if length is not None else window.shape[0]  # type: ignore[union-attr]
    starts = np.arange(0, x.shape[1] - size + 1, _whole(node, step)[0])
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)[:, starts[:, None] + np.arange(size)]
    frames: Some = m.pick(x, index, index.shape)
    frames = frames if window is None else m.mul(frames, m.reshape(window, (size, 1)))
    return _transform(m, m.lift(frames), size // 2 + 1 if node.attr("onesided", 1) else size, -1, 1.0)


def col2im(m: Algebra, node: Node, x: Some, image: Some, block: Some) -> Some:
    """Columns [batch, channels * block, L] added up where they come from: [batch, channels, *image]."""
    _whole(node, image, block)
    spatial, kernel = (tuple(int(n) for n in np.asarray(v).reshape(-1)) for v in (image, block))
    at = Window.resolve({**node.attributes, "kernel_shape": kernel}, spatial).gather(spatial)
    at = at.reshape(-1, math.prod(kernel)).T.reshape(-1)  # [block * L]: where each column entry belongs, 0 for padding
    if x.shape[1] % math.prod(kernel) or at.size != math.prod(kernel) * x.shape[2]:
        raise Refused(f"Col2Im of {list(x.shape)} to {list(spatial)} is not defined", node.name)
    order = np.argsort(at, kind="stable")
    places, counts = np.unique(at[order], return_counts=True)
    table = np.zeros((math.prod(spatial), int(counts[places > 0].max(initial=1))), np.int64)
    for place, start, count in zip(places, np.cumsum(counts) - counts, counts, strict=True):
        if place:
            table[place - 1, :count] = order[start : start + count] + 1
    images = x.shape[0] * x.shape[1] // math.prod(kernel)
    index = np.where(table > 0, table + at.size * np.arange(images)[:, None, None], 0)
    return m.reshape(m.sum(m.pick(x, index, index.shape), [2], False), (x.shape[0], -1, *spatial))


OPS: dict[str, Callable[..., Any]] = {
    "DFT": rows.Op(dft, rows.transform),
    "STFT": rows.Op(stft, rows.first),
    "Col2Im": rows.Op(col2im, rows.first),
}
