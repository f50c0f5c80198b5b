"""Operators of com.microsoft that decoders are made of by onnxruntime's model builder.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.errors import Untaught
from graphcheck.kernel.ops import erasing, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, shaped
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.values.bounds import dtype_of


def _rows(m: Algebra, node: Node, cache: Some, positions: Some) -> Some:
    """Rows [batch, length, n] of a table [positions, n]: what a Gather along axis 0 gives."""
    shape = (*positions.shape, cache.shape[1])
    if isinstance(positions, np.ndarray):
        if isinstance(cache, np.ndarray):
            return np.asarray(cache[positions])
        index = np.arange(1, 1 + math.prod(cache.shape)).reshape(cache.shape)[positions]
        return m.pick(cache, index, shape)
    gather = Node("", "Gather", 13, node.name, {"axis": 0}, 2, 1, (True, True), (True,))
    return m.unknown(gather.key(), [m.lift(cache), positions], 0, shape, cache.dtype)


def _parts(m: Algebra, x: Tensor, *widths: int, step: int = 1) -> list[Tensor]:
    """The last axis cut into parts; every ``step``-th element of it with a step."""
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    if step > 1:
        return [m.pick(x, index[..., i::step], (*x.shape[:-1], x.shape[-1] // step)) for i in range(step)]
    ends = np.cumsum(widths)
    return [m.pick(x, index[..., end - n : end], (*x.shape[:-1], n)) for n, end in zip(widths, ends, strict=True)]


def _join(m: Algebra, parts: list[Some], axis: int) -> Tensor:
    """Concat."""
    at, numbered = 1, []
    for part in parts:
        numbered.append(np.arange(at, at + math.prod(part.shape)).reshape(part.shape))
        at += math.prod(part.shape)
    index = np.concatenate(numbered, axis)
    return m.join(parts, index, index.shape, parts[0].dtype)


def rotated(m: Algebra, x: Tensor, cos: Some, sin: Some, interleaved: bool) -> Tensor:
    """x [batch, heads, length, size] with pairs of its first elements turned, by cos and sin [batch, length, n]."""
    n = cos.shape[-1]
    cos, sin = (m.reshape(t, (t.shape[0], 1, *t.shape[1:])) for t in (cos, sin))
    turned, rest = _parts(m, x, 2 * n, x.shape[-1] - 2 * n)
    a, b = _parts(m, turned, step=2) if interleaved else _parts(m, turned, n, n)
    pair = [m.sub(m.mul(a, cos), m.mul(b, sin)), m.add(m.mul(a, sin), m.mul(b, cos))]
    wide = [m.reshape(y, (*y.shape, 1) if interleaved else y.shape) for y in pair]
    y = m.reshape(_join(m, list(wide), -1), turned.shape)
    return _join(m, [y, rest], -1) if rest.shape[-1] else y


def _heads(m: Algebra, x: Some, heads: int) -> Tensor:
    """[batch, length, heads * size] as [batch, heads, length, size]."""
    return m.transpose(m.reshape(x, (*x.shape[:2], heads, x.shape[2] // heads)), (0, 2, 1, 3))


def _flat(m: Algebra, x: Tensor) -> Tensor:
    y = m.transpose(x, (0, 2, 1, 3))
    return m.reshape(y, (*y.shape[:2], -1))


def rotary_embedding(m: Algebra, node: Node, x: Some, positions: Some, cos: Some, sin: Some) -> Some:
    """Rotary position embedding of x [batch, length, hidden] or [batch, heads, length, size]."""
    width, heads = node.attr("rotary_embedding_dim", 0), node.attr("num_heads", 0)
    if node.attr("is_packed_batching", 0) or node.attr("scale", 1.0) != 1.0 or (width and not heads):
        raise Untaught("RotaryEmbedding that is packed, scaled, or of a part of heads that it does not count", node.name)
    y = m.lift(x) if len(x.shape) == 4 else _heads(m, x, heads or x.shape[2] // (2 * cos.shape[1]))
    if positions.shape in ((), (1,)):  # the position of the first
        first = positions.reshape(1, 1) if isinstance(positions, np.ndarray) else m.reshape(positions, (1, 1))
        positions = m.add(first, np.arange(y.shape[2])[None])
    else:
        shaped(node, positions, (y.shape[0], y.shape[2]))
    tables = [_rows(m, node, table, positions) for table in (cos, sin)]
    y = rotated(m, y, tables[0], tables[1], bool(node.attr("interleaved", 0)))
    return y if len(x.shape) == 4 else _flat(m, y)


def group_query_attention(
    m: Algebra, node: Node, q: Some, k: Value, v: Value, past_k: Value, past_v: Value, *rest: Value
) -> tuple[Some, ...]:
    """Causal attention of heads that share keys and values, on past ones and these; outputs y, keys, values.

    Taught where the lengths are known and all sequences of the batch are whole: nothing is padded.
    """
    heads, shared = node.attr("num_heads"), node.attr("kv_num_heads")
    lengths, total, cos, sin, *odd = (*rest, None, None)
    plain = node.attr("local_window_size", -1) == -1 and not (node.attr("softcap", 0.0) or node.attr("smooth_softmax", 0))
    if not isinstance(lengths, np.ndarray) or not isinstance(total, np.ndarray) or not plain or any(x is not None for x in odd):
        raise Untaught(f"{node.op_type} of lengths that depend on the inputs, or with a window or a softcap", node.name)
    size = q.shape[2] // (heads if k is not None else heads + 2 * shared)
    if k is None or v is None:
        q, k, v = _parts(m, m.lift(q), heads * size, shared * size, shared * size)
    past = 0 if past_k is None else past_k.shape[2]
    count = past + q.shape[1]
    if bool((lengths != count - 1).any()) or int(total.reshape(-1)[0]) != count:
        raise Untaught(f"{node.op_type} on padded sequences, or a past that is longer than it says", node.name)
    q, k, v = _heads(m, q, heads), _heads(m, k, shared), _heads(m, v, shared)
    if node.attr("do_rotary", 0) and cos is not None and sin is not None:
        at = np.arange(past, count)[None]
        tables = [_rows(m, node, table, at) for table in (cos, sin)]
        q, k = (rotated(m, x, tables[0], tables[1], bool(node.attr("rotary_interleaved", 0))) for x in (q, k))
    if past_k is not None and past_v is not None and past:
        k, v = _join(m, [past_k, k], 2), _join(m, [past_v, v], 2)
    scale = np.asarray(node.attr("scale", 0.0) or 1 / np.sqrt(np.float64(size)), np.float32).astype(q.dtype)
    shape = (k.shape[0], shared, heads // shared, count, size)
    wide = [m.expand(m.reshape(x, (*shape[:2], 1, *shape[3:])), shape) for x in (k, v)]
    keys, read = (m.reshape(x, (shape[0], heads, *shape[3:])) for x in wide)
    scores = m.mul(m.matmul(q, m.transpose(keys, (0, 1, 3, 2))), scale)
    seen = np.tril(np.ones((count - past, count), bool), past)
    scores = m.where(seen, scores, np.asarray(-np.inf, q.dtype))
    return (_flat(m, m.matmul(m.along("softmax", scores, -1), read)), k, v)[: node.n_outputs]


def matmul_nbits(m: Algebra, node: Node, a: Some, b: Some, scales: Some, *more: Value) -> Some:
    """a [..., K] by a weight [N, K] stored in few bits, in blocks along K: (q - zero point) * scale; plus a bias."""
    zero, order, bias = (*more, None, None, None)[:3]
    n, k, bits, block = (node.attr(name) for name in ("N", "K", "bits", "block_size"))
    stored = isinstance(b, np.ndarray) and isinstance(scales, np.ndarray) and not isinstance(zero, Tensor)
    rounds = node.attr("accuracy_level", 0) > 1 and not erasing.format_of(m, np.dtype(np.uint8))  # its other operand too
    if order is not None or not stored or rounds:
        raise Untaught("MatMulNBits in an order of its own, by computed weights, or on quantized operands", node.name)
    if (bits or 4) not in (4, 8):
        raise Untaught(f"MatMulNBits of {bits} bits", node.name)
    assert isinstance(scales, np.ndarray)
    blocks = -(-k // block)

    def unpacked(x: Any, width: int) -> Any:
        flat = x.reshape(n, -1).view(np.uint8)
        return (flat if bits == 8 else np.stack([flat & 15, flat >> 4], 2).reshape(n, -1))[:, :width]

    points: Any = 2 ** ((bits or 4) - 1)
    if isinstance(zero, np.ndarray):
        points = unpacked(zero, blocks) if zero.dtype == np.uint8 else zero.reshape(n, blocks)
    whole = unpacked(b, blocks * block).reshape(n, blocks, block)
    offset = np.broadcast_to(np.asarray(points, a.dtype), (n, blocks))[..., None]
    steps = scales.reshape(n, blocks, 1).astype(a.dtype)
    kind = f"uint{bits or 4}"
    if erasing.format_of(m, dtype_of(kind)):
        near = erasing.dequantized(m, whole, steps, offset, kind)
        places = np.arange(1, 1 + n * blocks * block).reshape(n, -1)[:, :k]
        y: Some = m.matmul(a, m.pick(near, places.T, (k, n)))
    else:
        y = m.matmul(a, np.ascontiguousarray(((whole.astype(a.dtype) - offset) * steps).reshape(n, -1)[:, :k].T))
    return y if bias is None else m.add(y, bias)


_GROUPED = "num_heads kv_num_heads scale do_rotary rotary_interleaved local_window_size softcap smooth_softmax"
_ROTARY = "interleaved is_packed_batching num_heads rotary_embedding_dim scale"
CONTRIB: dict[str, tuple[Callable[..., Any], str, rows.Rule]] = {
    "RotaryEmbedding": (rotary_embedding, _ROTARY, rows.rotary),
    "GroupQueryAttention": (group_query_attention, _GROUPED, rows.grouped),
    "MatMulNBits": (matmul_nbits, "K N accuracy_level bits block_size", rows.times_fixed),
}
