"""Operators of com.microsoft that onnxruntime's optimizers write: each expanded into what it was fused from.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Untaught
from graphcheck.kernel.ops import arithmetic, contraction, decoders, quantized, reduction, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, shaped
from graphcheck.kernel.ops.node import Node


def fused_matmul(m: Algebra, node: Node, a: Some, b: Some) -> Some:
    """alpha * op(A) @ op(B)."""
    return contraction.scaled(m, m.matmul(_side(m, node, a, "A"), _side(m, node, b, "B")), node.attr("alpha", 1.0))


def _side(m: Algebra, node: Node, x: Some, side: str) -> Some:
    """transBatch rotates the leading axes, [b0, b1, m, k] from [b1, m, b0, k]; then trans swaps the last two."""
    rank = len(x.shape)
    if node.attr(f"transBatch{side}", 0):
        x = m.transpose(x, [*range(1, rank - 1), 0, rank - 1])
    if node.attr(f"trans{side}", 0) and rank > 1:
        x = m.transpose(x, [*range(rank - 2), rank - 1, rank - 2])
    return x


_PARAMETERS = {"LeakyRelu": ("alpha",), "Clip": ("min", "max"), "HardSigmoid": ("alpha", "beta")}


def activation(m: Algebra, node: Node, y: Some) -> Some:
    """The ``activation`` attribute of FusedConv and FusedGemm; one that is not known is an unknown function."""
    name = node.attr("activation", "")
    if not name:
        return y
    apart = [node.attr(f"activation_{letter}") for letter in ("alpha", "beta", "gamma")]
    given = node.attr("activation_params") or [value for value in apart if value is not None]
    names = _PARAMETERS.get(name, ())
    alone = dataclasses.replace(node, op_type=name, attributes=dict(zip(names, given, strict=False)))
    if name not in arithmetic.OPS or len(given) > len(names):
        m.assumptions.add(f"the activation {name} of {node.op_type} is taken as an unknown function")
        y = m.lift(y)
        whole = {"activation_params": tuple(float(value) for value in given)}
        alone = Node("com.microsoft", name, 1, node.name, whole, 1, 1, (True,), (True,))
        return m.unknown(alone.key(), [y], 0, y.shape, y.dtype)
    return arithmetic.OPS[name](m, alone, y)  # type: ignore[no-any-return]


def fused_conv(m: Algebra, node: Node, x: Some, w: Some, b: Value = None, z: Value = None) -> Some:
    """activation(Conv(x, w, b) + z)."""
    y = contraction.conv(m, node, x, w, b)
    return activation(m, node, y if z is None else m.add(y, shaped(node, z, y.shape)))


def fused_gemm(m: Algebra, node: Node, a: Some, b: Some, c: Value = None) -> Some:
    """activation(Gemm(a, b, c))."""
    return activation(m, node, contraction.gemm(m, node, a, b, c))


def gelu(m: Algebra, node: Node, x: Some, bias: Value = None) -> Some:
    """Gelu(x + bias) by Erf."""
    plain = dataclasses.replace(node, attributes={})
    return arithmetic.gelu(m, plain, x if bias is None else m.add(x, shaped(node, bias, x.shape[-1:])))


def fast_gelu(m: Algebra, node: Node, x: Some, bias: Value = None) -> Some:
    """Gelu(x + bias) by Tanh."""
    plain = dataclasses.replace(node, attributes={"approximate": "tanh"})
    return arithmetic.gelu(m, plain, x if bias is None else m.add(x, shaped(node, bias, x.shape[-1:])))


def quick_gelu(m: Algebra, node: Node, x: Some) -> Some:
    """x * Sigmoid(alpha x)."""
    return m.mul(x, m.sigmoid(m.mul(m.scalar(node.attr("alpha", 1.702), x), x)))


def skip_layer_normalization(
    m: Algebra, node: Node, x: Some, skip: Some, gamma: Some, beta: Value = None, bias: Value = None
) -> tuple[Value, ...]:
    """LayerNormalization(x + skip + bias); outputs y, mean, 1/deviation, the sum."""
    return _skipped(m, node, x, skip, gamma, beta, bias, reduction.layer_normalization)


def skip_simplified(m: Algebra, node: Node, x: Some, skip: Some, gamma: Some, bias: Value = None) -> tuple[Value, ...]:
    """RMSNormalization(x + skip + bias)."""
    return _skipped(
        m, node, x, skip, gamma, None, bias, lambda m, n, x, g, _: (reduction.rms_normalization(m, n, x, g),)
    )


def _skipped(
    m: Algebra, node: Node, x: Some, skip: Some, gamma: Some, beta: Value, bias: Value, norm: Callable[..., Any]
) -> tuple[Value, ...]:
    shaped(node, skip, x.shape, *([x.shape[1:], (1, *x.shape[1:])] if len(x.shape) == 3 else []))
    for parameter in (p for p in (gamma, beta, bias) if p is not None):
        shaped(node, parameter, x.shape[-1:])
    total = m.add(x, skip)
    total = total if bias is None else m.add(total, bias)
    plain = dataclasses.replace(node, attributes={"epsilon": node.attr("epsilon", 1e-12)}, n_outputs=3)
    y, *more = norm(m, plain, total, gamma, beta)
    more = [*more, None, None][:2]
    return (y, *more, total)[: node.n_outputs]


def attention(
    m: Algebra,
    node: Node,
    x: Some,
    w: Some,
    b: Value = None,
    mask: Value = None,
    past: Value = None,
    bias: Value = None,
    length: Value = None,
) -> Some:
    """Self-attention with one projection [hidden, 3 * hidden] for q, k and v."""
    odd = any(x is not None for x in (mask, past, length))
    if odd or node.attr("unidirectional", 0) or node.attr("do_rotary", 0):
        raise Untaught("Attention with a mask, a past or rotary embedding", node.name)
    qkv: Some = m.matmul(x, w)
    qkv = qkv if b is None else m.add(qkv, shaped(node, b, qkv.shape[-1:]))
    width = qkv.shape[-1]
    sizes = node.attr("qkv_hidden_sizes") or [width // 3] * 3
    starts = np.cumsum([0, *sizes])
    index = np.arange(1, 1 + int(np.prod(qkv.shape))).reshape(qkv.shape)
    q, k, v = (m.pick(qkv, index[..., lo:hi], (*qkv.shape[:-1], hi - lo)) for lo, hi in itertools.pairwise(starts))
    return scaled_dot(m, node, q, k, v, bias)


def multi_head_attention(
    m: Algebra,
    node: Node,
    q: Some,
    k: Value = None,
    v: Value = None,
    b: Value = None,
    mask: Value = None,
    bias: Value = None,
    *rest: Value,
) -> Some:
    """Attention on projected [batch, length, hidden] tensors."""
    odd = mask is not None or any(r is not None for r in rest) or node.attr("unidirectional", 0)
    if k is None or v is None or odd or len(k.shape) != 3:
        raise Untaught("MultiHeadAttention with packed inputs, a mask or a past", node.name)
    if b is not None:
        sizes = np.cumsum([0, q.shape[-1], k.shape[-1], v.shape[-1]])
        flat = m.lift(b)
        index = np.arange(1, 1 + flat.shape[0])
        q, k, v = (
            m.add(x, m.pick(flat, index[lo:hi], (hi - lo,)))
            for x, lo, hi in zip((q, k, v), sizes, sizes[1:], strict=False)
        )
    return scaled_dot(m, node, q, k, v, bias)


def scaled_dot(m: Algebra, node: Node, q: Some, k: Some, v: Some, bias: Value) -> Some:
    """Softmax(scale q k^T + bias) v over ``num_heads`` heads; scale is 1/Sqrt(head size) unless given."""
    heads = node.attr("num_heads")

    def split(x: Some) -> Tensor:
        return m.transpose(m.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)), (0, 2, 1, 3))

    qh, kh, vh = split(q), split(k), split(v)
    given = node.attr("scale", 0.0)
    scale = np.asarray(given if given else 1 / np.sqrt(np.float64(qh.shape[-1])), np.float32).astype(q.dtype)
    for x in (k, v):
        shaped(node, x, (q.shape[0], *x.shape[1:]))
    scores: Some = m.mul(m.matmul(qh, m.transpose(kh, (0, 1, 3, 2))), scale)
    if bias is not None:
        legal = [(b, h, *scores.shape[2:]) for b in (scores.shape[0], 1) for h in (scores.shape[1], 1)]
        scores = m.add(scores, shaped(node, bias, *legal))
    y = m.transpose(m.matmul(m.along("softmax", scores, -1), vh), (0, 2, 1, 3))
    return m.reshape(y, (y.shape[0], y.shape[1], -1))


def guarded(op: Callable[..., Any], known: str) -> Callable[..., Any]:
    """``op``, untaught where the node has an attribute that it does not know: nobody else checks this domain."""

    def checked(m: Algebra, node: Node, *xs: Value) -> Any:
        if strange := set(node.attributes) - set(known.split()):
            raise Untaught(f"{node.op_type} with the attribute {min(strange)}", node.name)
        return op(m, node, *xs)

    return checked


_CONV = "auto_pad dilations group kernel_shape pads strides activation activation_params"
_GEMM = "alpha beta transA transB activation activation_alpha activation_beta activation_gamma"
_ATTENTION = "num_heads qkv_hidden_sizes scale unidirectional do_rotary mask_filter_value past_present_share_buffer"
_HEADS = "num_heads scale unidirectional mask_filter_value"
_MATMUL = "alpha transA transB transBatchA transBatchB"

_ENTRIES: dict[str, tuple[Callable[..., Any], str, rows.Rule]] = {
    "FusedMatMul": (fused_matmul, _MATMUL, rows.fused_product),
    "TransposeMatMul": (fused_matmul, _MATMUL, rows.fused_product),
    "FusedConv": (fused_conv, _CONV, rows.batched((0, 3))),
    "FusedGemm": (fused_gemm, _GEMM, rows.gemm),
    "Gelu": (gelu, "", rows.elementwise),
    "BiasGelu": (gelu, "", rows.elementwise),
    "FastGelu": (fast_gelu, "", rows.elementwise),
    "QuickGelu": (quick_gelu, "alpha", rows.elementwise),
    "SkipLayerNormalization": (skip_layer_normalization, "epsilon", rows.skipped),
    "SkipSimplifiedLayerNormalization": (skip_simplified, "epsilon", rows.skipped),
    "Attention": (attention, _ATTENTION, rows.attention),
    "MultiHeadAttention": (multi_head_attention, _HEADS, rows.batched((0, 1, 2, 4, 6, 7), also=(5, 9))),
    **quantized.CONTRIB,
    **decoders.CONTRIB,
}
OPS: dict[str, Callable[..., Any]] = {
    name: rows.Op(guarded(op, known), rule) for name, (op, known, rule) in _ENTRIES.items()
}


def quantized_attention(
    m: Algebra,
    node: Node,
    x: Some,
    w: Some,
    b: Some,
    sx: Some,
    sw: Some,
    mask: Value = None,
    zx: Value = None,
    zw: Value = None,
    past: Value = None,
) -> Some:
    """QAttention: Attention over a quantized input and a quantized weight [hidden, 3 * hidden], scaled by column."""
    read = [
        arithmetic.dequantize(m, dataclasses.replace(node, attributes={"axis": 1}), *part)
        for part in ((x, sx, zx), (w, sw, zw))
    ]
    return attention(m, node, read[0], read[1], b, mask, past)


ERASED: dict[str, Callable[..., Any]] = {
    name: guarded(op, known)
    for name, (op, known) in {"QAttention": (quantized_attention, _ATTENTION), **quantized.ERASED}.items()
}


def _old(op: Callable[..., Any], known: str) -> Callable[..., Any]:
    """An operator that onnxruntime runs below operator set 10 alone."""

    def checked(m: Algebra, node: Node, *xs: Value) -> Any:
        if node.version >= 10:
            raise Untaught(f"{node.op_type} from operator set 10 on", node.name)
        return guarded(op, known)(m, node, *xs)

    return checked


def affine(m: Algebra, node: Node, x: Some) -> Some:
    """alpha x + beta."""
    return m.add(m.mul(x, m.scalar(node.attr("alpha", 1.0), x)), m.scalar(node.attr("beta", 0.0), x))


def scaled_tanh(m: Algebra, node: Node, x: Some) -> Some:
    """alpha Tanh(beta x)."""
    inner = m.ew("tanh", m.mul(x, m.scalar(node.attr("beta"), x)))
    return m.mul(inner, m.scalar(node.attr("alpha"), x))


def thresholded_relu(m: Algebra, node: Node, x: Some) -> Some:
    """x where it is above alpha, else 0."""
    above = arithmetic.greater(m, node, x, m.scalar(node.attr("alpha", 1.0), x))
    return m.where(above, x, m.scalar(0.0, x))


def image_scaler(m: Algebra, node: Node, x: Some) -> Some:
    """scale x + bias, a bias for each channel of [N, C, H, W]."""
    bias = np.asarray(node.attr("bias"), np.float32).reshape(-1, 1, 1)
    return m.add(contraction.scaled(m, x, node.attr("scale", 1.0)), bias)


# Operators that onnxruntime registers in ONNX's own domain, where ONNX has none of that name, not yet or no more.
# Source: onnxruntime/core/graph/contrib_ops/contrib_defs.cc and onnx_deprecated_operators.cc
IN_ONNX_DOMAIN: dict[str, Callable[..., Any]] = {
    "SimplifiedLayerNormalization": rows.Op(
        guarded(reduction.simplified_layer_normalization, "axis epsilon stash_type"), rows.off(rows.behind(-1))
    ),
    "ThresholdedRelu": rows.Op(guarded(thresholded_relu, "alpha"), rows.elementwise),
    "Affine": rows.Op(_old(affine, "alpha beta"), rows.elementwise),
    "Scale": rows.Op(
        _old(lambda m, node, x: contraction.scaled(m, x, node.attr("scale", 1.0)), "scale"), rows.elementwise
    ),
    "ScaledTanh": rows.Op(_old(scaled_tanh, "alpha beta"), rows.elementwise),
    "ImageScaler": rows.Op(_old(image_scaler, "scale bias"), rows.first),
}
