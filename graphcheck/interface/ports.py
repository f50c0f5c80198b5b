"""What two models take and give: their inputs and outputs in pairs, and the input shapes that both admit."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.files.model import declared_shape, required_inputs

Dim = int | str | None  # a size, the name of a symbolic dim, or unknown
Shapes = dict[str, tuple[int, ...]]

DEFAULT_BATCH = 2
# Sizes that vision models tend to admit, for symbolic dims that nobody chose a size for; the first that fits wins.
_USUAL_SIZES = ((r"batch|^[bn]$", DEFAULT_BATCH), (r"chan|^c(_?in)?$", 3), (r"frame|time|depth|^t$", 4))
_USUAL_EXTENT, _USUAL_DEPTH, _USUAL_LENGTH = 224, 64, 8  # of a spatial dim at rank 4 and above it, and of any other


@dataclasses.dataclass(frozen=True)
class Port:
    """A graph input or output as declared.

    ``dtype`` is the ONNX name in lower case (``float``, ``int64``), or the whole type where it is no tensor; ``shape``
    is None where no rank is declared.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None

    @property
    def is_tensor(self) -> bool:
        """False for sequences, optionals and what has no declared type."""
        return self.dtype.upper() in ir.DataType.__members__ and self.dtype != "undefined"

    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy (or ml_dtypes) dtype, object for strings; :class:`UsageError` for sequences and optionals."""
        if not self.is_tensor:
            raise UsageError(f"input {self.name!r} has type {self.dtype}: only tensors can be fed")
        return np.dtype(ir.DataType[self.dtype.upper()].numpy())


@dataclasses.dataclass(frozen=True)
class PortPair:
    """One input (or output) of A with its partner in B; None where there is none."""

    a: Port | None
    b: Port | None
    paired_by: str | None  # "name", "position", or None where one side is missing

    @property
    def key(self) -> str:
        """The name that the pair goes by: A's, or B's where A has none."""
        port = self.a or self.b
        assert port is not None
        return port.name

    def ports(self) -> tuple[Port, ...]:
        """The sides that are there."""
        return tuple(port for port in (self.a, self.b) if port is not None)

    def to_json(self) -> dict[str, Any]:
        """A row of ``interface`` in the JSON."""
        row: dict[str, Any] = {side: port and port.name for side, port in (("a", self.a), ("b", self.b))}
        row["paired_by"] = self.paired_by
        for side, port in (("a", self.a), ("b", self.b)):
            row[f"{side}_dtype"] = port and port.dtype
            row[f"{side}_shape"] = None if port is None or port.shape is None else list(port.shape)
        return row


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """Why two interfaces are not the same. ``kind`` is ``missing``, ``dtype``, ``rank`` or ``dim``, ``where`` is
    ``input`` or ``output``; shapes of outputs are only declared, so a runtime may still give equal ones. ``dtypes`` are those of
    both sides where these differ."""

    kind: str
    where: str
    message: str
    dtypes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Interface:
    """The inputs and outputs of two models in pairs, in A's order, with what is worth a note and what does not fit.

    ``usual`` has the sizes of free dims, by the names of :func:`places`, that fit these models in place of the usual ones.
    """

    inputs: tuple[PortPair, ...]
    outputs: tuple[PortPair, ...]
    notes: tuple[str, ...]
    mismatches: tuple[Mismatch, ...]
    usual: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The ``interface`` key of the comparison."""
        return {
            "inputs": [pair.to_json() for pair in self.inputs],
            "outputs": [pair.to_json() for pair in self.outputs],
            "notes": list(self.notes),
            "mismatches": [mismatch.message for mismatch in self.mismatches],
        }


