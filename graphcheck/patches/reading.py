"""One contraction in one trial: where its data come from, and what window the composed map is."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.graphs import walk
from graphcheck.kernel import geometry
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.verbs import Move
from graphcheck.patches.contraction import Traced
from graphcheck.patches.ends import by_channel
from graphcheck.patches.product import Product, product
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import Axis, NoWindow, WindowMap, distinct, recognised

_FRAMES = frozenset(["Pad", "Slice", "Identity", "Cast"])  # what may put zeros around an image, or cut its borders off
REPEATED = "an offset occurs twice in a row, and its weights would be added, as --stills does for a repeated image"


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """The window of a contraction in one trial.

    ``canonical`` is the map of the contraction's output into [counts of the axes ..., out_channels]. ``weight_index``
    and ``groups`` as in :class:`graphcheck.patches.site.Site`.
    """

    traced: Traced
    source: ir.Value
    axes: tuple[Axis, ...]
    canonical: Map
    weight_index: np.ndarray
    groups: int
    alpha: float
    bias: np.ndarray | None
    direct: bool
    flattened: bool
    columns: tuple[np.ndarray, np.ndarray]  # the window's offsets and positions, for the pattern
    kernel_shape: tuple[int, ...]

    @property
    def filters(self) -> int:
        """Channels of the output, all groups together."""
        return int(self.weight_index.shape[0])


def read(traced: Traced, *, as_it_is: bool = False) -> Reading | None:
    """The window of a contraction, or None for a plain projection; raises :class:`NoWindow` with the reason.

    With ``as_it_is`` a Conv is read over its own operand, whatever movement made that.
    """
    trial, data = traced.trial, traced.data
    carrier = trial.carriers[data.cls][0]
    moved = isinstance(trial.terms.terms[data.cls].verb, Move)
    if (not moved and carrier is traced.values[0]) or as_it_is:
        return direct(traced) if traced.is_conv and math.prod(traced.kernel_shape) > 1 else None
    if not moved and not traced.is_conv and trial.shape(carrier)[-1:] == data.shape[-1:] == _plain_columns(traced):
        return None  # the rows are those of the tensor itself
    found = product_of(traced)
    if found is None:
        return None
    if moved and len(trial.sources(data.cls)) > 1:
        _check_many(found, traced)
        return None
    return _indirect(found, traced)


def _plain_columns(traced: Traced) -> tuple[int, ...]:
    """The number of columns of the plain case (MatMul, Gemm of a 2-D weight as second operand); () otherwise."""
    node, weight = traced.node, traced.weight
    plain = traced.pair == (0, 1) and weight.ndim == 2 and node.op_type in ("MatMul", "Gemm")
    return (weight.shape[1 if node.attr("transB", 0) else 0],) if plain and not node.attr("transA", 0) else ()


def product_of(traced: Traced) -> Product | None:
    """What a contraction sums; None if it is no plain one."""
    memo, node, inputs = traced.trial.algebra.memo, traced.node, traced.inputs
    key = ("product", node.key(), tuple(None if x is None else tuple(x.shape) for x in inputs), traced.pair)
    if key not in memo:
        memo[key] = product(traced.trial.algebra, node, list(inputs), *traced.pair)
    return memo[key]  # type: ignore[no-any-return]


def _check_many(found: Product, traced: Traced) -> None:
    """Rows that each lie within one tensor are a plain projection of several; anything else is refused."""
    terms = traced.trial.terms
    term = terms.terms[traced.data.cls]
    ends = np.cumsum([terms.size(a) for a in term.args])
    assert isinstance(term.verb, Move)
    for rows in _tables(terms.maps, term.verb.map, found.columns, found.shape[2]):
        which = np.searchsorted(ends, rows, side="left")
        if not bool((which == which[:, :1]).all()) or not bool((np.diff(rows) == np.diff(rows[:1])).all()):
            raise NoWindow("the moved data come from several tensors")


def _tables(maps: Maps, moved: Map, columns: Map, width: int) -> Iterator[np.ndarray]:
    """The first of the rows that ``columns`` make of movement, [1, width], which tells most; then all of them."""
    places = columns.at(np.arange(width)) - 1
    yield np.where(places < 0, 0, moved.at(np.maximum(places, 0)))[None]
    whole = maps.compose(moved, columns)
    assert whole is not None
    yield whole.index.reshape(-1, width)


def _indirect(found: Product, traced: Traced) -> Reading | None:
    """The first tensor, from where movement begins down to the data operand, over which the map is a window."""
    trial = traced.trial
    source, moved = trial.index_of(traced.data.cls)
    table = trial.terms.maps.compose(moved, found.columns)
    assert table is not None
    reason: NoWindow | None = None
    plain = None
    for value, seen in candidates(source, table, traced):
        try:
            window = window_of(seen, found.shape, trial.shape(value), trial)
            reading = _reading(value, window, found, traced)
        except NoWindow as error:
            reason = reason or error
            continue
        if window.is_window and window.is_split and reason is not None:
            continue  # rows gathered from no window, and turned: the reason is theirs
        if window.is_window:
            own = value.producer() is not None and window.on_first_axis and len(window.axes) > 2
            return None if own else reading
        if not traced.is_conv and reason is None:
            return None  # what is plain only behind a movement that is no window is refused
        plain = plain or reading
    if plain is None and reason is not None:
        raise reason
    return plain


def window_of(table: Map, sizes: tuple[int, int, int], shape: tuple[int, ...], trial: Trial) -> WindowMap:
    """The window of a map of [groups, rows, k] into a tensor of ``shape``; the groups' columns side by side."""
    memo, maps = trial.algebra.memo, trial.terms.maps
    key = ("window", table.key, sizes, shape)
    if key not in memo:
        try:
            rows = table if sizes[0] == 1 else maps.compose(table, maps.transpose(sizes, (1, 0, 2)))
            assert rows is not None
            memo[key] = recognised(rows, sizes[0] * sizes[2], shape)
        except NoWindow as error:
            memo[key] = error
    if isinstance(memo[key], NoWindow):
        raise memo[key]
    return memo[key]  # type: ignore[no-any-return]


