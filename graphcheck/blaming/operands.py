"""Mistakes in what an operator reads: weights, channels, gates, products left out."""

from __future__ import annotations

import itertools

import numpy as np

from graphcheck.blaming.changes import Edits, given, passed, put
from graphcheck.blaming.editing import Spot


def _blocks(count: int) -> list[int]:
    """Sizes of a last block of so many products."""
    sizes = (1, 4, 8, 16, 32, 64, 128, max(1, count // 8))
    return list(dict.fromkeys(b for size in sizes for b in (count % size or size, size) if b < count))


def weight(spot: Spot) -> Edits:
    """A weight that is transposed, turned, or of which the last rows are left out."""
    if spot.op == "Gemm":
        yield "its weight transposed", given(transB=1 - int(spot.attr("transB", 0)))
        yield "alpha and beta left out", given(alpha=1.0, beta=1.0)
    w = spot.array(1)
    if w is None:
        return
    if spot.op == "MatMul" and w.ndim >= 2 and w.shape[-1] == w.shape[-2]:
        yield "its weight transposed", put(1, w.swapaxes(-1, -2))
    if w.ndim >= 2 and min(w.shape[:2]) > 1:
        yield "its weight read in the other order of its axes", put(1, w.swapaxes(0, 1).reshape(w.shape))
    if spot.op in ("Conv", "ConvTranspose") and w.ndim > 2:
        for moved in (w_axis for w_axis in range(2, w.ndim) if w.shape[w_axis] > 1):
            yield "its kernel moved by one place", put(1, np.roll(w, 1, moved))
            yield "its kernel moved by one place", put(1, np.roll(w, -1, moved))
        yield "its kernel turned", put(1, np.flip(w, tuple(range(2, w.ndim))))
        if w.ndim == 4 and w.shape[2] == w.shape[3]:
            yield "its kernel transposed", put(1, w.swapaxes(2, 3))
        yield "its channels in reverse", put(1, w[:, ::-1])
    axis = {"MatMul": w.ndim - 2, "Gemm": 1 if spot.attr("transB", 0) else 0, "Conv": 1}.get(spot.op)
    if axis is not None and axis >= 0 and w.ndim >= 2:
        count = w.shape[axis]
        for block in _blocks(count):
            kept = np.arange(count).reshape([-1 if a == axis else 1 for a in range(w.ndim)]) < count - block
            yield f"the last {block} of {count} products missing", put(1, np.where(kept, w, 0))


def cut(spot: Spot) -> Edits:
    """The last products of a MatMul of two computed operands left out."""
    a, b = spot.read(0), spot.read(1)
    if a is None or b is None or spot.array(1) is not None or a.shape is None or not isinstance(a.shape[-1], int):
        return
    count = int(a.shape[-1])
    for block in _blocks(count):

        def without(spot: Spot, block: int = block) -> None:
            numbers = [spot.constant(np.asarray([n], np.int64)) for n in (0, count - block, -1, -2)]
            first = spot.before("Slice", [spot.read(0), numbers[0], numbers[1], numbers[2]])
            second = spot.before("Slice", [spot.read(1), numbers[0], numbers[1], numbers[3]])
            spot.swap("MatMul", [first, second])

        yield f"the last {block} of {count} products missing", without


def recurrent(spot: Spot) -> Edits:
    """The other direction, or the other form of a GRU."""
    old = spot.attr("direction", "forward")
    if old != "bidirectional":
        yield f"{spot.op} in the other direction", given(direction="reverse" if old == "forward" else "forward")

    def backwards(spot: Spot) -> None:
        steps = [spot.constant(np.asarray([n], np.int64)) for n in (-1, -(2**31), int(spot.attr("layout", 0)), -1)]
        spot.node.replace_input_with(0, spot.before("Slice", [spot.read(0), *steps]))

    yield "its sequence backwards", backwards
    yield from _gates(spot)
    if spot.op == "GRU":
        yield "linear_before_reset flipped", given(linear_before_reset=1 - int(spot.attr("linear_before_reset", 0)))


def _gates(spot: Spot) -> Edits:
    """Gates in another order: of the weights alone, or of all that has gates."""
    count, arrays = {"LSTM": 4, "GRU": 3}.get(spot.op, 1), [spot.array(at) for at in (1, 2, 3)]

    def ordered(at: int, order: tuple[int, ...]) -> np.ndarray:
        array = arrays[at - 1]
        assert array is not None
        parts = np.split(array, array.shape[1] // (array.shape[1] // count // (2 if at == 3 else 1)), axis=1)
        halves = (parts[begin : begin + count] for begin in range(0, len(parts), count))
        return np.concatenate([half[gate] for half in halves for gate in order], axis=1)

    for order in itertools.permutations(range(count)) if arrays[0] is not None and arrays[1] is not None else ():
        if order == tuple(range(count)):
            continue
        places = [at for at in (1, 2, 3) if arrays[at - 1] is not None]
        for some in ([1], [1, 2], places):

            def exchange(spot: Spot, some: list[int] = some, order: tuple[int, ...] = order) -> None:
                for at in some:
                    spot.put(at, ordered(at, order))

            yield f"its gates in the order {list(order)}", exchange


def channels(spot: Spot) -> Edits:
    """The scale of the channel beside it."""
    places = {"BatchNormalization": (1, 2, 3, 4), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2)}
    places |= {"QuantizeLinear": (1,), "DequantizeLinear": (1,), "Mul": (0, 1), "Conv": (2,), "PRelu": (1,)}
    places |= {"QLinearConv": (4,), "Add": (0, 1), "Sub": (0, 1), "Div": (1,)}
    for at in places.get(spot.op, ()):
        array = spot.array(at)
        if array is None or array.size < 2:
            continue
        axis = int(np.argmax(array.shape))
        for step in (1, -1):
            yield f"operand {at} of the neighbour channel", put(at, np.roll(array, step, axis))
        first = np.broadcast_to(array.take([0], axis), array.shape)
        yield f"operand {at} of the first channel for all", put(at, first)


def unscaled(spot: Spot) -> Edits:
    """A number that is left out of a product."""
    for at in (0, 1):
        array = spot.array(at)
        if array is not None:
            yield f"its {'factor' if spot.op == 'Mul' else 'divisor'} missing", passed(1 - at)


def moved_windows(spot: Spot) -> Edits:
    """Windows that begin one place too late, or too early."""
    x = spot.read(0)
    rank = 0 if x is None or x.shape is None else len(x.shape)
    if rank < 3 or not any(int(s) > 1 for s in spot.attr("strides", [1])):
        return
    for axis in range(2, rank):
        for step in (1, -1):

            def shift(spot: Spot, axis: int = axis, step: int = step) -> None:
                begin, end = (1, 2**31) if step > 0 else (0, -1)
                cut = [spot.constant(np.asarray([n], np.int64)) for n in (begin, end, axis)]
                pads = np.zeros(2 * rank, np.int64)
                pads[axis + (rank if step > 0 else 0)] = 1
                part = spot.before("Slice", [spot.read(0), *cut])
                spot.node.replace_input_with(0, spot.before("Pad", [part, spot.constant(pads)]))

            yield f"its windows moved by {step} along axis {axis}", shift
