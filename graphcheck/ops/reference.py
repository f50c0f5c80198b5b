"""onnx.reference's implementations, one operator at a time: the semantics of movement and of everything concrete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Undecided

if TYPE_CHECKING:
    from graphcheck.ops.node import Node


_STEERING = 4096  # inputs up to so many elements may say what shape an output has
_FIRST = {"DequantizeLinear": 19}  # earlier versions mean the same for fewer types, and have no implementation


def run(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one node on concrete inputs (None for omitted ones), by ``onnx.reference``."""
    from onnx.reference.ops import load_op
    from onnx.reference.reference_evaluator import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx"):
        raise Undecided(f"{node.domain}.{node.op_type} has no reference implementation")
    check_size(node, inputs)
    if node.op_type == "Reshape" and len(inputs) > 1 and (np.asarray(inputs[1]) < -1).any():
        raise Undecided(f"Reshape to {np.asarray(inputs[1]).tolist()}: a size below -1 means nothing")  # numpy takes it as -1
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
            implementation = load_op("", node.op_type, version, evaluator_cls=ReferenceEvaluator)
            return [np.asarray(y) if not isinstance(y, list) else y for y in implementation(proto, params).run(*inputs)]
    except Exception as error:
        raise Undecided(f"onnx.reference cannot run {node.op_type}: {str(error).splitlines()[0][:200]}") from None


def check_size(node: Node, inputs: Sequence[Any]) -> None:
    """Raise :class:`Oversized` where ONNX shape inference says that an output is beyond the memory limit.

    ``inputs`` are arrays or computed tensors. An output whose shape is not inferred passes: the allocation will fail.
    """
    import onnx

    from graphcheck.ops.bodies import types_of

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
