"""One contraction at one size: where its data come from, and what window the composed map is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.kernel import geometry
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.patches.product import Product, operands, product
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import Axis, NoWindow, Window, distinct, recognise


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A window seen at one size.

    ``canonical`` is int [contraction output size]: the flat index into [counts of the axes ..., out_channels] of each
    element that the contraction node gives. ``weight_index`` and ``groups`` as in
    :class:`graphcheck.patches.site.Site`.
    """

    source: ir.Value
    axes: tuple[Axis, ...]
    canonical: np.ndarray
    weight: np.ndarray
    weight_value: ir.Value
    weight_index: np.ndarray
    groups: int
    alpha: float
    bias: np.ndarray | None
    direct: bool
    flattened: bool
    columns: tuple[np.ndarray, np.ndarray]  # the window's offsets and positions, for the pattern
    kernel_shape: tuple[int, ...]


class Reader:
    """Reads the contractions of one trial."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.terms = trial.algebra.terms
        self.carriers: dict[int, list[ir.Value]] = {}
        for value, found in trial.values.items():
            if isinstance(found, Tensor):
                self.carriers.setdefault(found.cls, []).append(value)

    def read(self, source: ir.Node, node: Node, inputs: tuple[Value, ...], *, as_it_is: bool = False) -> Reading | None:
        """The window of a contraction, or None for a plain projection; raises :class:`NoWindow` with the reason.

        With ``as_it_is`` a Conv is read over its own operand, whatever movement made that.
        """
        pair = operands(node, list(inputs))
        assert pair is not None
        data, weight = (source.inputs[i] for i in pair)
        x, w = inputs[pair[0]], inputs[pair[1]]
        assert isinstance(x, Tensor) and isinstance(w, np.ndarray) and data is not None and weight is not None
        carrier = self.carriers[x.cls][0]
        moved = self.terms.terms[x.cls].kind == "move"
        conv = "Conv" in node.op_type
        if (not moved and carrier is data) or as_it_is:
            return self._direct(node, inputs, data, weight) if conv else None
        if not moved and not conv and self._shape(carrier)[-1:] == x.shape[-1:] == self._columns_of(node, pair, w):
            return None  # the rows are those of the tensor itself
        found = self._product(node, inputs, pair)
        if found is None:
            return None
        if moved and len(self.sources(x.cls)) > 1:
            self._check_many(found, x)
            return None
        return self._indirect(node, inputs, found, data, weight)

    def _shape(self, value: ir.Value) -> tuple[int, ...]:
        found = self.trial.tensor(value)
        assert found is not None
        return found.shape

    @staticmethod
    def _columns_of(node: Node, pair: tuple[int, int], w: np.ndarray) -> tuple[int, ...]:
        """The number of columns of the plain case (MatMul, Gemm of a 2-D weight as second operand); () otherwise."""
        if pair != (0, 1) or w.ndim != 2 or node.op_type not in ("MatMul", "Gemm") or node.attr("transA", 0):
            return ()
        return (w.shape[1 if node.attr("transB", 0) else 0],)

    def _product(self, node: Node, inputs: tuple[Value, ...], pair: tuple[int, int]) -> Product | None:
        memo = self.trial.algebra.memo
        key = ("product", node.key(), tuple(None if x is None else tuple(x.shape) for x in inputs), pair)
        if key not in memo:
            memo[key] = product(self.trial.algebra, node, list(inputs), *pair)
        return memo[key]  # type: ignore[no-any-return]

    def sources(self, cls: int) -> list[int]:
        """The tensors that a class draws on, if it is moved: a constant of zeros is padding, no source."""
        if self.terms.terms[cls].kind != "move":
            return [cls]
        return [a for a in self.terms.terms[cls].args if not self._is_zero(a)]

    def _is_zero(self, cls: int) -> bool:
        return self.terms.scalar(cls) == 0.0

    def index_of(self, cls: int) -> tuple[int, np.ndarray]:
        """(source class, 1-based index into it of every element) of a class that draws on one tensor."""
        term = self.terms.terms[cls]
        if term.kind != "move":
            return cls, np.arange(1, self.terms.size(cls) + 1)
        index = term.params[0].index.astype(np.int64)
        if len(term.args) == 1:
            return term.args[0], index
        (source,) = self.sources(cls)
        begin = sum(self.terms.size(a) for a in term.args[: term.args.index(source)])
        return source, np.where((index > begin) & (index <= begin + self.terms.size(source)), index - begin, 0)

    def _check_many(self, found: Product, x: Tensor) -> None:
        """Rows that each lie within one tensor are a plain projection of several; anything else is refused."""
        term = self.terms.terms[x.cls]
        ends = np.cumsum([self.terms.size(a) for a in term.args])
        at = np.concatenate([[0], term.params[0].index])[found.columns]
        which = np.searchsorted(ends, at, side="left")
        if not bool((which == which[..., :1]).all()) or not bool(
            (np.diff(at, axis=-1) == at[0, 0, 1:] - at[0, 0, :-1]).all()
        ):
            raise NoWindow("the moved data come from several tensors")

    def _indirect(
        self, node: Node, inputs: tuple[Value, ...], found: Product, data: ir.Value, weight: ir.Value
    ) -> Reading | None:
        """The first tensor, from where movement begins down to the data operand, over which the map is a window."""
        x = inputs[found.data]
        assert isinstance(x, Tensor)
        source, index = self.index_of(x.cls)
        reason: NoWindow | None = None
        plain = None
        for value, table in self._candidates(source, np.concatenate([[0], index])[found.columns], data):
            try:
                window = self._recognise(table, self._shape(value))
                reading = self._reading(value, window, found, inputs, weight, node)
            except NoWindow as error:
                reason = reason or error
                continue
            if window.is_window and window.is_split and reason is not None:
                continue  # rows gathered from no window, and turned: the reason is theirs
            if window.is_window:
                own = value.producer() is not None and window.on_first_axis and len(window.axes) > 2
                return None if own else reading
            if "Conv" not in node.op_type and reason is None:
                return None  # what is plain only behind a movement that is no window is refused
            plain = plain or reading
        if plain is None and reason is not None:
            raise reason
        return plain

    def _recognise(self, table: np.ndarray, shape: tuple[int, ...]) -> Window:
        key = ("window", table.shape, shape, hash(table.tobytes()))
        memo = self.trial.algebra.memo
        if key not in memo:
            try:
                memo[key] = recognise(
                    table.reshape(-1, table.shape[-1]) if table.shape[0] == 1 else _joined(table), shape
                )
            except NoWindow as error:
                memo[key] = error
        if isinstance(memo[key], NoWindow):
            raise memo[key]
        return memo[key]  # type: ignore[no-any-return]

    def _candidates(self, source: int, table: np.ndarray, data: ir.Value) -> Iterator[tuple[ir.Value, np.ndarray]]:
        """Tensors that may be the window's input, nearest to the source first, each with the map into it."""
        carriers = self.carriers.get(source, [])
        yield from ((value, table) for value in carriers)
        for value in _behind(data, set(carriers)):
            tensor = self.trial.tensor(value)
            if tensor is None or self.terms.terms[tensor.cls].kind != "move" or len(self.sources(tensor.cls)) != 1:
                continue
            begin, index = self.index_of(tensor.cls)
            if begin != source:
                continue
            seen = index[index > 0]
            back = np.zeros(self.terms.size(source) + 1, np.int64)
            back[index] = np.arange(1, index.size + 1)
            back[0] = 0
            if distinct(seen) and bool((back[table[table > 0]] > 0).all()):
                yield value, back[table]

    def _kernel(self, node: Node, inputs: tuple[Value, ...]) -> int:
        return math.prod(inputs[1].shape[2:]) if "Conv" in node.op_type else 1  # type: ignore[union-attr]

    def _reading(
        self, value: ir.Value, window: Window, found: Product, inputs: tuple[Value, ...], weight: ir.Value, node: Node
    ) -> Reading | None:
        w = inputs[found.weight]
        assert isinstance(w, np.ndarray)
        groups, filters = found.columns.shape[0], found.kernel.shape[1]
        flattened = not window.is_window and groups == 1 and self._kernel(node, inputs) > 1
        if not window.is_window and not flattened:
            return None
        index, site_groups = _weight_index(window, found)
        counts = [axis.count for axis in window.axes]
        row_at = np.ravel_multi_index(tuple(window.positions), counts)
        g, r, n = np.unravel_index(found.place, (groups, found.columns.shape[1], filters))
        if flattened and not distinct(row_at):
            raise NoWindow("the rows are not a grid of windows, each once")
        canonical = row_at[r] * (groups * filters) + g * filters + n
        kernel = tuple(axis.kernel for axis in window.axes if axis.role == "spatial")
        if flattened:
            kernel = tuple(inputs[1].shape[2:])  # type: ignore[union-attr]
        bias = self._bias(found, inputs, canonical % (groups * filters), groups * filters)
        return Reading(
            value, window.axes, canonical, w, weight, index, site_groups, found.alpha, bias, False, flattened,
            (window.offsets, window.positions), kernel,
        )  # fmt: skip

    @staticmethod
    def _bias(found: Product, inputs: tuple[Value, ...], channel: np.ndarray, filters: int) -> np.ndarray | None:
        """The bias that the node itself adds, one element for each filter."""
        if found.bias is None:
            return None
        given = inputs[found.bias_input]
        if not isinstance(given, np.ndarray):
            raise NoWindow("the bias is not constant")
        first = np.zeros(filters, np.int64)
        first[channel] = found.bias
        if not bool((first[channel] == found.bias).all()):
            raise NoWindow("the bias differs between the rows")
        return given.reshape(-1)[first]

    def _direct(self, node: Node, inputs: tuple[Value, ...], data: ir.Value, weight: ir.Value) -> Reading | None:
        """An ordinary Conv: the geometry is in its attributes."""
        x, w, bias = inputs[0], inputs[1], inputs[2] if len(inputs) > 2 else None
        assert isinstance(x, Tensor) and isinstance(w, np.ndarray)
        if math.prod(w.shape[2:]) == 1:
            return None
        if bias is not None and not isinstance(bias, np.ndarray):
            raise NoWindow("the bias is not constant")
        window = geometry.Window.resolve(node.attributes, x.shape[2:], w.shape[2:])
        out, rank = window.out_shape(x.shape[2:]), len(w.shape) - 2
        axes = [Axis("batch", x.shape[0], count=x.shape[0]), Axis("channel", x.shape[1])]
        for i, size in enumerate(x.shape[2:]):
            geometry_ = (window.kernel_shape[i], window.strides[i], window.dilations[i], -window.pads[i])
            axes.append(Axis("spatial", size, *geometry_, out[i]))
        canonical = np.arange(x.shape[0] * w.shape[0] * math.prod(out)).reshape(x.shape[0], *out, w.shape[0])
        canonical = np.moveaxis(canonical, -1, 1).reshape(-1)
        nothing: Any = np.zeros((0, 0), np.int64)
        return Reading(
            data, tuple(axes), canonical, w, weight, np.arange(w.size).reshape(w.shape), node.attr("group", 1), 1.0,
            None if bias is None else bias.reshape(-1), rank > 0, False, (nothing, nothing), tuple(w.shape[2:]),
        )  # fmt: skip


def _joined(table: np.ndarray) -> np.ndarray:
    """[groups, rows, k] as [rows, groups * k]."""
    return np.moveaxis(table, 0, 1).reshape(table.shape[1], -1)


def _behind(data: ir.Value, stop: set[ir.Value]) -> list[ir.Value]:
    """The values from the first operands behind ``data`` back to the source, source side first."""
    found: list[ir.Value] = []
    at = data
    while at not in stop and len(found) < 256:
        found.append(at)
        producer = at.producer()
        if producer is None or not producer.inputs or producer.inputs[0] is None:
            break
        at = producer.inputs[0]
    return found[::-1]


def _weight_index(window: Window, found: Product) -> tuple[np.ndarray, int]:
    """[out_channels, in_channels / groups, *kernel] into the weight, and groups; -1 where no column has the offset."""
    groups, _, k = found.columns.shape
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
            raise NoWindow("an offset occurs twice in a row, which would need an addition of weights")
        index[g * filters : (g + 1) * filters, cell] = found.kernel[g][:, used[g]]
    return index.reshape(groups * filters, per, *kernel), groups if blocks else 1
