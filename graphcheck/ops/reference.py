"""onnx.reference's implementations, one operator at a time: the semantics of movement and of everything concrete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcheck.errors import Undecided

if TYPE_CHECKING:
    from graphcheck.ops.node import Node


_FIRST = {"DequantizeLinear": 19}  # earlier versions mean the same for fewer types, and have no implementation


def run(node: Node, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of one node on concrete inputs (None for omitted ones), by ``onnx.reference``."""
    from onnx.reference.ops import load_op
    from onnx.reference.reference_evaluator import ReferenceEvaluator

    if node.domain not in ("", "ai.onnx"):
        raise Undecided(f"{node.domain}.{node.op_type} has no reference implementation")
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
