"""Mistakes that a convicted tensor tells itself: what it would be, as the right numbers moved, cut or replaced."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Values = Iterator[tuple[str, np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A convicted tensor, flat: the exact value and its radius, what was dumped, which elements are beyond the bound; its shape
    and operator, and the dumped tensors that were read."""

    value: np.ndarray
    error: np.ndarray
    dumped: np.ndarray
    beyond: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    op_type: str
    reads: Mapping[str, np.ndarray]


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
        if (seen.dumped.reshape(seen.shape)[box] != numbers[0]).any():
            return
        tile = [f"{p.min()}:{p.max() + 1}" for p in places]
        said = f"a tile of {'zeros' if not numbers[0] else f'{numbers[0]:g}'} at [{', '.join(tile)}]"
        yield said, np.where(seen.beyond, numbers[0], seen.value), seen.error


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
