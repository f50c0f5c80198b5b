"""Operators that only move elements: onnx.reference runs them once on the integers 1..n, and the result is the map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Undecided, Untaught
from graphcheck.kernel.ops import reference, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms import pieces, strided
from graphcheck.kernel.terms.verbs import Ew, Move

ALL = None  # every input is data

# Operator -> the positions of the inputs whose elements move; the others (axes, indices, sizes) must be concrete.
DATA: dict[str, tuple[int, ...] | None] = {
    "CenterCropPad": (0,),
    "Compress": (0,),
    "Concat": ALL,
    "DepthToSpace": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherND": (0,),
    "OneHot": (2,),
    "Pad": (0, 2),
    "Reshape": (0,),
    "ReverseSequence": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "SpaceToDepth": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "TensorScatter": (0, 1),
    "Tile": (0,),
    "Transpose": (0,),
    "Trilu": (0,),
    "Unsqueeze": (0,),
}

_VIEWS = frozenset({"Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})  # given by numpy as views
_CROWDED = 16  # times the elements of a scattering reduction that its sum may run over


def move(m: Algebra, node: Node, *inputs: Value) -> tuple[Some, ...]:
    """The outputs of a movement operator: each an integer map over its data inputs."""
    if node.op_type.startswith("Scatter") and node.attr("reduction", "none") != "none":
        if node.attr("reduction") == "add" and isinstance(inputs[1], np.ndarray):
            return (_scattered(m, node, inputs[0], inputs[1], inputs[2]),)  # type: ignore[arg-type]
        raise Untaught(f"{node.op_type} with reduction={node.attr('reduction')} on computed values")
    positions = DATA[node.op_type] or tuple(range(len(inputs)))
    data = [i for i in positions if i < len(inputs) and inputs[i] is not None]
    steering = [x for i, x in enumerate(inputs) if i not in data]
    for x in steering:
        if isinstance(x, Tensor):
            raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    dtype = inputs[data[0]].dtype  # type: ignore[union-attr]
    shapes = tuple(tuple(inputs[i].shape) for i in data)  # type: ignore[union-attr]
    key = ("movement", node.key(), shapes, tuple(_content(x) for x in steering), node.n_outputs)
    if key not in m.memo:
        m.memo[key] = _maps(m, node, inputs, data)
    lifted = [m.lift(inputs[i]) for i in data]  # type: ignore[arg-type]
    held = lifted[0].held if len({x.held for x in lifted}) == 1 else None
    sources = [x.cls for x in lifted]
    return tuple(Tensor(m.terms.move(sources, map_), shape, dtype, held) for map_, shape in m.memo[key])


def _scattered(m: Algebra, node: Node, data: Some, indices: np.ndarray, updates: Some) -> Some:
    """Data with each update added at its place, however often that is named (ScatterElements and ScatterND, since 16): the
    places are what the Gather of the same name reads of 0..n-1, and a row of a table has one update of each."""
    places = np.arange(math.prod(data.shape)).reshape(data.shape)
    if node.op_type == "ScatterElements":  # in the other axes the indices may be shorter than the data
        axis = axis_of(data, node.attr("axis", 0))
        places = places[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))]
    kept = {k: v for k, v in node.attributes.items() if k != "reduction"}
    name = node.op_type.replace("Scatter", "Gather")
    gather = dataclasses.replace(
        node, op_type=name, version=13, attributes=kept, n_inputs=2, present_inputs=(True,) * 2, source=None
    )
    (read,) = reference.run(gather, [places, indices])
    if tuple(read.shape) != tuple(updates.shape):
        raise Refused(f"{node.op_type} takes updates of shape {list(read.shape)}, not {list(updates.shape)}", node.name)
    order = np.argsort(read.reshape(-1), kind="stable")
    place = read.reshape(-1)[order]
    turn = np.arange(place.size) - np.searchsorted(place, place)
    shape = (int(turn.max(initial=0)) + 1, math.prod(data.shape))
    if data.dtype.kind != "f" or math.prod(shape) > _CROWDED * (place.size + shape[1]):
        raise Untaught(f"{node.op_type} that adds integers, or very often at one place", node.name)
    table = np.zeros(shape, np.int64)
    table[turn, place] = order + 1
    total = m.sum(m.pick(updates, table, shape), [0], keepdims=False)
    return m.add(data, m.reshape(total, data.shape))


def _content(x: Value) -> Any:
    return None if x is None else (x.dtype.name, x.shape, x.tobytes())  # type: ignore[union-attr]


def _maps(m: Algebra, node: Node, inputs: tuple[Value, ...], data: list[int]) -> list[Any]:
    """Run the operator on the integers 1..n, numbered through all data inputs, but for what is a view, or laid side by side."""
    if node.op_type == "Concat" and (found := _side_by_side(node, inputs)) is not None:
        return [(m.terms.maps.of(found[0]), found[1])]
    if node.op_type in _VIEWS and (views := _views(m, node, inputs, data[0])) is not None:
        return views
    numbered, at = list(inputs), 1
    for i in data:
        size = math.prod(inputs[i].shape)  # type: ignore[union-attr]
        limits.current().check_elements(at + size, "what it moves", node.name)
        numbered[i] = np.arange(at, at + size, dtype=np.int64).reshape(inputs[i].shape)  # type: ignore[union-attr]
        at += size
    results = reference.run(node, numbered)
    return [(m.terms.maps.intern(np.asarray(y)), np.asarray(y).shape) for y in results]


def _views(m: Algebra, node: Node, inputs: tuple[Value, ...], at: int) -> list[Any] | None:
    """The maps of an operator that gives views of its data: numpy's strides say which element stands where. None for others."""
    limits.current().check_elements(math.prod(inputs[at].shape), "what it moves", node.name)  # type: ignore[union-attr]
    blank = np.zeros(inputs[at].shape, np.int8)  # type: ignore[union-attr]  # of which no page is touched
    results = reference.run(node, [*inputs[:at], blank, *inputs[at + 1 :]])
    starts = [y.__array_interface__["data"][0] - blank.__array_interface__["data"][0] for y in results]
    forms = [strided.normal(y.shape, start, y.strides) for y, start in zip(results, starts, strict=True) if y.size]
    if len(forms) < len(results) or None in forms or not all(np.may_share_memory(y, blank) for y in results):
        return None
    return [(m.terms.maps.of(form), y.shape) for form, y in zip(forms, results, strict=True)]


