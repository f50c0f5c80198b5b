"""Kernels as libraries of devices have them, honest and unlike the textbook: one-pass variances, Winograd, folded statistics,
everything rounded to float16 on the way.

Each takes a node and its operands in float32, and gives the results in float32; None where it is not made for the node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from tests.zoo.editing import attribute

Made = list[np.ndarray] | None
Kernel = Callable[[onnx.NodeProto, Sequence[Any]], Made]
F32, F16 = np.float32, np.float16


def _half(x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(x, F16).astype(F32)


def _sum_half(x: np.ndarray, axis: int) -> np.ndarray:
    """One after the other, each sum rounded."""
    total = np.zeros_like(np.take(x, 0, axis))
    for part in np.moveaxis(x, axis, 0):
        total = _half(total + part)
    return total


def softmax_half(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """Every step in float16."""
    x, axis = inputs[0], attribute(node, "axis", -1)
    e = _half(np.exp(_half(x - x.max(axis=axis, keepdims=True))))
    return [_half(e / np.expand_dims(_sum_half(e, axis), axis))]


def normalization_half(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """LayerNormalization, every step in float16."""
    x, scale, *rest = inputs
    if attribute(node, "axis", -1) not in (-1, x.ndim - 1) or len(node.output) > 1:
        return None
    n = x.shape[-1]
    mean = _half(_sum_half(x, -1) / F32(n))[..., None]
    away = _half(x - mean)
    variance = _half(_sum_half(_half(away * away), -1) / F32(n))[..., None]
    y = _half(away * _half(1 / _half(np.sqrt(_half(variance + F32(attribute(node, "epsilon", 1e-5)))))))
    y = _half(y * _half(scale))
    return [_half(y + _half(rest[0])) if rest else y]


def normalization_in_one_pass(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """The mean of the squares less the square of the mean, in float32."""
    x, scale, *rest = inputs
    if attribute(node, "axis", -1) not in (-1, x.ndim - 1) or len(node.output) > 1:
        return None
    mean = x.mean(axis=-1, keepdims=True, dtype=F32)
    variance = np.maximum((x * x).mean(axis=-1, keepdims=True, dtype=F32) - mean * mean, F32(0))
    y = (x - mean) * (1 / np.sqrt(variance + F32(attribute(node, "epsilon", 1e-5)))).astype(F32) * scale
    return [np.asarray(y + rest[0] if rest else y, F32)]


def mean_half(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """ReduceMean over the last axis, summed in float16."""
    x = inputs[0]
    axes = attribute(node, "axes") or (list(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None)
    if not axes or len(axes) != 1 or not attribute(node, "keepdims", 1) or x.dtype != F32:
        return None
    return [_half(np.expand_dims(_sum_half(x, axes[0]), axes[0]) / F32(x.shape[axes[0]]))]


def statistics_folded(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """BatchNormalization as a factor and a summand that were folded, and rounded to float16, before."""
    x, scale, bias, mean, variance = inputs
    factor = scale / np.sqrt(variance + F32(attribute(node, "epsilon", 1e-5)))
    summand = _half(bias - mean * factor)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return [np.asarray(x * _half(factor).reshape(shape) + summand.reshape(shape), F32)]


def sigmoid_by_tanh(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """Half of a tanh and a half, in float32."""
    return [np.asarray(F32(0.5) * np.tanh(inputs[0] * F32(0.5)) + F32(0.5), F32)]


def exp_by_powers_of_two(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """2 to the x log2 e, the product rounded to float32."""
    with np.errstate(all="ignore"):
        return [np.exp2(inputs[0] * F32(1.44269504)).astype(F32)]


def softmax_by_powers_of_two(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """Scaled by log2 e first, as attention kernels do, and divided by a reciprocal."""
    x, axis = inputs[0] * F32(1.44269504), attribute(node, "axis", -1)
    with np.errstate(all="ignore"):
        e = np.exp2(x - x.max(axis=axis, keepdims=True)).astype(F32)
    return [np.asarray(e * (1 / e.sum(axis=axis, keepdims=True, dtype=F32)).astype(F32), F32)]


def erf_by_polynomial(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """Abramowitz and Stegun 7.1.26, off by 1.5e-7."""
    x = inputs[0]
    t = 1 / (1 + F32(0.3275911) * np.abs(x))
    p = t * (
        F32(0.254829592)
        + t * (F32(-0.284496736) + t * (F32(1.421413741) + t * (F32(-1.453152027) + t * F32(1.061405429))))
    )
    return [np.asarray(np.sign(x) * (1 - p * np.exp(-x * x)), F32)]


def division_by_reciprocal(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
    """A product with a reciprocal that is rounded before."""
    a, b = inputs
    if a.dtype != F32:
        return None
    with np.errstate(all="ignore"):
        return [np.asarray(a * (1 / b).astype(F32), F32)]


# Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016: F(2x2, 3x3) and F(4x4, 3x3).
_WINOGRAD: dict[int, tuple[list[list[float]], list[list[float]], list[list[float]]]] = {
    2: (
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}


def winograd(tile: int) -> Kernel:
    """Convolutions of 3x3 and stride 1 by Winograd's tiles, in float32."""
    inward, filters, outward = (np.asarray(m, F32) for m in _WINOGRAD[tile])

    def kernel(node: onnx.NodeProto, inputs: Sequence[Any]) -> Made:
        x, w = inputs[:2]
        plain = x.ndim == 4 and w.shape[2:] == (3, 3) and attribute(node, "group", 1) == 1
        if not plain or attribute(node, "strides", [1, 1]) != [1, 1] or attribute(node, "dilations", [1, 1]) != [1, 1]:
            return None
        top, left, bottom, right = attribute(node, "pads", [0, 0, 0, 0])
        rows, columns = x.shape[2] + top + bottom - 2, x.shape[3] + left + right - 2
        tall, wide = -(-rows // tile), -(-columns // tile)
        more = (tall * tile - rows, wide * tile - columns)
        padded = np.pad(x, [(0, 0), (0, 0), (top, bottom + more[0]), (left, right + more[1])])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (tile + 2, tile + 2), (2, 3))[:, :, ::tile, ::tile]
        moved = (inward @ windows @ inward.T).astype(F32)  # [n, c, tall, wide, t, t]
        turned = (filters @ w @ filters.T).astype(F32)  # [d, c, t, t]
        summed = np.einsum("nchwij,dcij->ndhwij", moved, turned, dtype=F32)
        made = (outward @ summed @ outward.T).astype(F32).swapaxes(3, 4)  # [n, d, tall, tile, wide, tile]
        y = made.reshape(len(x), len(w), tall * tile, wide * tile)[:, :, :rows, :columns]
        bias = inputs[2] if len(inputs) > 2 and inputs[2] is not None else None
        return [np.ascontiguousarray(y if bias is None else y + bias.reshape(-1, 1, 1))]

    return kernel


HALF: dict[str, Kernel] = {"Softmax": softmax_half, "LayerNormalization": normalization_half, "ReduceMean": mean_half}
LIBRARY: dict[str, Kernel] = {
    "LayerNormalization": normalization_in_one_pass,
    "Sigmoid": sigmoid_by_tanh,
    "Exp": exp_by_powers_of_two,
    "Softmax": softmax_by_powers_of_two,
    "Erf": erf_by_polynomial,
    "Div": division_by_reciprocal,
}
