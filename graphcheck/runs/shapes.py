"""What shapes onnxruntime gives the outputs of one node, for operators whose shapes nobody else knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from graphcheck.errors import GraphcheckError
from graphcheck.runs.child import RemoteSession

Shape = tuple[tuple[int, ...], np.dtype[Any]]


def of_node(
    node: onnx.NodeProto, opsets: Mapping[str, int], types: Mapping[str, onnx.TypeProto], data: Mapping[str, np.ndarray]
) -> list[Shape] | None:
    """Shape and type of each output of a node on inputs of these ``types``, or of these values; None where it does not run.

    It runs on ones, on zeros and on numbers that all differ: where the shapes do, they depend on values that nobody knows
    yet, and are None. Else they are taken to follow from those of the inputs and the values in ``data``.
    """
    free = {name: kind for name, kind in types.items() if name not in data}
    graph = onnx.helper.make_graph(
        [node],
        "node",
        [onnx.helper.make_value_info(name, kind) for name, kind in free.items()],
        [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(x), name) for name, x in data.items()],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    ones = {}
    for name, kind in free.items():
        dims = [d.dim_value for d in kind.tensor_type.shape.dim]
        ones[name] = np.ones(dims, onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    others = {name: np.arange(x.size).reshape(x.shape).astype(x.dtype) for name, x in ones.items()}
    zeros = {name: np.zeros_like(x) for name, x in ones.items()}
    try:
        with RemoteSession(model.SerializeToString(), optimizations="off", threads=1, timeout=20.0) as session:
            found = [_shapes(session.run(feeds), node) for feeds in (ones, zeros, others)]
    except GraphcheckError:
        return None
    return found[0] if all(each == found[0] for each in found) else None


def _shapes(outputs: Mapping[str, np.ndarray], node: onnx.NodeProto) -> list[Shape]:
    return [(outputs[name].shape, outputs[name].dtype) for name in node.output if name]
