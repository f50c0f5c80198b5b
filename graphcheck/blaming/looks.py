"""Mistakes that a convicted tensor tells itself: what it would be, as the right numbers moved, cut or replaced."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

_HALF = math.log(65504.0) - 0.01
Values = Iterator[tuple[str, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A convicted tensor, flat: the exact value and its radius, what was dumped, which elements are beyond the bound; its shape
    and operator, the dumped tensors that were read, and those of its size that were computed before it, the last one first."""

    value: np.ndarray
    error: np.ndarray
    dumped: np.ndarray
    beyond: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    op_type: str
    reads: Mapping[str, np.ndarray]
    earlier: Callable[[], Iterator[tuple[str, np.ndarray]]]


def input_as_it_is(seen: Seen) -> Values:
    """The output of the layer before."""
    for name, x in seen.reads.items():
        if x.size == seen.value.size:
            yield f"its input {name!r} as it is", x.astype(np.float64).reshape(-1), np.zeros(1)


def zeros(seen: Seen) -> Values:
    """A tile that was never written, or holds one number."""
    at = np.flatnonzero(seen.beyond)
    numbers = np.unique(seen.dumped[at])
    if numbers.size == 1 and np.isfinite(numbers[0]) and at.size > 1:
        places = np.unravel_index(at, seen.shape)
        box = np.ix_(*(np.arange(p.min(), p.max() + 1) for p in places))
        made, of = np.where(seen.beyond, numbers[0], seen.value), "zeros" if not numbers[0] else f"{numbers[0]:g}"
        if (seen.dumped.reshape(seen.shape)[box] == numbers[0]).all():
            yield f"a tile of {of} at [{', '.join(f'{p.min()}:{p.max() + 1}' for p in places)}]", made, seen.error
        elif (seen.dumped[at[0] : at[-1] + 1] == numbers[0]).all():
            yield f"a tile of {of}: elements {at[0]} to {at[-1]} in memory", made, seen.error


def layout(seen: Seen) -> Values:
    """Channels in the other place."""
    if len(seen.shape) == 4:
        yield from _axes(seen, "the layout: NHWC for NCHW", (0, 2, 3, 1))
        yield from _axes(seen, "the layout: NCHW for NHWC", (0, 3, 1, 2))


def axes(seen: Seen) -> Values:
    """The right numbers in another order of axes."""
    rank = len(seen.shape)
    for perm in itertools.permutations(range(rank)) if 2 <= rank <= 5 else ():
        if perm != tuple(range(rank)):
            yield from _axes(seen, f"the layout: axes in the order {list(perm)}", perm)


def _axes(seen: Seen, said: str, perm: tuple[int, ...]) -> Values:
    value, error = (np.broadcast_to(x, seen.value.shape).reshape(seen.shape) for x in (seen.value, seen.error))
    yield said, value.transpose(perm).reshape(-1), error.transpose(perm).reshape(-1)


