"""Mistakes that kernels of devices make, each put in the place of one node of a run: what the node then gives."""

from __future__ import annotations

import numpy as np

from tests.zoo.devices import Executor, Fault, Place, node_name

Made = list[np.ndarray] | None


def gelu_by_tanh(p: Place) -> Made:
    """Erf, inside of a Gelu, by the tanh that goes with it; or a Gelu of its own by tanh."""
    (x,) = p.inputs
    if p.node.op_type == "Gelu":
        return (
            None if p.attribute("approximate", b"none") == b"tanh" else p.run(p.changed(approximate="tanh"), p.inputs)
        )
    z = x.astype(np.float64) * np.sqrt(2)
    return [np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)).astype(np.float32)]


def softmax_axis(p: Place) -> Made:
    """Another axis."""
    (x,) = p.inputs
    axis = p.attribute("axis", -1) % x.ndim
    others = [a for a in range(x.ndim) if a != axis and x.shape[a] > 1]
    return p.run(p.changed(axis=others[-1]), p.inputs) if others else None


def softmax_without_maximum(p: Place) -> Made:
    """Exponentials in float16 without the maximum taken off: beyond 11 they are infinite, and inf / inf is no number."""
    (x,) = p.inputs
    axis = p.attribute("axis", -1)
    with np.errstate(all="ignore"):
        e = np.exp(x).astype(np.float16).astype(np.float32)
        made = e / e.sum(axis=axis, keepdims=True)
    return [made.astype(np.float32)] if not np.isfinite(made).all() else None


def pads_counted(p: Place) -> Made:
    """count_include_pad the other way."""
    return p.run(p.changed(count_include_pad=1 - p.attribute("count_include_pad", 0)), p.inputs)


def _resize(**attributes: object) -> Fault:
    def fault(p: Place) -> Made:
        """Resize in another way."""
        x = p.inputs[0]
        if x.ndim != 4 or ("nearest_mode" in attributes and p.attribute("mode", b"nearest") != b"nearest"):
            return None
        return p.run(p.changed(**attributes), p.inputs)

    return fault


def epsilon(p: Place) -> Made:
    """Another epsilon."""
    return p.run(p.changed(epsilon=1e-3 if p.attribute("epsilon", 1e-5) < 1e-3 else 1e-5), p.inputs)


def no_activation(p: Place) -> Made:
    """The activation is left out."""
    return [p.inputs[0].copy()]


def no_bias(p: Place) -> Made:
    """The bias is left out."""
    if p.node.op_type == "Add":
        for place in (0, 1):
            bias = p.weight(place)
            if bias is not None and bias.size > 1 and bias.size < p.inputs[1 - place].size:
                return [p.inputs[1 - place].copy()]
        return None
    return p.instead(2, np.zeros_like(p.inputs[2])) if len(p.inputs) > 2 and p.inputs[2] is not None else None


def layer_before(p: Place) -> Made:
    """The tensor that lay in the buffer before."""
    made = p.honest()
    like = [x for x in p.before.values() if x.shape == made[0].shape and x.dtype.kind != "i"]
    return [like[-1].astype(np.float32), *made[1:]] if like else None