def pair_interfaces(a: ir.Model, b: ir.Model, ignore_outputs: Iterable[str] = ()) -> Interface:
    """The interface of two models: pairs by name where both have it, then by position among what is left.

    Graph inputs with an initializer need no value and are left out. ``ignore_outputs`` are names in either model;
    :class:`UsageError` for one that neither has.
    """
    ignored = set(ignore_outputs)
    outputs = [_ports(model.graph.outputs) for model in (a, b)]
    known = {port.name for side in outputs for port in side}
    if unknown := ignored - known:
        raise UsageError(f"no output is named {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    input_pairs = _pair(_ports(required_inputs(a)), _ports(required_inputs(b)))
    output_pairs = tuple(p for p in _pair(*outputs) if ignored.isdisjoint(port.name for port in p.ports()))
    if ignored and not output_pairs:
        raise UsageError("no output is left to compare: all are to be ignored")
    notes: list[str] = []
    mismatches: list[Mismatch] = []
    for where, pairs in (("input", input_pairs), ("output", output_pairs)):
        for pair in pairs:
            _check(where, pair, notes, mismatches)
    if not any(m.where == "input" and m.kind in ("rank", "dim") for m in mismatches):
        try:
            _unify(input_pairs, {}, _Groups())
        except UsageError as error:
            mismatches.append(Mismatch("dim", "input", str(error)))
    notes += [f"output {name!r} is left out, as asked" for name in sorted(ignored)]
    notes += _of_files(a, b)
    for side, model in (("A", a), ("B", b)):
        optional = [v.name for v in model.graph.inputs if v.name in model.graph.initializers]
        if optional and (model.ir_version or 0) >= 4:
            notes.append(f"inputs of {side} that have a default keep it: {', '.join(map(str, optional))}")
    return Interface(input_pairs, output_pairs, tuple(notes), tuple(mismatches))


def _of_files(a: ir.Model, b: ir.Model) -> Iterable[str]:
    """What was read otherwise than it stands in a file, once where it is said of both."""
    said = [model_.notes(model) for model in (a, b)]
    for text in dict.fromkeys((*said[0], *said[1])):
        yield f"{' and '.join(side for side, texts in zip('AB', said, strict=True) if text in texts)}: {text}"


def shapes(
    interface: Interface, overrides: Mapping[str, tuple[int, ...]] | None = None, sizes: Mapping[str, int] | None = None
) -> Shapes:
    """Concrete input shapes, by :attr:`PortPair.key`, that both models admit.

    ``overrides`` fixes whole inputs, ``sizes`` symbolic dims, both by a name in either model. The same symbol of a
    model has the same size everywhere; what nobody fixed gets 2 on the first axis and a usual size elsewhere.
    :class:`UsageError` where a name is unknown, or where no shape fits both models.
    """
    overrides, sizes = dict(overrides or {}), dict(sizes or {})
    named = {port.name: pair.key for pair in interface.inputs for port in pair.ports()}
    if unknown := [name for name in overrides if name not in named]:
        raise UsageError(f"no input is named {unknown[0]!r}; there are {', '.join(map(repr, named)) or 'none'}")
    for name, shape in overrides.items():
        if any(size < 0 for size in shape):
            raise UsageError(f"the shape of {name!r} has a negative size: {list(shape)}")
    for symbol, size in sizes.items():
        if size < 1:
            raise UsageError(f"the size of dim {symbol!r} is {size}; it must be at least 1")
    by_key = {named[name]: shape for name, shape in overrides.items()}
    free = places(interface) if interface.usual else {}
    usual = {free[symbol][0]: size for symbol, size in interface.usual.items()}
    return _solve(interface.inputs, by_key, sizes, usual)


def symbols(interface: Interface) -> dict[str, tuple[str, int]]:
    """Dims of the inputs that are free in both models, as name -> (input, axis) of its first use."""
    return {name: first for name, (first, *_) in places(interface).items()}


def places(interface: Interface) -> dict[str, list[tuple[str, int]]]:
    """Dims of the inputs that are free in both models, as name -> (input, axis) wherever they stand.

    A symbolic dim goes by its name; by its place, such as ``x[0]``, one that neither model names, or whose name is that of
    another dim in the other model.
    """
    groups = _Groups()
    _unify(interface.inputs, {}, groups)
    dims = [
        (groups.find(_item(pair, side, axis, dim)), dim, pair, axis)
        for pair in interface.inputs
        for port, side in _sides(pair)
        for axis, dim in enumerate(port.shape or ())
        if not isinstance(dim, int)
    ]
    found: dict[Any, tuple[str, dict[tuple[str, int], None]]] = {}
    for root, dim, pair, axis in sorted(dims, key=lambda row: row[1] is None):
        if root not in groups.size:
            found.setdefault(root, (_place(pair.key, axis) if dim is None else dim, {}))[1][pair.key, axis] = None
    names = Counter(name for name, _ in found.values())
    return {name if names[name] == 1 else _place(*next(iter(there))): list(there) for name, there in found.values()}


def alone(interface: Interface) -> dict[str, tuple[int, list[tuple[str, int]]]]:
    """Dims that are free in one model (0: A, 1: B) and 1 in the other, as name -> (model, (input, axis) wherever they stand)."""
    found: dict[str, tuple[int, list[tuple[str, int]]]] = {}
    free = places(interface)
    for side in (0, 1):
        there: dict[str, list[tuple[str, int]]] = {}
        ones: set[str] = set()
        for pair in interface.inputs:
            ports = (pair.a, pair.b)
            one, other = ports[side], ports[1 - side]
            for axis, dim in enumerate(one.shape or () if one is not None else ()):
                if not isinstance(dim, int):
                    name = dim or _place(pair.key, axis)
                    there.setdefault(name, []).append((pair.key, axis))
                    ones |= {name} if other is not None and other.shape and other.shape[axis] == 1 else set()
        found |= {name: (side, there[name]) for name in sorted(ones) if name not in free}
    return found


def _place(key: str, axis: int) -> str:
    return f"{key}[{axis}]"


def _ports(values: Iterable[ir.Value]) -> list[Port]:
    result = []
    for value in values:
        dims = declared_shape(value)
        tensor = isinstance(value.type, ir.TensorType) and value.dtype is not None
        dtype = value.dtype.name.lower() if tensor else str(value.type)  # type: ignore[union-attr]
        result.append(Port(value.name or "", dtype, None if dims is None else tuple(dims)))
    return result


def _pair(a: list[Port], b: list[Port]) -> tuple[PortPair, ...]:
    by_name = {port.name: port for port in b}
    common = {port.name for port in a} & by_name.keys()
    rest = [port for port in b if port.name not in common]
    pairs = []
    for port in a:
        if port.name in common:
            pairs.append(PortPair(port, by_name[port.name], "name"))
        else:
            partner = rest.pop(0) if rest else None
            pairs.append(PortPair(port, partner, "position" if partner else None))
    return (*pairs, *(PortPair(None, port, None) for port in rest))


def _check(where: str, pair: PortPair, notes: list[str], mismatches: list[Mismatch]) -> None:
    a, b = pair.a, pair.b
    if a is None or b is None:
        there, not_there = ("A", "B") if b is None else ("B", "A")
        message = f"{where} {pair.key!r} of {there} has no partner in {not_there}"
        mismatches.append(Mismatch("missing", where, message))
        return
    label = f"{where} {a.name!r}"
    if pair.paired_by == "position":
        notes.append(f"{label} of A is taken for {b.name!r} of B, by position")
    if a.dtype != b.dtype:
        mismatches.append(Mismatch("dtype", where, f"{label} is {a.dtype} in A and {b.dtype} in B", (a.dtype, b.dtype)))
    if a.shape is None or b.shape is None:
        if a.shape != b.shape:
            notes.append(f"{label} has no declared rank in {'A' if a.shape is None else 'B'}")
        return
    if len(a.shape) != len(b.shape):
        message = f"{label} has rank {len(a.shape)} in A and rank {len(b.shape)} in B ({_text(a)} and {_text(b)})"
        mismatches.append(Mismatch("rank", where, message))
        return
    before = len(mismatches)
    for axis, (x, y) in enumerate(zip(a.shape, b.shape, strict=True)):
        if isinstance(x, int) and isinstance(y, int) and x != y:
            message = f"{label} has size {x} on axis {axis} in A and {y} in B ({_text(a)} and {_text(b)})"
            mismatches.append(Mismatch("dim", where, message))
    if a.shape != b.shape and len(mismatches) == before:
        notes.append(f"{label} is declared {_text(a)} in A and {_text(b)} in B: both admit the shapes compared")


def _text(port: Port) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in port.shape or ()) + "]"


