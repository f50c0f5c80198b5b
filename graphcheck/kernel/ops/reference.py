"""onnx.reference's implementations, one operator at a time: the semantics of movement and of everything concrete."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Undecided, Untaught

if TYPE_CHECKING:
    from graphcheck.kernel.ops.node import Node


_STEERING = 4096  # inputs up to so many elements may say what shape an output has
_FAR = (2**31 - 1, 2**63 - 1)  # as an end, runtimes take these two for "all the way" in either direction
_UNREGISTERED = ("Cast_25", "CastLike_25", "ReduceMin_11")  # in onnx.reference, but not what load_op gives
_FIRST = {"DequantizeLinear": 19}  # earlier versions mean the same for fewer types, and have no implementation


def run(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one node on concrete inputs (None for omitted ones), by ``onnx.reference``."""
    from onnx.reference.reference_evaluator import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx"):
        raise Undecided(f"{node.domain}.{node.op_type} has no reference implementation")
    check_size(node, inputs)
    if node.op_type == "Split":
        _check_split(node, inputs)
    if node.op_type == "GatherElements":
        _check_indices(node, *inputs)
    if node.op_type == "Slice" and len(inputs) > 4 and inputs[4] is not None:
        inputs = _sliced(node, inputs)
    if node.op_type == "OneHot":  # its depth may have the shape [1], with which onnx.reference fails
        inputs = [inputs[0], np.asarray(inputs[1]).reshape(()), inputs[2]]
    doubt = _doubt(node, inputs)
    if doubt is not None:
        raise Untaught(f"{node.op_type} {doubt}", node.name)
    proto, version = node.proto(), max(node.version, _FIRST.get(node.op_type, 0))
    params: dict[str, Any] = {
        "log": lambda *_: None,
        "opsets": {"": version},
        "verbose": 0,
        "new_ops": None,
        "existing_functions": {},
        "evaluator_cls": ReferenceEvaluator,
    }
    try:
        with np.errstate(all="ignore"):
            results = implementation(node.op_type, version)(proto, params).run(*inputs)
        if node.op_type.startswith("Reduce"):  # some widen integers
            return [np.asarray(y).astype(inputs[0].dtype) for y in results]
        return [np.asarray(y) if not isinstance(y, list) else y for y in results]
    except Exception as error:
        raise Refused(f"onnx.reference cannot run {node.op_type}: {str(error).splitlines()[0][:200]}") from None


@functools.cache
def implementation(op_type: str, version: int) -> Any:
    """What ``load_op`` of ``onnx.reference`` gives, from the operator's own module alone where it has the usual name.

    ``load_op`` imports the modules of all operators.
    """
    from onnx.reference.ops import load_op
    from onnx.reference.reference_evaluator import ReferenceEvaluator

    with contextlib.suppress(ModuleNotFoundError, KeyError):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", op_type).lower()
        own = vars(importlib.import_module(f"onnx.reference.ops.op_{name}"))
        names = [key for key in own if key.startswith(f"{op_type}_") and key not in _UNREGISTERED]
        versions = [int(key.removeprefix(f"{op_type}_")) for key in names]
        known = [v for v in versions if v <= version]
        if known or not versions:
            return own[f"{op_type}_{max(known)}" if known else op_type]
    return load_op("", op_type, version, evaluator_cls=ReferenceEvaluator)


def _check_split(node: Node, inputs: Sequence[Any]) -> None:
    """onnx.reference drops what the sizes leave over."""
    sizes = inputs[1] if len(inputs) > 1 else node.attr("split")
    whole = inputs[0].shape[node.attr("axis", 0)]
    if sizes is not None and int(np.sum(sizes)) != whole:
        raise Refused(f"Split of {whole} into {np.asarray(sizes).tolist()} is not defined", node.name)


def _check_indices(node: Node, x: Any, indices: Any) -> None:
    """onnx.reference wraps an index that is far out by one length of the axis after another, for years."""
    axis = node.attr("axis", 0)
    length = x.shape[axis] if -x.ndim <= axis < x.ndim else 0
    if indices.size and not (-length <= indices.min() and indices.max() < length):
        raise Refused(f"GatherElements picks beyond the {length} elements of its axis {axis}", node.name)


