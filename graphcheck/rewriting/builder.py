"""Writes nodes for one site: every value's dims are known as numbers or as expressions of the site's input dims."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.patches.site import Site, SiteAxis, Unembedding

RULE = "graphcheck.rule"
ARRANGED = "graphcheck.arranged"  # on a new initializer, in memory: how it shows the site's weight or bias


@dataclasses.dataclass(frozen=True, order=True)
class Atom:
    """``(size of input axis + add) // div + plus``, at run time."""

    axis: int
    add: int = 0
    div: int = 1
    plus: int = 0


@dataclasses.dataclass(frozen=True)
class Dim:
    """A product of a number and run-time atoms."""

    number: int = 1
    atoms: tuple[Atom, ...] = ()

    def __mul__(self, other: Dim) -> Dim:
        return Dim(self.number * other.number, tuple(sorted((*self.atoms, *other.atoms))))

    @property
    def static(self) -> bool:
        """Whether it is a plain number."""
        return not self.atoms


Dims = tuple[Dim, ...]


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims."""
    result = Dim()
    for dim in dims:
        result = result * dim
    return result


def size_of(site: Site, at: int, padded: bool = False) -> Dim:
    """The size of an axis of the image, with its pads (and cuts) if ``padded``."""
    axis = site.axes[at]
    if isinstance(site, Unembedding):
        return Dim(axis.size or 1) if axis.role == "channel" else count_of(site, at) * Dim(axis.kernel)
    add = axis.begin + axis.end if padded else 0
    return Dim(axis.size + add) if axis.size is not None else Dim(1, (Atom(at, add),))


def count_of(site: Site, at: int) -> Dim:
    """The number of windows along an axis of the image."""
    axis: SiteAxis = site.axes[at]
    if axis.count is not None:
        return Dim(axis.count)
    if isinstance(site, Unembedding):
        return _told(site, at)
    if axis.role != "spatial":
        return size_of(site, at)
    add = axis.begin + axis.end - axis.extent
    if axis.stride == 1:
        return Dim(1, (Atom(at, add + 1),))
    atom = Atom(at, 0, axis.stride) if add == -axis.stride else Atom(at, add, axis.stride, 1)
    return Dim(1, (atom,))


def _told(site: Unembedding, at: int) -> Dim:
    """The number of windows along an axis, from the dim of the input that it stands in."""
    dim = next(d for d, group in enumerate(site.order) if at in group)
    others = [site.axes[a].count for a in site.order[dim] if a != at]
    if None in others:
        raise Cannot("its input has two axes of unknown size in one dim")
    return Dim(1, (Atom(dim, -sum(site.taken[dim]), math.prod(n or 1 for n in others)),))


def dims_of_input(site: Site) -> Dims:
    """The dims of a site's input."""
    if isinstance(site, Unembedding):
        return tuple(Dim(1, (Atom(at),)) if n is None else Dim(n) for at, n in enumerate(site.given))
    return tuple(size_of(site, i) for i in range(len(site.axes)))


def steps(perm: Sequence[int], rank: int) -> list[tuple[list[tuple[int, ...]], list[int]]]:
    """A transposition as few transpositions of at most ``rank`` axes: [(blocks of axes merged, their order), ...].

    Shortest by breadth-first search; three blocks or more can be put in any order, so every rank from 3 on will do.
    """
    start, goal = tuple(range(len(perm))), tuple(perm)
    if start == goal or len(perm) <= rank:
        return [([(a,) for a in start], list(perm))] if start != goal else []
    if rank < 3:
        raise Cannot(f"a transposition of {len(perm)} axes needs tensors of three dims at least")
    came: dict[tuple[int, ...], tuple[tuple[int, ...], list[tuple[int, ...]], list[int]]] = {}
    queue = [start]
    while goal not in came:
        nearer: list[tuple[int, ...]] = []
        for state in queue:
            for blocks, order in _turns(state, rank):
                after = tuple(a for at in order for a in blocks[at])
                if after not in came and after != start:
                    came[after] = (state, blocks, order)
                    nearer.append(after)
        queue = nearer
    path = []
    at = goal
    while at != start:
        at, blocks, order = came[at]
        path.append((blocks, order))
    return path[::-1]