class _Groups:
    """Union-find over dims, with the size of a group once something fixes it, and what fixed it."""

    def __init__(self) -> None:
        self.parent: dict[Any, Any] = {}
        self.size: dict[Any, tuple[int, str]] = {}

    def find(self, item: Any) -> Any:
        while self.parent.setdefault(item, item) != item:
            self.parent[item] = item = self.parent[self.parent[item]]
        return item

    def join(self, x: Any, y: Any) -> None:
        x, y = self.find(x), self.find(y)
        if x != y:
            self.parent[y] = x
            if y in self.size:
                self.fix(x, *self.size.pop(y))

    def fix(self, item: Any, size: int, cause: str) -> None:
        known = self.size.setdefault(self.find(item), (size, cause))
        if known[0] != size:
            raise UsageError(f"no input shape suits both models: {known[1]} is {known[0]}, {cause} is {size}")


def _sides(pair: PortPair) -> list[tuple[Port, str]]:
    return [(port, side) for port, side in ((pair.a, "A"), (pair.b, "B")) if port is not None]


def _item(pair: PortPair, side: str, axis: int, dim: Dim) -> tuple[object, ...]:
    return (side, dim) if isinstance(dim, str) else (pair.key, side, axis)


def _unify(pairs: Iterable[PortPair], overrides: Mapping[str, tuple[int, ...]], groups: _Groups) -> None:
    for pair in pairs:
        given = overrides.get(pair.key)
        for port, side in _sides(pair):
            if given is not None and port.shape is not None and len(given) != len(port.shape):
                raise UsageError(
                    f"input {port.name!r} of {side} has rank {len(port.shape)}, not {len(given)}: {_text(port)}"
                )
            for axis, dim in enumerate(port.shape or ()):
                item = _item(pair, side, axis, dim)
                groups.join((pair.key, axis), item)
                if isinstance(dim, int):
                    groups.fix(item, dim, f"axis {axis} of input {port.name!r} of {side}")
        for axis, size in enumerate(given or ()):
            groups.fix((pair.key, axis), size, f"axis {axis} of the shape asked for {pair.key!r}")


