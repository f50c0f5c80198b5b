"""How an array of a dump may lie: as the model has it, with channels last for channels first, without axes of size 1, flat."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from graphcheck.blaming.dumps.lazy import Array

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Laid:
    """How an array of a dump is read as a tensor of ``shape``: laid out as ``held``, its axes then moved by ``axes``."""

    layout: str  # "", or what is said of it: NHWC, NCHW, flat
    shape: Shape
    held: Shape
    axes: tuple[int, ...] | None = None

    def of(self, x: Array) -> Array:
        """The array as the model's tensor: a view."""
        laid = x.reshape(self.held)
        return laid if self.axes is None else laid.transpose(self.axes)


def readings(held: Shape, shape: Shape) -> Iterator[Laid]:
    """The ways in which an array of shape ``held`` may be a tensor of ``shape``, the plainest first: as it is, channels last for
    channels first or the other way round, without axes of size 1, flat."""
    if math.prod(held) != math.prod(shape):
        return
    rank = len(shape)
    last = (shape[0], *shape[2:], shape[1]) if rank > 2 else ()
    first = (shape[0], shape[-1], *shape[1:-1]) if rank > 2 else ()
    to_first, to_last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
    plain, others = held == shape or _narrow(held) == _narrow(shape), []
    if rank > 2 and (1 not in (shape[1], math.prod(shape[2:]))):
        others.append((Laid("channels last", shape, last, to_first), last))
    if rank > 2 and (1 not in (shape[-1], math.prod(shape[1:-1]))):
        others.append((Laid("channels first", shape, first, to_last), first))
    if plain:
        yield Laid("", shape, shape)
    fitting = [reading for reading, laid in others if held == laid or _narrow(held) == _narrow(laid)]
    yield from fitting
    if not plain and not fitting:
        yield Laid("another shape", shape, shape)
        if len(_narrow(held)) < 2:  # flat: of any layout
            yield from (reading for reading, _ in others)


def _narrow(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def every_reading(shape: Shape) -> list[Laid]:
    """Every reading of an array that has as many elements, whatever its shape."""
    return list({w.layout: w for held in (shape, (math.prod(shape),)) for w in readings(held, shape)}.values())