def _turns(state: tuple[int, ...], rank: int) -> Iterator[tuple[list[tuple[int, ...]], list[int]]]:
    """Exchanges of two neighbouring runs, the rest merged before and behind them."""
    n = len(state)
    for i in range(n - 1):
        for j in range(i + 1, n):
            for k in range(j + 1, n + 1):
                parts = [state[:i], state[i:j], state[j:k], state[k:]]
                blocks = [part for part in parts if part]
                if len(blocks) <= rank:
                    lead = 1 if i else 0
                    yield blocks, [*range(lead), lead + 1, lead, *range(lead + 2, len(blocks))]


class Cannot(Exception):
    """Why a form cannot be written here; ``reason`` is a refusal's, with its code."""

    def __init__(self, reason: str, code: str = "GC307") -> None:
        self.reason = Coded(reason, code)
        super().__init__(reason)


class Builder:
    """Collects the nodes and initializers that compute a site's output anew."""

    def __init__(
        self, model: ir.Model, source: ir.Value, dims: Dims, name: str, rule: str, dtype: ir.DataType | None = None,
        max_rank: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.source, self.rule, self.max_rank = model, source, rule, max_rank
        self.opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self.dims: dict[ir.Value, Dims] = {source: dims}
        self.dtype = dtype or source.dtype or ir.DataType.FLOAT
        self._prefix = f"{name}/graphcheck"
        self._taken = {v.name for v in model.graph.initializers.values()} | {v.name for v in model.graph.inputs}
        self._taken |= {v.name for n in model.graph.all_nodes() for v in n.outputs}
        self._node_names = {n.name for n in model.graph.all_nodes()}
        self._numbers: dict[Atom | Dim, ir.Value] = {}
        self._shape: ir.Value | None = None

    # -- nodes ---------------------------------------------------------------------------------------------------

    def op(
        self, op_type: str, inputs: Sequence[ir.Value | None], dims: Dims | None, dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:  # fmt: skip
        """One node with one output of ``dims`` (None: not told), in the default domain."""
        if self.max_rank is not None and dims is not None and len(dims) > self.max_rank:
            raise Cannot(f"{op_type} would give a tensor of {len(dims)} dims, {self.max_rank} are allowed")
        self.needs(op_type, dtype or self.dtype if op_type in ("Conv", "ConvTranspose", "MatMul") else None)
        node = ir.node(op_type, inputs, attributes, name=self._name(f"{self._prefix}/{op_type}", self._node_names))
        node.metadata_props[RULE] = self.rule
        value = node.outputs[0]
        value.name = self._name(f"{self._prefix}/{op_type}_output", self._taken)
        value.dtype = dtype or self.dtype
        if dims is not None:
            self.dims[value] = dims
            value.shape = ir.Shape([self._declared(d) for d in dims])
        self.nodes.append(node)
        return value

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """A new initializer."""
        value = ir.Value(name=self._name(f"{self._prefix}/{name}", self._taken))
        array = np.ascontiguousarray(array)
        value.const_value = ir.tensor(array, name=value.name)
        value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)
        self.constants.append(value)
        self.dims[value] = tuple(Dim(n) for n in array.shape)
        return value

    def needs(self, op_type: str, dtype: ir.DataType | None = None) -> None:
        """Raise :class:`Cannot` unless the model's opset has the operator (for the element type)."""
        least = {"Slice": 10, "Pad": 11, "Range": 11, "Reshape": 5}.get(op_type, 1)
        if self.opset < least:
            raise Cannot(f"opset {self.opset} lacks the {op_type} that is needed (opset {least})")
        if dtype is None:
            return
        schema = onnx.defs.get_schema(op_type, self.opset, "")
        allowed = next(c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == "T")
        kind = {"float32": "float", "float64": "double"}.get(str(np.dtype(dtype.numpy())), str(np.dtype(dtype.numpy())))
        if f"tensor({kind})" not in allowed:
            raise Cannot(f"{op_type} of opset {self.opset} takes no {kind}")

    @staticmethod
    def _name(wanted: str, taken: set[Any]) -> str:
        name, at = wanted, 1
        while name in taken:
            name, at = f"{wanted}_{at}", at + 1
        taken.add(name)
        return name

    def _declared(self, dim: Dim) -> int | str | None:
        if dim.static:
            return dim.number
        shape = self.source.shape
        if dim.number == 1 and len(dim.atoms) == 1 and dim.atoms[0] == Atom(dim.atoms[0].axis) and shape is not None:
            size = shape[dim.atoms[0].axis]
            return size if isinstance(size, int) else size.value
        return None

    # -- movement ------------------------------------------------------------------------------------------------

    def reshape(self, x: ir.Value, dims: Dims) -> ir.Value:
        """``x`` in other dims; at most one of them is left to -1, what else is dynamic is copied or computed."""
        have = self.dims[x]
        if have == dims:
            return x
        plain: list[int | None] = []
        for at, dim in enumerate(dims):
            same = at < len(have) and have[at] == dim
            plain.append(dim.number if dim.static else 0 if same else None)
        missing = [at for at, n in enumerate(plain) if n is None]
        if len(missing) <= 1:
            shape = self.constant(np.asarray([-1 if n is None else n for n in plain], np.int64), "shape")
        else:
            shape = self.vector(dims)
        return self.op("Reshape", [x, shape], dims, self._dtype(x))

    def transpose(self, x: ir.Value, perm: Sequence[int]) -> ir.Value:
        """``x`` with its axes in the order of ``perm``."""
        if list(perm) == list(range(len(perm))):
            return x
        return self.op("Transpose", [x], tuple(self.dims[x][p] for p in perm), self._dtype(x), perm=list(perm))

    def move(self, x: ir.Value, atoms: Dims, perm: Sequence[int], dims: Dims) -> ir.Value:
        """Reshape to ``atoms``, Transpose, Reshape to ``dims``: in steps where a rank limit asks for them."""
        for blocks, order in steps(perm, self.max_rank or len(perm)):
            x = self.reshape(x, tuple(product(atoms[a] for a in block) for block in blocks))
            x = self.transpose(x, order)
        return self.reshape(x, dims)

    def slice(
        self, x: ir.Value, cuts: Mapping[int, tuple[int, int]], dims: Dims, steps: Mapping[int, int] | None = None
    ) -> ir.Value:
        """``x`` from start to end (as numpy counts them; 2**63 - 1 for no end) along some axes, in ``steps`` there."""
        if not cuts:
            return x
        starts, ends = zip(*cuts.values(), strict=True)
        parts = [np.asarray(v, np.int64) for v in (starts, ends, tuple(cuts))]
        if steps:
            parts.append(np.asarray([steps.get(axis, 1) for axis in cuts], np.int64))
        named = [self.constant(v, n) for v, n in zip(parts, ("starts", "ends", "axes", "steps"), strict=False)]
        return self.op("Slice", [x, *named], dims, self._dtype(x))

    def slice_to(self, x: ir.Value, ends: Mapping[int, Dim]) -> ir.Value:
        """``x`` up to an end computed at run time, along some axes."""
        if not ends:
            return x
        dims = tuple(ends.get(at, dim) for at, dim in enumerate(self.dims[x]))
        axes = self.constant(np.asarray(list(ends), np.int64), "axes")
        starts = self.constant(np.zeros(len(ends), np.int64), "starts")
        return self.op("Slice", [x, starts, self.vector(tuple(ends.values())), axes], dims, self._dtype(x))

    def pad(self, x: ir.Value, begin: Sequence[int], end: Sequence[int], dims: Dims) -> ir.Value:
        """``x`` with zeros around it."""
        if not any(begin) and not any(end):
            return x
        pads = self.constant(np.asarray([*begin, *end], np.int64), "pads")
        return self.op("Pad", [x, pads], dims, self._dtype(x))

    @staticmethod
    def _dtype(x: ir.Value) -> ir.DataType | None:
        return x.dtype

    # -- run-time sizes ------------------------------------------------------------------------------------------

    def vector(self, dims: Dims) -> ir.Value:
        """Dims as a 1-D int64 tensor; a constant where they are numbers."""
        if all(d.static for d in dims):
            return self.constant(np.asarray([d.number for d in dims], np.int64), "shape")
        parts: list[ir.Value] = []
        run: list[int] = []
        for dim in (*dims, None):
            if dim is not None and dim.static:
                run.append(dim.number)
                continue
            if run:
                parts.append(self.constant(np.asarray(run, np.int64), "shape"))
                run = []
            if dim is not None:
                parts.append(self.number(dim))
        if len(parts) == 1:
            return parts[0]
        return self.op("Concat", parts, (Dim(len(dims)),), ir.DataType.INT64, axis=0)

    def number(self, dim: Dim) -> ir.Value:
        """A dim as an int64 tensor of shape [1]."""
        if dim in self._numbers:
            return self._numbers[dim]
        values = [self._atom(atom) for atom in dim.atoms]
        if dim.number != 1 or not values:
            values.append(self.constant(np.asarray([dim.number], np.int64), "number"))
        result = values[0]
        for value in values[1:]:
            result = self._integer("Mul", result, value)
        self._numbers[dim] = result
        return result

    def _atom(self, atom: Atom) -> ir.Value:
        if atom in self._numbers:
            return self._numbers[atom]
        base = Atom(atom.axis)
        if atom == base:
            if self._shape is None:
                self._shape = self.op("Shape", [self.source], (Dim(len(self.dims[self.source])),), ir.DataType.INT64)
            at = self.constant(np.asarray([atom.axis], np.int64), "axis")
            value = self.op("Gather", [self._shape, at], (Dim(1),), ir.DataType.INT64, axis=0)
        else:
            value = self._atom(base)
            for op_type, number, neutral in (("Add", atom.add, 0), ("Div", atom.div, 1), ("Add", atom.plus, 0)):
                if number != neutral:
                    value = self._integer(op_type, value, self.constant(np.asarray([number], np.int64), "number"))
        self._numbers[atom] = value
        return value

    def _integer(self, op_type: str, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.op(op_type, [a, b], (Dim(1),), ir.DataType.INT64)


class SiteBuilder(Builder):
    """A builder for one site; ``source`` stands for its input, which an earlier site may have replaced.

    ``self.source`` is that, in the type of the weight.
    """

    def __init__(self, model: ir.Model, site: Site, source: ir.Value, rule: str, max_rank: int | None = None) -> None:
        dims = dims_of_input(site)
        dtype = ir.DataType.from_numpy(site.weight.dtype)
        super().__init__(model, source, dims, site.output.name or "patches", rule, dtype, max_rank)
        self.site = site
        if site.cast:
            self.source = self.op("Cast", [source], dims, to=dtype)

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """A new initializer; the bias is marked as such."""
        value = super().constant(array, name)
        if name == "bias":
            value.meta[ARRANGED] = None
        return value

    def weight(self, index: np.ndarray, axis: int) -> ir.Value:
        """The weight's elements by ``index`` (-1: zero), its first axis along ``axis``; still quantized if it was."""
        site = self.site
        if site.quantized is None:
            value = self.constant(pick(site.weight.reshape(-1), index, 0), "weight")
            value.meta[ARRANGED] = index  # for the proof of a folded normalization
            return value
        stored, scale, zero = site.quantized
        if axis == 1 and index.ndim == 2 and scale.ndim:
            # Fed by a DequantizeLinear with a scale for each column, onnxruntime's optimizer makes the MatMul a
            # MatMulNBits, which rounds the activations to 8 bits; a Transpose in between keeps it from that.
            return self.transpose(self.weight(np.ascontiguousarray(index.T), 0), [1, 0])
        values = self.constant(pick(stored, index, 0 if zero is None else int(zero.reshape(-1)[0])), "weight_quantized")
        inputs = [values, self.constant(scale, "weight_scale")]
        if zero is not None:
            inputs.append(self.constant(zero, "weight_zero_point"))
        given = {"axis": axis} if scale.ndim else {}
        dims = tuple(Dim(n) for n in index.shape)
        return self.op("DequantizeLinear", inputs, dims, ir.DataType.from_numpy(scale.dtype), **given)


def pick(flat: np.ndarray, index: np.ndarray, zero: int) -> np.ndarray:
    """``flat[index]``, bit for bit, and ``zero`` where the index is -1."""
    filled = flat if bool((index >= 0).all()) else np.concatenate([flat, np.full(1, zero, flat.dtype)])
    return np.asarray(filled[index])
