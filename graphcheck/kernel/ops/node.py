"""A node as the operators see it: resolved attributes and the opset version, whatever graph it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx

from graphcheck.records import record

if TYPE_CHECKING:
    import onnx_ir as ir


@record(frozen=True)
class Node:
    """A node as an operator's function sees it.

    Attributes:
        domain: That of the operator, ``""`` for ONNX's own.
        op_type: The operator.
        version: The opset version that the model imports for the domain.
        name: The node's name, or one made from its output.
        attributes: Values by name: numbers, strings, lists of them, onnx_ir tensors and graphs.
        n_inputs: Inputs, omitted ones included.
        n_outputs: Outputs, omitted ones included.
        present_inputs: For each input whether it is there.
        present_outputs: For each output whether it is there.
        source: The node in the model, or None.
    """

    domain: str
    op_type: str
    version: int
    name: str
    attributes: dict[str, Any]
    n_inputs: int
    n_outputs: int
    present_inputs: tuple[bool, ...]
    present_outputs: tuple[bool, ...]
    source: ir.Node | None = None

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute's value, or ``default``."""
        return self.attributes.get(name, default)

    def has_graphs(self) -> bool:
        """Whether an attribute is a graph, or a list of graphs."""
        import onnx_ir as ir

        values = self.attributes.values()
        return any(isinstance(g, ir.Graph) for v in values for g in (v if isinstance(v, (list, tuple)) else (v,)))

    def key(self) -> tuple[Any, ...]:
        """What identifies the operator: domain, type, since-version, attributes, which inputs are there."""
        plain = tuple(sorted((k, _hashable(v)) for k, v in self.attributes.items()))
        return (self.domain, self.op_type, since_version(self), plain, self.present_inputs)

    def proto(self) -> onnx.NodeProto:
        """The node alone, with inputs i0, i1 ... and outputs o0, o1 ..."""
        import onnx_ir as ir

        proto = onnx.NodeProto(op_type=self.op_type, domain=self.domain, name=self.name)
        proto.input.extend(f"i{i}" if there else "" for i, there in enumerate(self.present_inputs))
        proto.output.extend(f"o{i}" if there else "" for i, there in enumerate(self.present_outputs))
        for name, value in self.attributes.items():
            plain = isinstance(value, (int, float, str, bytes, list, tuple))  # a protocol's isinstance is slow
            if not plain and isinstance(value, ir.TensorProtocol):
                proto.attribute.append(onnx.helper.make_attribute(name, ir.to_proto(value)))
            elif not isinstance(value, ir.Graph):
                as_list = list(value) if isinstance(value, tuple) else value
                kind = self.source.attributes[name].type if self.source and name in self.source.attributes else None
                if as_list == [] and kind is not None:
                    proto.attribute.append(onnx.AttributeProto(name=name, type=int(kind)))  # type: ignore[arg-type]
                else:
                    proto.attribute.append(onnx.helper.make_attribute(name, as_list))
        return proto


def since_version(node: Node) -> int:
    """The version of the operator set that gave the operator its present meaning."""
    try:
        return int(onnx.defs.get_schema(node.op_type, node.version, node.domain).since_version)
    except onnx.defs.SchemaError:
        return node.version


def _hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(v) for v in value)
    if hasattr(value, "tobytes"):
        return (str(value.dtype), tuple(value.shape), value.tobytes())
    if isinstance(value, float):
        return ("float", value.hex())  # 1.0 is not the integer 1, nor 0.0 -0.0
    return value if isinstance(value, (int, str, bytes)) else repr(value)
