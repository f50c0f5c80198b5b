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
    channels first or the other way round, each but for axes of size 1, flat."""
    if math.prod(held) != math.prod(shape):
        return
    rank = len(shape)
    ways = [Laid("", shape, shape)]
    if rank > 2 and 1 not in (shape[1], math.prod(shape[2:])):
        ways.append(Laid("channels last", shape, (shape[0], *shape[2:], shape[1]), (0, rank - 1, *range(1, rank - 1))))
    if rank > 2 and 1 not in (shape[-1], math.prod(shape[1:-1])):
        ways.append(Laid("channels first", shape, (shape[0], shape[-1], *shape[1:-1]), (0, *range(2, rank), 1)))
    exact = [way for way in ways if way.held == held]
    narrow = [way for way in ways if way.held != held and _narrow(way.held) == _narrow(held)]
    yield from (*exact, *narrow)
    if not exact and not narrow:
        yield Laid("another shape", shape, shape)
        if len(_narrow(held)) < 2:  # flat: of any layout
            yield from ways[1:]


def _narrow(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
