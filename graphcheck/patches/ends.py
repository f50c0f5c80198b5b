"""From the contraction's result on: bias, reshapes and transposes behind it belong to the patch embedding too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.verbs import Ew, Move
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import distinct


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """A value told by the contraction's result: ``index``, the map of its elements; ``bias`` that is added, a constant and
    the map of its elements, or None."""

    index: Map
    bias: tuple[np.ndarray, Map] | None


def after(result: ir.Value, trial: Trial, *, part: bool = False) -> list[ir.Value]:
    """Values that show every element of ``result`` once in its type, moved and with constants added, in graph order.

    With ``part`` elements may be left out, as a Slice does.
    """
    start = trial.tensor(result)
    if start is None:
        return []
    values, queue = [result], [result]
    while queue:
        value = queue.pop(0)
        for user in value.consumers():
            for out in user.outputs:
                if out in values or len(values) >= 32 or trial.dtype(out) != start.dtype:
                    continue
                if shown(out, result, trial, part=part) is not None:
                    values.append(out)
                    queue.append(out)
    return values


def shown(value: ir.Value, result: ir.Value, trial: Trial, *, part: bool = False) -> Shown | None:
    """How ``value`` shows the elements of ``result``; None if it is not all of them (or ``part`` of them), each once."""
    tensor, leaf = trial.tensor(value), trial.tensor(result)
    if tensor is None or leaf is None or not (part or math.prod(tensor.shape) == math.prod(leaf.shape)):
        return None
    return _shown(trial, tensor.cls, leaf.cls, part)


def _shown(trial: Trial, cls: int, leaf: int, part: bool) -> Shown | None:
    terms = trial.algebra.terms
    if cls == leaf:
        return Shown(terms.maps.whole(terms.size(leaf)), None)
    term = terms.terms[cls]
    if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero:
        inner = _shown(trial, term.args[0], leaf, part)
        return None if inner is None else _through(trial, inner, term.verb.map, part)
    if not (isinstance(term.verb, Ew) and term.verb.fn == "add"):
        return None
    for one, other in ((0, 1), (1, 0)):
        bias = _constant(trial, term.args[other], term.verb.maps[other], term.size)
        inner = _shown(trial, term.args[one], leaf, part) if bias is not None else None
        if inner is not None and inner.bias is None and inner.index.size == term.size:
            view = term.verb.maps[one]
            moved = inner if view is None else _through(trial, inner, view, part)
            return None if moved is None else Shown(moved.index, bias)
    return None


def _through(trial: Trial, inner: Shown, view: Map, part: bool) -> Shown | None:
    """What is seen through a permutation, or through one of a ``part``; None if the view is neither."""
    maps, bias = trial.terms.maps, inner.bias
    if view.size == inner.index.size or not part:
        if view.size != inner.index.size or maps.inverse(view) is None:
            return None
    elif view.has_zero or view.size > inner.index.size or not distinct(view.index):
        return None
    index = maps.compose(inner.index, view)
    if bias is not None:
        seen = maps.compose(bias[1], view)
        assert seen is not None
        bias = bias[0], seen
    return None if index is None else Shown(index, bias)


def _constant(trial: Trial, cls: int, view: Map | None, size: int) -> tuple[np.ndarray, Map] | None:
    """A constant operand, and the map of its elements that are added to ``size`` others."""
    terms = trial.algebra.terms
    scalar = terms.scalar(cls)
    array = terms.arrays.get(cls)
    if array is None:
        return None if scalar is None else (np.asarray([scalar]), terms.maps.spread(size))
    if array.size == 1:
        return array, terms.maps.spread(size)
    if view is None:
        return (array, terms.maps.whole(size)) if array.size == size else None
    return array, view


def per_channel(bias: tuple[np.ndarray, Map], order: Map, channels: int, maps: Maps) -> np.ndarray | None:
    """The bias [channels] of a bias per element, if it depends on the channel alone; ``order`` as for :func:`by_channel`."""
    array, view = bias
    seen = by_channel(view, order, channels, maps)
    if seen is not None:
        return np.asarray(array[seen.index - 1])
    table = np.empty(view.size, array.dtype)
    table[order.index - 1] = array[view.index - 1]
    rows = table.reshape(-1, channels)
    return rows[-1] if bool((rows == rows[-1]).all()) else None


def by_channel(view: Map, order: Map, channels: int, maps: Maps) -> Map | None:
    """The map [channels] of what a view shows at each channel, where that is all it depends on.

    ``order`` says where each element of the view stands in [rows, channels].
    """
    back = maps.inverse(order)
    seen = None if back is None else maps.compose(view, back)
    first = maps.compose(seen, maps.whole(channels))
    spread = maps.compose(first, maps.box((view.size // channels, channels), (0, 1)))
    return first if seen is not None and spread is seen else None


def order_of(
    index: Map, counts: Sequence[int], shape: Sequence[int], maps: Maps
) -> tuple[tuple[int, ...], ...] | None:
    """The axes that each dim of ``shape`` runs over, slowest first, for a map ``index`` into axes of ``counts``.

    None where the elements are no transposition of the axes, or where a dim ends within an axis. Axes of one window
    are left out.
    """
    limits.current().check_time()
    back = maps.inverse(index)
    found = None if back is None else dims_over(back, counts, shape, maps)
    return None if found is None else found[0]


def dims_over(
    view: Map, counts: Sequence[int], shape: Sequence[int], maps: Maps
) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]] | None:
    """(the axes that each dim of ``shape`` runs over, slowest first; where it begins in that dim) for a map ``view`` of
    axes of ``counts`` into a tensor of ``shape``; None where it is no box of it, or where a dim ends within an axis.

    Axes of one window are left out.
    """
    ones = np.asarray([math.prod(counts[a + 1 :]) if n > 1 else 0 for a, n in enumerate(counts)])
    start = int(view.at(np.zeros(1, np.int64))[0]) - 1
    strides = [int(step) - 1 - start for step in view.at(ones)]
    form = strided.normal(counts, start, strides)
    if form is None or maps.of(form) is not view:
        return None
    axes = sorted((a for a, n in enumerate(counts) if n > 1), key=lambda a: -strides[a])
    groups: list[tuple[int, ...]] = []
    begins = tuple(int(at) for at in np.unravel_index(start, tuple(shape)))
    for d, (dim, begin) in enumerate(zip(shape, begins, strict=True)):
        span = step = math.prod(shape[d + 1 :])
        groups.append(tuple(a for a in axes if step <= strides[a] < step * dim))
        for a in reversed(groups[-1]):
            if strides[a] != span:
                return None
            span *= counts[a]
        if begin + span // step > dim:
            return None
    return (tuple(groups), begins) if sum(map(len, groups)) == len(axes) else None