def _side_by_side(node: Node, inputs: tuple[Value, ...]) -> tuple[pieces.Pieces, tuple[int, ...]] | None:
    """The pieces of a Concat, and its shape; None where the shapes do not fit, or there are no few pieces."""
    shapes = [tuple(x.shape) for x in inputs]  # type: ignore[union-attr]
    axis, rank = node.attr("axis"), len(shapes[0])
    axis = axis + rank if axis < 0 else axis
    if not 0 <= axis < rank or not all(map(math.prod, shapes)) or len({(*s[:axis], *s[axis + 1 :]) for s in shapes}) > 1:
        return None
    shape = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
    limits.current().check_elements(math.prod(shape), "what it moves", node.name)
    found = pieces.laid(shapes, axis) if all(len(s) == rank for s in shapes) else None
    return None if found is None else (found, shape)


def identity(m: Algebra, node: Node, x: Value, *_: Value) -> Value:
    """The input as it is (Identity, Dropout at inference)."""
    return x


def dropout(m: Algebra, node: Node, x: Value, ratio: Value = None, training: Value = None) -> tuple[Value, ...]:
    """The input, and a mask of ones; in training it is random."""
    if (
        isinstance(training, np.ndarray)
        and bool(training)
        and not (isinstance(ratio, np.ndarray) and float(ratio) == 0)
    ):
        raise Undecided("Dropout in training mode is random", node.name)
    assert x is not None
    return x, np.ones(x.shape, bool)


def shape(m: Algebra, node: Node, x: Value) -> Value:
    """The shape, concrete at the chosen sizes."""
    assert x is not None
    return np.asarray(x.shape[node.attr("start", 0) : node.attr("end", None)], np.int64)


def size(m: Algebra, node: Node, x: Value) -> Value:
    """The number of elements."""
    assert x is not None
    return np.asarray(math.prod(x.shape), np.int64)


def scatter(m: Algebra, node: Node, *inputs: Value) -> tuple[Some, ...]:
    """The name that ScatterElements had before opset 11."""
    return move(m, dataclasses.replace(node, op_type="ScatterElements", version=13, source=None), *inputs)


