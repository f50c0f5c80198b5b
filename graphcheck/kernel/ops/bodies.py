"""ONNX's own function bodies: what an operator is made of, where its schema says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.errors import Untaught
from graphcheck.kernel.ops.algebra import Value, holds
from graphcheck.kernel.ops.node import Node

# Bodies of operators without a schema in ONNX. Source: onnxruntime/core/graph/contrib_ops/quantization_defs.cc
WRITTEN = {
    ("com.microsoft", "DynamicQuantizeMatMul"): """
        <opset_import: ["": 18, "com.microsoft": 1], domain: "com.microsoft">
        DynamicQuantizeMatMul (a, b, b_scale, b_zero, bias) => (y) {
          q, a_scale, a_zero = DynamicQuantizeLinear(a)
          y = com.microsoft.MatMulIntegerToFloat(q, b, a_scale, b_scale, a_zero, b_zero, bias)
        }"""
}

_NUMBERS = ("alpha", "beta", "gamma", "lambd")  # attributes that a body casts to the type of the input


def types_of(inputs: Sequence[Value]) -> list[onnx.TypeProto]:
    """The ONNX types of values; an empty one for an omitted input."""
    types = []
    for x in inputs:
        if x is None:
            types.append(onnx.TypeProto())
        else:
            code = int(ir.DataType.from_numpy(np.dtype(x.dtype)))
            types.append(onnx.helper.make_tensor_type_proto(code, list(x.shape)))
    return types


def function_body(
    memo: dict[Any, Any], node: Node, inputs: Sequence[Value], opsets: Mapping[str, int]
) -> ir.Function | None:
    """The function body of the operator at the model's operator set, or None; interned in ``memo`` by its bytes."""
    if node.has_graphs():
        return None  # the body would have to carry the subgraph on
    written = (node.domain, node.op_type)
    if written in WRITTEN and not node.attributes:
        return ir.serde.deserialize_function(onnx.parser.parse_function(WRITTEN[written]))
    try:
        schema = onnx.defs.get_schema(node.op_type, node.version, node.domain)
    except onnx.defs.SchemaError:
        return None
    if not all(holds(x.dtype, node.attr(name, 0.0)) for x in inputs if x is not None for name in _NUMBERS):
        raise Untaught(f"{node.op_type} with a number that float16 does not hold: the runtimes do not round it", node.name)
    proto = _proto(schema, node, inputs)
    if proto is None:
        return None
    key = ("body", proto.SerializeToString(deterministic=True))
    if key not in memo:
        memo[key] = _read(
            proto, schema, node.version if node.domain == "" else opsets.get("", onnx.defs.onnx_opset_version())
        )
    return memo[key]  # type: ignore[no-any-return]


def _proto(schema: Any, node: Node, inputs: Sequence[Value]) -> onnx.FunctionProto | None:
    """The body written in the newest operator set that is not newer than the node's, else in the oldest."""

    def best(versions: Sequence[int]) -> int:
        return max((v for v in versions if v <= node.version), default=min(versions))

    if schema.function_opset_versions:
        return _parsed(schema.get_function_with_opset_version(best(schema.function_opset_versions)))
    if not schema.context_dependent_function_opset_versions:
        return None
    at = best(schema.context_dependent_function_opset_versions)
    types = [t.SerializeToString() for t in types_of(inputs)]
    data = schema.get_context_dependent_function_with_opset_version(at, node.proto().SerializeToString(), types)
    return _parsed(data)


def _parsed(data: bytes) -> onnx.FunctionProto:
    proto = onnx.FunctionProto()
    proto.ParseFromString(data)
    return proto


def _read(proto: onnx.FunctionProto, schema: Any, version: int) -> ir.Function:
    made = {name for n in proto.node for name in n.output} | set(proto.input)
    for name in proto.output:
        if name not in made:  # an output that this node does not ask for
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_int=0))
    body = ir.serde.deserialize_function(proto)
    body.opset_imports.setdefault("", version)
    for name, attribute in schema.attributes.items():
        if attribute.default_value.type and name in body.attributes and body.attributes[name].value is None:
            body.attributes[name] = ir.from_proto(attribute.default_value)
    return body
