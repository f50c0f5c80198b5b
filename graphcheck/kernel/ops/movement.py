"""Operators that only move elements: onnx.reference runs them once on the integers 1..n, and the result is the map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Undecided, Untaught
from graphcheck.kernel.ops import erasing, reference, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value, axis_of
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms import pieces
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
    """Run the operator on the integers 1..n, numbered through all data inputs; tensors laid side by side are pieces."""
    if node.op_type == "Concat" and (found := _side_by_side(node, inputs)) is not None:
        return [(m.terms.maps.of(found[0]), found[1])]
    numbered, at = list(inputs), 1
    for i in data:
        size = math.prod(inputs[i].shape)  # type: ignore[union-attr]
        limits.current().check_elements(at + size, "what it moves", node.name)
        numbered[i] = np.arange(at, at + size, dtype=np.int64).reshape(inputs[i].shape)  # type: ignore[union-attr]
        at += size
    results = reference.run(node, numbered)
    return [(m.terms.maps.intern(np.asarray(y)), np.asarray(y).shape) for y in results]


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


def resize(m: Algebra, node: Node, x: Value, *rest: Value) -> Value:
    """Interpolation axis by axis: each axis' matrix is what onnx.reference does to the unit vectors of that axis."""
    x = m.lift(x)  # type: ignore[arg-type]
    if node.attr("mode", "nearest") != "nearest" and x.dtype.name.startswith(("int", "uint")):
        if node.attr("mode") == "linear" and (y := erasing.between(m, node, x, lambda x: resize(m, node, x, *rest))):  # type: ignore[arg-type,return-value]
            return y
        raise Untaught("Resize of integers between their values: the standard leaves the rounding open", node.name)
    if any(isinstance(r, Tensor) for r in rest):
        raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    if node.attr("keep_aspect_ratio_policy", "stretch") != "stretch" or node.attr("extrapolation_value", 0.0) != 0.0:
        raise Untaught("Resize that keeps the aspect ratio, or puts a value outside of its region", node.name)
    axes = [axis_of(x, a) for a in node.attr("axes") or range(len(x.shape))]
    if doubt := reference.broken_length(node, x.shape, *rest):
        raise Untaught(f"{node.op_type} {doubt}", node.name)
    out = x
    for at, axis in enumerate(axes):
        out = _resize_axis(m, node, out, axis, at, len(axes), rest)
    return out


def upsample(m: Algebra, node: Node, x: Value, scales: Value = None) -> Value:
    """Upsample, and Resize before opset 11: coordinates are divided by the scale, nearest takes the floor."""
    scales = np.asarray(node.attr("scales"), np.float32) if scales is None else scales
    if isinstance(scales, Tensor):
        raise Untaught(f"{node.op_type} steered by a value that depends on the inputs", node.name)
    mode = node.attr("mode", "nearest")
    if mode == "nearest" and bool(((scales < 1) & (1 / scales % 1 != 0)).any()):
        raise Untaught(
            "Resize before opset 11 that shrinks by no whole factor: the standard leaves its rounding open", node.name
        )
    attributes = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    plain = dataclasses.replace(node, op_type="Resize", version=13, attributes=attributes)
    return resize(m, plain, x, None, scales)


def _resize_axis(m: Algebra, node: Node, x: Tensor, axis: int, at: int, count: int, rest: tuple[Value, ...]) -> Tensor:
    n = x.shape[axis]
    roi, scales, sizes = (r if r is not None and r.size else None for r in (*rest, None, None, None)[:3])  # type: ignore[union-attr]
    to_one: list[Value] = [
        None if roi is None else np.asarray([0, roi[at], 1, roi[at + count]], np.float32),  # type: ignore[index]
        None if scales is None else np.asarray([1, scales[at]], np.float32),  # type: ignore[index]
        None if sizes is None else np.asarray([n, sizes[at]], np.int64),  # type: ignore[index]
    ]
    scale = float(scales[at]) if scales is not None else sizes[at] / n  # type: ignore[index]
    if node.attr("mode", "nearest") == "nearest" and _on_the_edge(node, n, scale):
        raise Untaught("Resize whose nearest element depends on how its coordinates are rounded", node.name)
    present = (True, *(value is not None for value in to_one))
    attributes = {k: v for k, v in node.attributes.items() if k != "axes"}
    alone = dataclasses.replace(node, attributes=attributes, present_inputs=present, source=None)
    key = ("resize", alone.key(), n, tuple(_content(v) for v in to_one))
    if key not in m.memo:
        m.memo[key] = reference.run(alone, [np.eye(n), *to_one])[0]
    weights = m.memo[key]  # [n, to]
    to = weights.shape[1]
    if to == n and np.array_equal(weights, np.eye(n)):
        return x
    shape = (*x.shape[:axis], to, *x.shape[axis + 1 :])
    if bool(((weights == 0) | (weights == 1)).all() and (weights.sum(axis=0) == 1).all()):
        sides = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        return m.pick(x, m.terms.maps.along(sides[0], n, sides[1], weights.argmax(axis=0)), shape)
    rank = len(x.shape)
    out = m.matmul(m.transpose(x, [*(i for i in range(rank) if i != axis), axis]), weights)
    return m.transpose(Tensor(out.cls, out.shape, x.dtype), [*range(axis), rank - 1, *range(axis, rank - 1)])


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


def _on_the_edge(node: Node, n: int, scale: float) -> bool:
    """Whether a coordinate lies on the edge between two elements, and ``scale`` is no short binary fraction."""
    if scale * 2**10 % 1 == 0:
        return False
    to = np.arange(int(n * scale + 1e-6), dtype=np.float64)
    how = node.attr("coordinate_transformation_mode", "half_pixel")
    if how == "align_corners":
        at = to * (n - 1) / max(len(to) - 1, 1)
    else:
        at = to / scale if how == "asymmetric" else (to + 0.5) / scale - 0.5
    if node.attr("nearest_mode", "round_prefer_floor").startswith("round"):
        at = at + 0.5
    return bool((np.abs(at - np.rint(at)) < 1e-4).any())


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
    "Resize": rows.Op(lambda m, node, *xs: (resize if node.version >= 11 else upsample)(m, node, *xs), rows.resized),
    "Upsample": rows.Op(upsample, rows.resized),
}