def pad(m: Algebra, node: Node, x: Some, *rest: Value) -> tuple[Some, ...]:
    """Pads and value as inputs, as attributes before opset 11; a negative pad crops."""
    if node.version < 11:
        rest = (np.asarray(node.attr("pads"), np.int64), np.asarray(node.attr("value", 0.0), x.dtype))
        kept = {k: v for k, v in node.attributes.items() if k == "mode"}
        node = dataclasses.replace(
            node, version=13, attributes=kept, n_inputs=3, present_inputs=(True,) * 3, source=None
        )
    pads, value, axes = (*rest, None, None, None)[:3]
    rank, constant = len(x.shape), node.attr("mode", "constant") == "constant"
    zero = value is None or (isinstance(value, np.ndarray) and value.size == 1 and bool(value.reshape(-1)[0] == 0))
    crops = isinstance(pads, np.ndarray) and bool(pads.min(initial=0) < 0)
    if crops and (not constant or isinstance(axes, Tensor)):
        raise Untaught("Pad that crops and does not fill with a constant", node.name)
    over = np.arange(rank) if axes is None else axes.reshape(-1) if isinstance(axes, np.ndarray) else np.zeros(0, np.int64)
    if not isinstance(pads, np.ndarray) or not (crops or (zero and constant and pads.size == 2 * over.size)):
        return move(m, node, x, *rest)
    full = np.zeros((2, rank), np.int64)
    full[:, over] = pads.reshape(2, -1)
    if any(lo + n + hi < 0 for lo, hi, n in zip(*full, x.shape, strict=True)):
        raise Refused(f"Pad crops more of {list(x.shape)} than there is", node.name)
    if zero or value is None:
        shape = [int(lo + n + hi) for lo, hi, n in zip(*full, x.shape, strict=True)]
        return (m.cut(x, [-int(lo) for lo in full[0]], shape),)
    count = math.prod(x.shape)
    index = np.pad(np.arange(1, 1 + count).reshape(x.shape), np.maximum(full, 0).T, constant_values=count + 1)
    index = index[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for lo, hi, n in zip(*full, index.shape, strict=True))]
    return (m.join((x, m.reshape(value, (1,))), index, index.shape, x.dtype),)


def gather_elements(m: Algebra, node: Node, x: Some, indices: Some) -> Some:
    """Elements along ``axis``; in the other axes the indices may be shorter than the data."""
    if isinstance(indices, Tensor):
        raise Untaught("GatherElements steered by a value that depends on the inputs", node.name)
    axis = axis_of(x, node.attr("axis", 0))
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    index = index[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(indices.shape))]
    index = np.take_along_axis(index, indices.astype(np.int64), axis)
    return m.pick(x, index, index.shape)


INDEXED = frozenset({"Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND"})  # input 1 holds indices


def indices_of(m: Algebra, x: Some, indices: Tensor) -> Tensor:
    """Computed indices into ``x`` as int64, before casts between signed types that hold every legal index.

    Where such a cast changes an index, that one was not legal: on the rest the operator is the same function.
    """
    bits = (8, 16, 32, 64)
    casts = {f"wrap:int{n}" for n in bits if max(x.shape, default=0) <= 2 ** (n - 1)}

    def bare(cls: int) -> int:
        term = m.terms.term(cls)
        if isinstance(term.verb, Ew) and term.verb.fn in casts:
            return bare(m.terms.seen(term.views[0], term.size))
        if isinstance(term.verb, Move):
            return m.terms.move([bare(a) for a in term.args], term.verb.map)
        return cls

    return Tensor(bare(indices.cls), indices.shape, np.dtype(np.int64))


def eye_like(m: Algebra, node: Node, x: Some) -> Value:
    """A matrix of the same shape with ones on a diagonal: concrete."""
    attributes = {"dtype": ir_code(x.dtype), **node.attributes}
    explicit = dataclasses.replace(node, attributes=attributes, source=None)
    return np.asarray(reference.run(explicit, [np.zeros(x.shape, np.float32)])[0])


def ir_code(dtype: np.dtype[Any]) -> int:
    """ONNX's number of a numpy type."""
    import onnx_ir as ir

    return int(ir.DataType.from_numpy(dtype))


_ROWS: dict[str, rows.Rule] = {
    "Concat": rows.joined,
    "DepthToSpace": rows.first,
    "Expand": rows.expanded,
    "Flatten": rows.flattened,
    "Gather": rows.gathered,
    "GatherND": rows.gathered_nd,
    "OneHot": rows.one_hot,
    "Reshape": rows.reshaped,
    "ScatterElements": rows.gathered_elements,
    "Slice": rows.sliced,
    "SpaceToDepth": rows.first,
    "Split": rows.split,
    "Squeeze": rows.squeezed,
    "Tile": rows.tiled,
    "Transpose": rows.transposed,
    "Trilu": rows.triangle,
    "Unsqueeze": rows.unsqueezed,
}
OPS: dict[str, Callable[..., Any]] = {
    **{name: rows.Op(move, _ROWS.get(name, rows.mixed)) for name in DATA},
    "Pad": rows.Op(pad, rows.padded),
    "GatherElements": rows.Op(gather_elements, rows.gathered_elements),
    "EyeLike": eye_like,
    "Scatter": rows.Op(scatter, rows.gathered_elements),
    "Identity": rows.Op(identity, rows.identity),
    "Dropout": rows.Op(dropout, rows.identity),
    "Shape": shape,
    "Size": size,
}