def _solve(
    pairs: Iterable[PortPair],
    overrides: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    usual: Mapping[tuple[str, int], int],
) -> Shapes:
    groups = _Groups()
    pairs = tuple(pairs)
    _unify(pairs, overrides, groups)
    declared = {dim for pair in pairs for port in pair.ports() for dim in port.shape or () if isinstance(dim, str)}
    places = {_place(p.key, i): (p.key, i) for p in pairs for port in p.ports() for i in range(len(port.shape or ()))}
    for symbol, size in sizes.items():
        if symbol in places and symbol not in declared:
            groups.fix(places[symbol], size, f"the size asked for dim {symbol!r}")
        elif symbol not in declared:
            raise UsageError(f"no input has a dim {symbol!r}; there are {', '.join(sorted(declared)) or 'none'}")
        for side in "AB":
            if (side, symbol) in groups.parent:
                groups.fix((side, symbol), size, f"the size asked for dim {symbol!r}")
    for place, size in usual.items():
        if groups.find(place) not in groups.size:
            groups.fix(place, size, f"the size that fits {_place(*place)!r}")
    result: Shapes = {}
    for pair in pairs:
        declared_shapes = [port.shape for port in pair.ports() if port.shape is not None]
        given = overrides.get(pair.key)
        if not declared_shapes and given is None:
            raise UsageError(f"input {pair.key!r} has no declared rank: give --shape {pair.key}=SIZE,SIZE,...")
        rank = len(given) if given is not None else len(declared_shapes[0])
        for axis in range(rank):
            if groups.find((pair.key, axis)) not in groups.size:
                names = [str(shape[axis]) for shape in declared_shapes if isinstance(shape[axis], str)]
                groups.fix((pair.key, axis), _usual_size(names, axis, rank), f"axis {axis} of {pair.key!r}")
        result[pair.key] = tuple(groups.size[groups.find((pair.key, axis))][0] for axis in range(rank))
    return result


def _usual_size(names: list[str], axis: int, rank: int) -> int:
    if axis == 0:
        return DEFAULT_BATCH
    for pattern, size in _USUAL_SIZES:
        if any(re.search(pattern, name.lower()) for name in names):
            return size
    return {4: _USUAL_EXTENT}.get(rank, _USUAL_DEPTH if rank > 4 else _USUAL_LENGTH)
