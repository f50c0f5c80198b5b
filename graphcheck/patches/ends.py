"""From the contraction's result on: bias, reshapes and transposes behind it belong to the patch embedding too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.kernel.terms.verbs import Ew, Move
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import distinct


@dataclasses.dataclass(frozen=True, eq=False)
class Shown:
    """A value told by the contraction's result: ``index`` int [size], its elements; ``bias`` [size] added, or None."""

    index: np.ndarray
    bias: np.ndarray | None


def after(result: ir.Value, trial: Trial) -> list[ir.Value]:
    """Values that show every element of ``result`` once in its type, moved and with constants added, in graph order."""
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
                if shown(out, result, trial) is not None:
                    values.append(out)
                    queue.append(out)
    return values


def shown(value: ir.Value, result: ir.Value, trial: Trial) -> Shown | None:
    """How ``value`` shows the elements of ``result``; None if it is not all of them, each once."""
    tensor, leaf = trial.tensor(value), trial.tensor(result)
    if tensor is None or leaf is None or math.prod(tensor.shape) != math.prod(leaf.shape):
        return None
    return _shown(trial, tensor.cls, leaf.cls)


def _shown(trial: Trial, cls: int, leaf: int) -> Shown | None:
    terms = trial.algebra.terms
    if cls == leaf:
        return Shown(np.arange(terms.size(leaf)), None)
    term = terms.terms[cls]
    if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero:
        inner = _shown(trial, term.args[0], leaf)
        return None if inner is None or term.size != inner.index.size else _through(inner, term.verb.map.index - 1)
    if not (isinstance(term.verb, Ew) and term.verb.fn == "add"):
        return None
    for one, other in ((0, 1), (1, 0)):
        bias = _constant(trial, term.args[other], term.verb.maps[other], term.size)
        inner = _shown(trial, term.args[one], leaf) if bias is not None else None
        if inner is not None and inner.bias is None and inner.index.size == term.size:
            view = term.verb.maps[one]
            moved = inner if view is None else _through(inner, view.index - 1)
            return None if moved is None else Shown(moved.index, bias)
    return None


def _through(inner: Shown, index: np.ndarray) -> Shown | None:
    if not distinct(index):
        return None
    return Shown(inner.index[index], None if inner.bias is None else inner.bias[index])


def _constant(trial: Trial, cls: int, view: object, size: int) -> np.ndarray | None:
    """The elements of a constant operand, spread to ``size``."""
    terms = trial.algebra.terms
    scalar = terms.scalar(cls)
    array = terms.arrays.get(cls)
    if array is None:
        return None if scalar is None else np.full(size, scalar)
    if array.size == 1 or view is None:
        return np.broadcast_to(array, (size,)) if array.size in (1, size) else None
    return array[view.index - 1]  # type: ignore[attr-defined]


def per_channel(bias: np.ndarray, channel: np.ndarray, channels: int) -> np.ndarray | None:
    """The bias [channels] of a bias per element, if it depends on the channel alone."""
    first = np.zeros(channels, bias.dtype)
    first[channel] = bias
    return first if bool((first[channel] == bias).all()) else None


def order_of(index: np.ndarray, counts: Sequence[int], shape: Sequence[int]) -> tuple[tuple[int, ...], ...] | None:
    """The axes that each dim of ``shape`` runs over, slowest first, for ``index`` [size] into axes of ``counts``.

    None where the elements are no transposition of the axes, or where a dim ends within an axis. Axes of one window
    are left out.
    """
    limits.current().check_time()
    size = math.prod(counts)
    back = np.empty(size, np.int64)
    back[index] = np.arange(size)
    table = back.reshape(tuple(counts))
    strides = []
    for axis, count in enumerate(counts):
        step = np.take(table, 1, axis=axis).reshape(-1)[0] if count > 1 else 0
        strides.append(int(step))
        table_axis = np.arange(count).reshape([-1 if i == axis else 1 for i in range(len(counts))]) * int(step)
        table = table - table_axis
    if bool(table.any()):
        return None
    axes = sorted((a for a, n in enumerate(counts) if n > 1), key=lambda a: -strides[a])
    groups: list[tuple[int, ...]] = []
    for dim in shape:
        group: list[int] = []
        while math.prod(counts[a] for a in group) < dim and axes:
            group.append(axes.pop(0))
        if math.prod(counts[a] for a in group) != dim:
            return None
        groups.append(tuple(group))
    return tuple(groups) if not axes else None