def _sliced(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The inputs of a Slice with steps, a start before the beginning being the beginning: onnx.reference drops that element.

    Raises :class:`Undecided` where a Slice ends at the largest integer and goes backwards: by the standard that is the last
    element, and nothing is left; in onnxruntime it is the first one, and all is. So not even the shape is known.
    """
    x, starts, ends, axes, steps = (None if v is None else np.asarray(v) for v in inputs[:5])
    assert x is not None and starts is not None and ends is not None and steps is not None
    far = ends[(steps < 0) & np.isin(ends, _FAR)]
    if far.size:
        doubt = "by the standard nothing is left, in onnxruntime all is"
        raise Undecided(f"Slice backwards with {int(far[0])} as its end: {doubt}", node.name)
    lengths = np.asarray(x.shape)[np.arange(len(starts)) if axes is None else axes]
    return [x, np.where((steps < 0) & (starts < -lengths), 0, starts), ends, axes, steps]


def _doubt(node: Node, inputs: Sequence[Any]) -> str | None:
    """Where onnx.reference departs from the standard, or the standard and the runtimes from each other; None elsewhere."""
    given = [None if x is None else np.asarray(x) for x in (*inputs, *[None] * 5)][:5]
    if node.op_type == "Reshape" and given[1] is not None and bool((given[1] < -1).any()):
        return f"to {given[1].tolist()}: a size below -1 means nothing"  # numpy takes it as -1
    if node.op_type == "Hardmax" and node.version < 13:
        return "over several axes"
    if node.op_type in ("RNN", "GRU", "LSTM"):
        return "with all its attributes"
    if node.op_type == "Unique" and not node.attr("sorted", 1):
        return "in the order of the elements"
    return "where a coordinate is an element but for a rounding" if node.op_type in ("Resize", "Upsample") else None


def broken_length(node: Node, shape: Sequence[int], roi: Any = None, scales: Any = None, sizes: Any = None) -> str | None:
    """Where onnx.reference, the standard and the runtimes do not agree on what Resize makes of a shape; None elsewhere."""
    mode = node.attr("coordinate_transformation_mode", "half_pixel")
    lengths = np.asarray([shape[axis] for axis in node.attr("axes") or range(len(shape))])
    if mode == "pytorch_half_pixel" and (node.attr("mode") == "cubic" or node.attr("antialias", 0)):
        to = sizes if sizes is not None and sizes.size else np.floor(scales * lengths)
        if bool(((to == 1) & (lengths > 1)).any()):
            return "to one element by pytorch_half_pixel"  # which is the first, where onnx.reference looks half of one before it
    if scales is None or not scales.size or mode not in ("tf_crop_and_resize", "pytorch_half_pixel", "align_corners"):
        return None
    lengths = scales.astype(np.float64) * lengths
    if mode == "pytorch_half_pixel":
        return "to a broken length of one element" if bool(((lengths < 2) & (lengths % 1 != 0)).any()) else None
    if mode != "align_corners" and roi is not None and roi.size and bool((np.subtract(*np.split(roi, 2)[::-1]) != 1).any()):
        return "to a broken length"  # of the region by the standard, of the whole in the runtimes
    return "to a broken length" if bool((np.abs(lengths - np.rint(lengths)) > 1e-4).any()) else None


def steering(x: Any) -> Any:
    """What of an input may say how large an output is: its type, its shape, and the numbers of a small array."""
    if x is None:
        return None
    small = isinstance(x, np.ndarray) and x.size <= _STEERING and x.dtype.kind in "iuf"
    return (x.dtype.name, x.shape, x.tobytes() if small else None)


def check_size(node: Node, inputs: Sequence[Any]) -> None:
    """Raise :class:`Oversized` where ONNX shape inference says that an output is beyond the memory limit.

    ``inputs`` are arrays or computed tensors. An output whose shape is not inferred passes: the allocation will fail.
    """
    import onnx

    from graphcheck.kernel.ops.bodies import types_of

    try:
        schema = onnx.defs.get_schema(node.op_type, node.version, node.domain)
        there = {f"i{i}": x for i, x in enumerate(inputs) if x is not None}
        types = dict(zip(there, types_of(list(there.values())), strict=True))
        small = {
            name: onnx.numpy_helper.from_array(x)
            for name, x in there.items()
            if isinstance(x, np.ndarray) and x.size <= _STEERING and x.dtype.kind in "iuf"
        }
        found = onnx.shape_inference.infer_node_outputs(schema, node.proto(), types, small)
    except Exception:  # what breaks the operator's rules is told by what runs it
        return
    bound = limits.current()
    for kind in found.values():
        dims = kind.tensor_type.shape.dim
        if all(d.HasField("dim_value") for d in dims):
            bound.check_elements(math.prod(d.dim_value for d in dims), f"what {node.op_type} gives", node.name)