def tile_of_zeros(p: Place) -> Made:
    """A tile that was never written."""
    made = p.honest()
    flat = made[0].copy().reshape(-1)
    size = max(1, flat.size // 16)
    start = int(p.random.integers(0, flat.size - size + 1))
    flat[start : start + size] = 0
    return [flat.reshape(made[0].shape), *made[1:]]


def channels_last(p: Place) -> Made:
    """Written with channels last, read with channels first."""
    (y, *more) = p.honest()
    return [np.ascontiguousarray(np.moveaxis(y, 1, -1)).reshape(y.shape), *more] if y.ndim == 4 else None


def off_by_one(p: Place) -> Made:
    """Indices, or the start of a slice, one too far."""
    x = p.inputs[0]
    if p.node.op_type == "Gather":
        size = x.shape[p.attribute("axis", 0)]
        return p.instead(1, (p.inputs[1] + 1) % size) if size > 1 else None
    axes = p.inputs[3] if len(p.inputs) > 3 and p.inputs[3] is not None else np.arange(len(p.inputs[1]))
    made = p.honest()[0]
    return [np.roll(made, 1, int(axes[0]))] if made.size and made.shape[int(axes[0])] > 1 else None


def weight_transposed(p: Place) -> Made:
    """The weight in the other order of its axes."""
    w = p.weight(1)
    if w is None or w.ndim < 2 or min(w.shape[:2]) < 2:
        return None
    return p.instead(1, np.ascontiguousarray(np.swapaxes(w, 0, 1)).reshape(w.shape))


def channel_scaled(p: Place) -> Made:
    """One channel of the weight with its neighbour's scale."""
    w = p.weight(1)
    if w is None or w.ndim < 2:
        return None
    w = w.copy()
    axis = 0 if p.node.op_type == "Conv" or p.attribute("transB", 0) else w.ndim - 1
    w[(slice(None),) * axis + (int(p.random.integers(0, w.shape[axis])),)] *= np.float32(1.25)
    return p.instead(1, w)


def last_block_dropped(p: Place) -> Made:
    """The last block of K is not added up."""
    a, b = p.inputs[:2]
    if p.node.op_type == "Conv":
        if b.shape[1] < 2:
            return None
        w = b.copy()
        w[:, -max(1, b.shape[1] // 8) :] = 0
        return p.instead(1, w)
    if p.attribute("transA", 0) or a.shape[-1] < 2:
        return None
    a = a.copy()
    a[..., -max(1, a.shape[-1] // 8) :] = 0
    return p.instead(0, a)


def overflow(p: Place) -> Made:
    """What is largest overflows to infinity."""
    (y, *more) = p.honest()
    y = y.copy()
    y[np.abs(y) >= 0.95 * np.abs(y).max()] = np.inf
    return [y, *more]


def stale_accumulator(p: Place) -> Made:
    """The second half of the columns begins with the sums of the first."""
    (y, *more) = p.honest()
    half = y.shape[-1] // 2
    if not half:
        return None
    y = y.copy()
    y[..., half : 2 * half] += y[..., :half]
    return [y, *more]


def heads_swapped(p: Place) -> Made:
    """Two heads change places."""
    (y, *more) = p.honest()
    if y.ndim != 4 or y.shape[1] < 2:
        return None
    y = y.copy()
    y[:, [0, 1]] = y[:, [1, 0]]
    return [y, *more]


def pads_on_the_wrong_side(p: Place) -> Made:
    """All of the padding at the beginning."""
    pads = p.attribute("pads")
    if not pads or not any(pads) or p.node.op_type not in ("Conv", "MaxPool", "AveragePool"):
        return None
    half = len(pads) // 2
    both = [a + b for a, b in zip(pads[:half], pads[half:], strict=True)]
    if p.node.op_type != "Conv" and any(b >= k for b, k in zip(both, p.attribute("kernel_shape"), strict=True)):
        return None
    return p.run(p.changed(pads=[*both, *[0] * half]), p.inputs)


def stride_phase(p: Place) -> Made:
    """Windows begin one pixel too late."""
    if not any(s > 1 for s in p.attribute("strides", [1])):
        return None
    x = np.roll(p.inputs[0], -1, -1)
    x[..., -1] = 0
    return p.instead(0, x)


def dilation_ignored(p: Place) -> Made:
    """Neighbours in place of every other one: here the filter turned by one place."""
    w = p.weight(1)
    return p.instead(1, np.roll(w, 1, -1)) if w is not None and w.ndim > 2 and w.shape[-1] > 1 else None


def mask_inverted(p: Place) -> Made:
    """What is masked and what is not, exchanged."""
    return p.instead(0, ~p.inputs[0]) if p.inputs[0].dtype == bool else None


def mask_late(p: Place) -> Made:
    """The mask, which is added, lies one column too far."""
    for place in (0, 1):
        w = p.weight(place)
        if w is not None and w.ndim > 1 and w.shape[-1] == w.shape[-2] > 1:
            return p.instead(place, np.roll(w, 1, -1))
    return None


def broadcast_wrong(p: Place) -> Made:
    """A vector read with step 0: its first element everywhere."""
    for place in (0, 1):
        w = p.weight(place)
        if w is not None and w.size > 1:
            return p.instead(place, np.broadcast_to(w.reshape(-1)[:1].reshape((1,) * w.ndim), w.shape).copy())
    return None


def truncated(p: Place) -> Made:
    """A quantizer that cuts off where it should round."""
    x, scale, zero = p.inputs
    info = np.iinfo(zero.dtype)
    if scale.size != 1:
        return None
    return [np.clip(np.trunc(x / scale) + zero.astype(np.int64), info.min, info.max).astype(zero.dtype)]


def wrapped(p: Place) -> Made:
    """A quantizer that does not saturate, of a calibration that cut the largest."""
    x, scale, zero = p.inputs
    if scale.size != 1:
        return None
    return [(np.rint(x / scale).astype(np.int64) + zero.astype(np.int64)).astype(zero.dtype)]


def backwards(p: Place) -> Made:
    """The sequence from its end."""
    return p.instead(0, np.ascontiguousarray(p.inputs[0][::-1])) if p.inputs[0].shape[0] > 1 else None


def gates_exchanged(p: Place) -> Made:
    """The first two gates change places."""
    w = p.inputs[1].copy()
    rows = w.shape[1] // (4 if p.node.op_type == "LSTM" else 3)
    w[:, : 2 * rows] = np.concatenate([w[:, rows : 2 * rows], w[:, :rows]], axis=1)
    return p.instead(1, w)


def sign(p: Place) -> Made:
    """Operands of a difference exchanged."""
    return [-y for y in p.honest()]


def channels_exchanged(p: Place) -> Made:
    """Two channels of a result change places."""
    (y, *more) = p.honest()
    if y.ndim < 3 or y.shape[1] < 2:
        return None
    y = y.copy()
    y[:, [0, -1]] = y[:, [-1, 0]]
    return [y, *more]


def zero_padded_maximum(p: Place) -> Made:
    """MaxPool pads with 0 where it should pad with nothing."""
    pads, x = p.attribute("pads"), p.inputs[0]
    if not pads or not any(pads):
        return None
    half = len(pads) // 2
    wide = np.pad(x, [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)])
    return p.run(p.changed(pads=None), [wide])


def divisor(p: Place) -> Made:
    """A mean that divides by one less."""
    x = p.inputs[0]
    (y, *more) = p.honest()
    count = x.size // max(1, y.size)
    return [np.asarray(y * np.float32(count / (count - 1))), *more] if count > 1 else None


def reduced_elsewhere(p: Place) -> Made:
    """Reduced over the axis before."""
    x = p.inputs[0]
    axes = p.attribute("axes") or (list(p.inputs[1]) if len(p.inputs) > 1 and p.inputs[1] is not None else None)
    if not axes or len(axes) != 1 or not p.attribute("keepdims", 1):
        return None
    other = (axes[0] % x.ndim) - 1
    if other < 0 or x.shape[other] != x.shape[axes[0]]:  # the shape has to stay
        return None
    moved = np.ascontiguousarray(np.swapaxes(x, other, axes[0]))
    return [np.ascontiguousarray(p.run(p.node, [moved, *p.inputs[1:]])[0])]


def hard_sigmoid(p: Place) -> Made:
    """By three straight lines."""
    return [np.clip(p.inputs[0] / 6 + 0.5, 0, 1).astype(np.float32)]


def rough_table(p: Place) -> Made:
    """A table of too few entries: an error of up to 4 %."""
    return [np.asarray(y * (1 + 0.04 * np.sin(37 * p.inputs[0])), np.float32) for y in p.honest()[:1]]


def one_not_a_number(p: Place) -> Made:
    """One element is none."""
    (y, *more) = p.honest()
    y = y.copy()
    y.reshape(-1)[int(p.random.integers(0, y.size))] = np.nan
    return [y, *more]


def order_of_parts(p: Place) -> Made:
    """The parts of a Concat the other way round."""
    return p.run(p.node, p.inputs[::-1])


def transposed_wrong(p: Place) -> Made:
    """The buffer is handed on as it lies."""
    (y,) = p.honest()
    x = p.inputs[0]
    return [x.reshape(y.shape).copy()] if x.ndim > 2 or min(x.shape) > 1 else None


PRODUCTS = ("MatMul", "Gemm", "Conv")
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "Gelu by tanh": (gelu_by_tanh, ("Erf", "Gelu")),
    "Softmax over another axis": (softmax_axis, ("Softmax",)),
    "Softmax without its maximum": (softmax_without_maximum, ("Softmax",)),
    "pads counted": (pads_counted, ("AveragePool",)),
    "Resize asymmetric": (_resize(coordinate_transformation_mode="asymmetric"), ("Resize",)),
    "Resize half_pixel": (_resize(coordinate_transformation_mode="half_pixel"), ("Resize",)),
    "Resize align_corners": (_resize(coordinate_transformation_mode="align_corners"), ("Resize",)),
    "Resize rounds up": (_resize(nearest_mode="ceil"), ("Resize",)),
    "epsilon": (epsilon, ("LayerNormalization", "BatchNormalization", "InstanceNormalization")),
    "activation left out": (no_activation, ("Relu", "Clip", "LeakyRelu", "HardSwish", "Gelu")),
    "bias left out": (no_bias, (*PRODUCTS, "Add")),
    "layer before": (layer_before, (*PRODUCTS, "Add", "Softmax", "LayerNormalization", "Relu")),
    "tile of zeros": (tile_of_zeros, (*PRODUCTS, "Add", "Mul", "LayerNormalization", "Concat", "Transpose")),
    "channels last": (channels_last, ("Conv", "MaxPool", "AveragePool", "Resize", "Relu", "Concat", "Add")),
    "off by one": (off_by_one, ("Gather", "Slice")),
    "weight transposed": (weight_transposed, PRODUCTS),
    "one channel scaled": (channel_scaled, PRODUCTS),
    "last block of K dropped": (last_block_dropped, PRODUCTS),
    "overflow": (overflow, (*PRODUCTS, "Mul", "Add", "Exp")),
    "stale accumulator": (stale_accumulator, PRODUCTS),
    "heads swapped": (heads_swapped, ("Transpose", "MatMul")),
    "pads on the wrong side": (pads_on_the_wrong_side, ("Conv", "MaxPool", "AveragePool")),
    "stride phase": (stride_phase, ("Conv", "MaxPool", "AveragePool")),
    "filter turned": (dilation_ignored, ("Conv",)),
    "mask inverted": (mask_inverted, ("Where",)),
    "mask one column late": (mask_late, ("Add",)),
    "broadcast wrong": (broadcast_wrong, ("Add", "Mul")),
    "quantizer truncates": (truncated, ("QuantizeLinear",)),
    "quantizer wraps": (wrapped, ("QuantizeLinear",)),
    "sequence backwards": (backwards, ("LSTM", "GRU")),
    "gates exchanged": (gates_exchanged, ("LSTM", "GRU")),
    "sign": (sign, ("Sub", "Neg", "MatMul")),
    "channels exchanged": (channels_exchanged, ("Conv", "Concat", "Resize", "MatMul")),
    "maximum padded with 0": (zero_padded_maximum, ("MaxPool",)),
    "divisor one less": (divisor, ("ReduceMean", "GlobalAveragePool")),
    "reduced over another axis": (reduced_elsewhere, ("ReduceMean", "ReduceSum", "ReduceMax")),
    "hard Sigmoid": (hard_sigmoid, ("Sigmoid",)),
    "rough table": (rough_table, ("Exp", "Tanh", "Sigmoid", "Erf", "Sqrt", "Reciprocal", "Softmax")),
    "one element not a number": (one_not_a_number, (*PRODUCTS, "Add", "Div")),
    "parts in another order": (order_of_parts, ("Concat",)),
    "turned wrong": (transposed_wrong, ("Transpose",)),
}


def places(executor: Executor, fault: str, count: int, seed: int) -> list[str]:
    """The names of up to ``count`` nodes that a fault may be put at, spread over the net."""
    wanted = FAULTS[fault][1]
    found = [node_name(n) for n in executor.nodes if n.op_type in wanted and all(x for x in n.output[:1])]
    chosen = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[i] for i in sorted(chosen)]


def seen(honest: dict[str, np.ndarray], faulty: dict[str, np.ndarray], name: str, unit: float) -> bool:
    """Whether a fault is one: some element is off by more than 64 roundings of the size of the tensor."""
    x, y = (np.asarray(a[name], np.float64) for a in (honest, faulty))
    if x.shape != y.shape or not np.array_equal(np.isfinite(x), np.isfinite(y)):
        return True
    size = np.sqrt(np.square(x[np.isfinite(x)]).mean()) if np.isfinite(x).any() else 0.0
    with np.errstate(all="ignore"):
        off = np.where(np.isfinite(x), np.abs(x - y), 0.0).max(initial=0.0)
    return bool(off > 64 * unit * size) or (np.issubdtype(honest[name].dtype, np.integer) and bool((x != y).any()))