def candidates(source: int, table: Map, traced: Traced) -> Iterator[tuple[ir.Value, Map]]:
    """Tensors that may be the window's input, nearest to the source first, each with the map into it."""
    trial, terms = traced.trial, traced.trial.terms
    carriers = trial.carriers.get(source, [])
    yield from ((value, table) for value in carriers)
    for value in _behind(traced.values[0], set(carriers)):
        tensor = trial.tensor(value)
        if tensor is None or not isinstance(terms.terms[tensor.cls].verb, Move) or len(trial.sources(tensor.cls)) != 1:
            continue
        begin, moved = trial.index_of(tensor.cls)
        seen = _into(moved, table, terms.size(source), terms.maps) if begin == source else None
        if seen is not None:
            yield value, seen


def _into(moved: Map, table: Map, size: int, maps: Maps) -> Map | None:
    """What ``table``, a map of a source of ``size`` elements, is of another map of it; None where that has not all of it,
    or some of it twice."""
    back = maps.inverse(moved) if moved.size == size else None
    if back is not None:
        return maps.compose(back, table)
    index, wanted = moved.index, table.index
    where = np.zeros(size + 1, np.int32 if index.size < 2**31 else np.int64)
    where[index] = np.arange(1, index.size + 1)
    where[0] = 0
    found = where[wanted] if distinct(index[index > 0]) else None
    return maps.intern(found) if found is not None and np.count_nonzero(found) == np.count_nonzero(wanted) else None


def _reading(value: ir.Value, window: WindowMap, found: Product, traced: Traced) -> Reading | None:
    flattened = not window.is_window and found.shape[0] == 1 and math.prod(traced.kernel_shape) > 1
    return reading_of(value, window, found, traced, flattened=flattened) if window.is_window or flattened else None


def reading_of(
    value: ir.Value, window: WindowMap, found: Product, traced: Traced, *, flattened: bool = False
) -> Reading:
    """The reading of a contraction over the windows of ``value``."""
    (groups, rows, _), filters, maps = found.shape, found.kernel.shape[1], traced.trial.terms.maps
    index, site_groups = index_of_weight(window, found)
    row_at = np.ravel_multi_index(tuple(window.positions), [axis.count for axis in window.axes])
    if not window.is_window and not distinct(row_at):
        raise NoWindow("the rows are not a grid of windows, each once")
    grouped = maps.transpose((rows, groups, filters), (1, 0, 2))  # [groups, rows, n] of [rows, groups * n]
    placed = maps.compose(maps.compose(maps.picked_rows(row_at, groups * filters), grouped), found.place)
    assert placed is not None
    kernel = tuple(axis.kernel for axis in window.axes if axis.role == "spatial")
    bias = own_bias(found, traced, placed, groups * filters)
    return Reading(
        traced, value, _stated(value, window.axes, traced), placed, index, site_groups, found.alpha, bias, False, flattened,
        (window.offsets, window.positions), traced.kernel_shape if flattened else kernel,
    )  # fmt: skip


def _stated(value: ir.Value, axes: tuple[Axis, ...], traced: Traced) -> tuple[Axis, ...]:
    """The axes of ``value`` with the padding behind that a Conv states, and a Pad or a Slice before it, where its own windows
    are those that were found."""
    spatial = [axis for axis in axes if axis.role == "spatial"]
    if not traced.is_conv or len(spatial) != len(traced.kernel_shape):
        return axes
    window = geometry.Window.resolve(traced.node.attributes, traced.data.shape[2:], traced.weight.shape[2:])
    begins, ends = window.pads[: len(spatial)], window.pads[len(spatial) :]
    before = itertools.takewhile(lambda v: v is not value, walk.chain(traced.values[0], lambda node: node.inputs[0]))
    own = list(zip(window.kernel_shape, window.strides, window.dilations, strict=True))
    placed = list(zip(traced.data.shape[2:], spatial, begins, strict=True))
    framed = all(node.op_type in _FRAMES for node in walk.makers(list(before)))
    whole = all((n, begin) == (a.size, -a.origin) for n, a, begin in placed)
    if own != [(a.kernel, a.stride, a.dilation) for a in spatial] or not (framed or whole):
        return axes
    behind = [n - a.size + a.origin + begin for n, a, begin in placed]
    left = iter(end + more for end, more in zip(ends, behind, strict=True))
    return tuple(dataclasses.replace(a, end=next(left)) if a.role == "spatial" else a for a in axes)