def turned(seen: Seen) -> Values:
    """The right numbers in reverse, or moved by one, along an axis; the sign."""
    value, error = (np.broadcast_to(x, seen.value.shape).reshape(seen.shape) for x in (seen.value, seen.error))
    yield "the sign", -seen.value, seen.error
    for axis, count in enumerate(seen.shape):
        if count > 1:
            yield f"axis {axis} in reverse", np.flip(value, axis).reshape(-1), np.flip(error, axis).reshape(-1)
            for step in dict.fromkeys((1, -1, count // 2)):
                moved, wrong = (np.roll(x, step, axis).reshape(-1) for x in (value, error))
                yield f"axis {axis} moved by {step}", moved, wrong


def whole(seen: Seen) -> Values:
    """An integer that wraps around, or that is cut in place of rounded."""
    if seen.dtype.kind not in "iu" or seen.dtype.itemsize > 4:
        return
    low, high = int(np.iinfo(seen.dtype).min), int(np.iinfo(seen.dtype).max)
    near = np.rint(seen.value)
    yield "an integer that wraps around", np.mod(near - low, high - low + 1) + low, seen.error
    for said, f in (("truncated, not rounded", np.trunc), ("rounded down", np.floor), ("rounded up", np.ceil)):
        yield said, np.clip(f(seen.value), low, high), np.minimum(seen.error, 0.0) - 0.5


def softmax(seen: Seen) -> Values:
    """Exponentials that overflow where the maximum was not taken off."""
    if seen.op_type not in ("Softmax", "LogSoftmax") or len(seen.reads) != 1:
        return
    (x,) = (np.asarray(x, np.float64) for x in seen.reads.values())
    if x.size != seen.value.size:
        return
    odd = seen.beyond.reshape(-1, seen.shape[-1]).any(axis=1)
    table = x.reshape(-1, seen.shape[-1])
    with np.errstate(all="ignore"):
        total = np.log(np.exp(table - table.max(axis=1, keepdims=True)).sum(axis=1)) + table.max(axis=1)
    for name, high in (("float32", 3.4e38), ("float16", 65504.0)):
        if not (odd & (total < math.log(high) * 0.999)).any() and odd.any():
            rows = np.repeat(odd, seen.shape[-1])
            lost = ~np.isfinite(seen.dumped) | (seen.dumped == 0)
            if (lost | ~rows).all():
                said = f"a Softmax without its maximum, which overflows {name}"
                yield said, np.where(rows, seen.dumped, seen.value), np.where(rows, 0.0, seen.error)
    rows = np.repeat((~np.isfinite(seen.dumped)).reshape(table.shape).any(axis=1), seen.shape[-1])
    if rows.any() and not (np.repeat(total, seen.shape[-1])[rows] < _HALF).any():
        rough = np.where(rows, 0.0, seen.error + 2.0**-9 * np.abs(seen.value) + 2.0**-14)
        said = "a Softmax without its maximum, its exponentials in float16"
        yield said, np.where(rows, seen.dumped, seen.value), rough


def overflow(seen: Seen) -> Values:
    """The largest numbers, which become infinite or none."""
    odd = seen.beyond & ~np.isfinite(seen.dumped)
    size = np.abs(seen.value)
    if odd.any() and bool((odd == seen.beyond).all()) and float(size[odd].min()) >= float(size[~odd].max(initial=0.0)) * 0.999:
        said = f"an overflow from {float(size[odd].min()):.3g} on"
        yield said, np.where(odd, seen.dumped, seen.value), np.where(odd, 0.0, seen.error)


def one_channel(seen: Seen) -> Values:
    """All of a tensor, or one slice of it, times a number."""
    value, error, dumped, beyond = _shaped(seen)
    yield from _scaled(seen, "the right values", value, error, dumped, np.ones(seen.shape, bool))
    for axis, count in enumerate(seen.shape):
        places = np.flatnonzero(beyond.any(axis=tuple(a for a in range(len(seen.shape)) if a != axis)))
        if count > 1 and places.size == 1:
            inside = np.zeros(seen.shape, bool)
            inside[(slice(None),) * axis + (places[0],)] = True
            yield from _scaled(seen, f"channel {places[0]} of axis {axis}", value, error, dumped, inside)


def _scaled(
    seen: Seen, what: str, value: np.ndarray, error: np.ndarray, dumped: np.ndarray, inside: np.ndarray
) -> Values:
    x, y = value[inside], dumped[inside]
    fine = np.isfinite(x) & np.isfinite(y)
    total = float(np.square(x[fine]).sum())
    if not total:
        return
    factor = float((x[fine] * y[fine]).sum()) / total
    factor = round(factor, 4) if abs(round(factor, 4) - factor) < 1e-5 * abs(factor) else factor
    made = np.where(inside, factor * value, value).reshape(-1)
    yield f"{what} times {factor:.4g}", made, np.where(inside, abs(factor) * error, error).reshape(-1)


def exchanged(seen: Seen) -> Values:
    """Two slices, as heads or channels, that changed places."""
    value, error, _, beyond = _shaped(seen)
    for axis, count in enumerate(seen.shape):
        places = np.flatnonzero(beyond.any(axis=tuple(a for a in range(len(seen.shape)) if a != axis)))
        if count > 2 and places.size == 2:
            order = np.arange(count)
            order[places] = places[::-1]
            said = f"{places[0]} and {places[1]} of axis {axis} exchanged"
            yield said, value.take(order, axis).reshape(-1), error.take(order, axis).reshape(-1)


def stale(seen: Seen) -> Values:
    """A half that begins with the sums of the other."""
    value, error, _, _ = _shaped(seen)
    for axis, count in enumerate(seen.shape):
        half = count // 2
        if half:
            first, second = [(slice(None),) * axis + (s,) for s in (slice(0, half), slice(half, 2 * half))]
            for to, of, word in ((second, first, "second"), (first, second, "first")):
                made, wrong = value.copy(), error.copy()
                made[to] += value[of]
                wrong[to] += error[of]
                yield f"the {word} half of axis {axis} with the sums of the other", made.reshape(-1), wrong.reshape(-1)


def before(seen: Seen) -> Values:
    """A tensor that was computed before, whose memory was read again."""
    for name, x in seen.earlier():
        yield f"the tensor {name!r} that was computed before", x.astype(np.float64).reshape(-1), np.zeros(1)


def _shaped(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value, radius, dump and what is beyond, in the tensor's shape."""
    value, error, dumped, beyond = (
        np.broadcast_to(x, seen.value.shape).reshape(seen.shape) for x in (seen.value, seen.error, seen.dumped, seen.beyond)
    )
    return value, error, dumped, beyond
