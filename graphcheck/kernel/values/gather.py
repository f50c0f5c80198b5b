"""Values moved by a map: through strided views where the map has a form, so that no table of its indices is made."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphcheck.kernel.terms.guards import Guard
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.pieces import BOXES, Pieces, boxes, fixed_digits
from graphcheck.kernel.terms.strided import Strided

_MANY = 100_000  # elements that are copied through views, however many more there are
_STRIP = 32  # columns of a matrix that is turned
_WORTH = 16  # elements of a box that are copied at once, on average, or they are gathered one by one


def picked(parts: Sequence[np.ndarray], map_: Map) -> np.ndarray:
    """[..., size]: elements of arrays [..., n], laid end to end, by a map; 0 where it is 0."""
    if len(parts) > 1:
        parts = [np.concatenate(parts, axis=-1)]
    table = parts[0]
    if map_.pieces is not None and map_.size >= min(table.shape[-1], _MANY):
        found = _viewed(table, map_.pieces, min(BOXES, max(1, map_.size // _WORTH)))
        if found is not None:
            return found
    index = map_.index
    if map_.has_zero and map_.size >= table.shape[-1]:
        zero = np.zeros((*table.shape[:-1], 1), table.dtype)
        return np.take(np.concatenate([zero, table], axis=-1), index, axis=-1)
    picks = np.take(table, np.maximum(index, 1) - 1, axis=-1)
    if map_.has_zero:
        picks[..., index == 0] = 0
    return np.asarray(picks)


def _viewed(table: np.ndarray, pieces: Pieces, few: int = BOXES) -> np.ndarray | None:
    """The elements by strided views; None where the guards leave more than a ``few`` boxes."""
    lead = table.shape[:-1]
    if len(pieces) == 1 and not pieces[0].guards:
        return _copied(view(table, pieces[0].start, pieces[0].box, pieces[0].strides)).reshape(*lead, -1)
    fixed = [fixed_digits(form.box, form.guards) for form in pieces]
    if any(math.prod(form.box[j] for j in some) > few for form, some in zip(pieces, fixed, strict=True)):
        return None
    out = np.zeros((*lead, pieces[0].size), table.dtype)
    for form, some in zip(pieces, fixed, strict=True):
        part = out.reshape(*lead, *form.box)
        for places in _at_once(form.box, form.guards, tuple(some)):
            start = form.start + sum(stride * at.start for stride, at in zip(form.strides, places, strict=True))
            part[(slice(None),) * len(lead) + places] = view(table, start, [at.stop - at.start for at in places], form.strides)
    return out


def _copied(seen: np.ndarray) -> np.ndarray:
    """A view, in the order of its elements; that of a matrix turned is copied in strips that a cache holds."""
    if seen.ndim < 2 or seen.shape[-1] <= _STRIP or seen.strides[-1] <= min(seen.strides):
        return seen
    made = np.empty(seen.shape, seen.dtype)
    for at in range(0, seen.shape[-1], _STRIP):
        made[..., at : at + _STRIP] = seen[..., at : at + _STRIP]
    return made


@functools.lru_cache(4096)
def _at_once(box: tuple[int, ...], guards: tuple[Guard, ...], fixed: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Boxes that make up those which the guards leave: what these have in common, whatever the ``fixed`` digits are, is one box
    (the windows that lie inside), copied in the order of the memory, and what is around it are small ones."""
    form = Strided(box, 0, (0,) * len(box), guards)
    found = [places for places, _, _ in boxes(form, fixed)]
    if not found:
        return []
    digits = [j for j in range(len(form.box)) if j not in fixed]
    common = [slice(0, n) for n in form.box]
    for j in digits:
        common[j] = slice(max(places[j].start for places in found), min(places[j].stop for places in found))
    if len(found) < math.prod(form.box[j] for j in fixed) or any(at.start >= at.stop for at in common):
        return found
    made = [tuple(common)]
    for places in found:
        left = list(places)
        for j in digits:
            around = slice(places[j].start, common[j].start), slice(common[j].stop, places[j].stop)
            made += [(*left[:j], at, *left[j + 1 :]) for at in around if at.start < at.stop]
            left[j] = common[j]
    return made


def view(
    table: np.ndarray, start: int, box: Sequence[int], strides: Sequence[int], *, writeable: bool = False
) -> np.ndarray:
    """[..., *box] of [..., n], without a copy."""
    step = table.strides[-1]
    steps = (*table.strides[:-1], *(s * step for s in strides))
    return as_strided(table[..., start:], (*table.shape[:-1], *box), steps, writeable=writeable)