def own_bias(found: Product, traced: Traced, placed: Map, filters: int) -> np.ndarray | None:
    """The bias that the node itself adds, one element for each filter: Gemm's times its beta, as a runtime folds it."""
    if found.bias is None:
        return None
    given = traced.inputs[found.bias_input]
    if not isinstance(given, np.ndarray):
        raise NoWindow("the bias is not constant", "GC302")
    seen = by_channel(found.bias, placed, filters, traced.trial.terms.maps)
    if seen is None:
        raise NoWindow("the bias differs between the rows")
    bias, beta = np.asarray(given.reshape(-1)[seen.index - 1]), traced.node.attr("beta", 1.0)
    if beta == 1.0 or "Gemm" not in traced.node.op_type:
        return bias
    return np.asarray(np.asarray(beta, np.float32).astype(bias.dtype) * bias).astype(bias.dtype)


def direct(traced: Traced) -> Reading:
    """An ordinary Conv: the geometry is in its attributes."""
    x, w, bias = traced.data, traced.weight, traced.inputs[2] if len(traced.inputs) > 2 else None
    if bias is not None and not isinstance(bias, np.ndarray):
        raise NoWindow("the bias is not constant", "GC302")
    window = geometry.Window.resolve(traced.node.attributes, x.shape[2:], w.shape[2:])
    out, rank = window.out_shape(x.shape[2:]), len(w.shape) - 2
    axes = [Axis("batch", x.shape[0], count=x.shape[0]), Axis("channel", x.shape[1])]
    for i, size in enumerate(x.shape[2:]):
        geometry_ = (window.kernel_shape[i], window.strides[i], window.dilations[i], -window.pads[i])
        axes.append(Axis("spatial", size, *geometry_, out[i], window.pads[rank + i]))
    placed = traced.trial.terms.maps.transpose((x.shape[0], math.prod(out), w.shape[0]), (0, 2, 1))
    nothing: Any = np.zeros((0, 0), np.int64)
    return Reading(
        traced, traced.values[0], tuple(axes), placed, np.arange(w.size).reshape(w.shape),
        traced.node.attr("group", 1), 1.0, None if bias is None else bias.reshape(-1), rank > 0, False,
        (nothing, nothing), traced.kernel_shape,
    )  # fmt: skip


def _behind(data: ir.Value, stop: Collection[ir.Value]) -> list[ir.Value]:
    """The values from the first operands behind ``data`` back to the source, source side first."""
    first = walk.chain(data, lambda node: node.inputs[0] if node.inputs else None)
    return list(itertools.takewhile(lambda value: value not in stop, itertools.islice(first, 256)))[::-1]


def index_of_weight(window: WindowMap, found: Product) -> tuple[np.ndarray, int]:
    """[out_channels, in_channels / groups, *kernel] into the weight, and groups; -1 where no column has the offset."""
    groups, _, k = found.shape
    filters = found.kernel.shape[1]
    channel = [i for i, axis in enumerate(window.axes) if axis.role == "channel"]
    spatial = [i for i, axis in enumerate(window.axes) if axis.role == "spatial"]
    sizes, kernel = [window.axes[i].size for i in channel], [window.axes[i].kernel for i in spatial]
    channels, volume = math.prod(sizes), math.prod(kernel)
    which = np.ravel_multi_index(tuple(window.offsets[channel]), sizes) if channel else np.zeros(groups * k, np.int64)
    where = np.ravel_multi_index(tuple(window.offsets[spatial]), kernel) if spatial else np.zeros(groups * k, np.int64)
    which, where, used = which.reshape(groups, k), where.reshape(groups, k), window.used.reshape(groups, k)
    per = channels // groups
    blocks = (
        groups > 1 and channels % groups == 0 and bool((which // max(per, 1) == np.arange(groups)[:, None])[used].all())
    )
    if not blocks:
        per = channels
    index = np.full((groups * filters, per * volume), -1, np.int64)
    for g in range(groups):
        cell = ((which[g] % per if blocks else which[g]) * volume + where[g])[used[g]]
        if not distinct(cell):
            raise NoWindow(REPEATED)
        index[g * filters : (g + 1) * filters, cell] = found.kernel[g][:, used[g]]
    return index.reshape(groups * filters, per, *kernel), groups if blocks else 1
