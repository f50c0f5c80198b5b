"""A graph to be mutated: constants, attributes and wires of a ModelProto, with a seeded choice of the place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Mutation = Callable[["Editor"], "onnx.NodeProto | None"]


class Editor:
    """A private copy of a model; a mutation picks nodes by ``pick`` and edits them in place."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.rng = np.random.default_rng(seed)
        self.graph = self.model.graph
        self.constants: dict[str, np.ndarray] = {}
        self._learn()
        self.shapes, self.types = _shapes(model)
        self._count = 0

    def _learn(self) -> None:
        self.constants |= {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and (value := constant_of(node)) is not None:
                self.constants[node.output[0]] = value

    def enter(self, number: int) -> None:
        """Edit a body of the graph's nodes from now on, by its number; its computed tensors are taken to be float32."""
        self.graph = [a.g for n in self.graph.node for a in n.attribute if a.HasField("g")][number]
        self.types |= dict.fromkeys((o for n in self.graph.node for o in n.output), onnx.TensorProto.FLOAT)
        self._learn()

    # -- choosing ------------------------------------------------------------------------------------------------

    def nodes(self, *op_types: str) -> list[onnx.NodeProto]:
        """The nodes of these types that compute (an operand is no constant), in a random order; all types if none."""
        found = [n for n in self.graph.node if (not op_types or n.op_type in op_types) and self.computes(n)]
        return [found[i] for i in self.rng.permutation(len(found))]

    def computes(self, node: onnx.NodeProto) -> bool:
        """Whether the node has a floating-point operand that is no constant."""
        return any(self.is_float(name) and name not in self.constants for name in node.input)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers (False where its type is not known)."""
        return self.types.get(name) in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """A constant operand's value."""
        return self.constants.get(node.input[index]) if index < len(node.input) else None

    def floats(self, node: onnx.NodeProto, smallest: int = 1) -> list[int]:
        """Positions of constant float32 operands of at least ``smallest`` elements."""
        values = [(i, self.constant(node, i)) for i in range(len(node.input))]
        return [i for i, v in values if v is not None and v.dtype == np.float32 and v.size >= smallest]

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """A tensor's inferred shape; symbolic dims are None, an unknown rank is None."""
        return self.shapes.get(name)

    # -- editing -------------------------------------------------------------------------------------------------

    def fresh(self, stem: str = "mutant") -> str:
        """A new name."""
        self._count += 1
        return f"{stem}_{self._count}_of_the_mutation"

    def new_constant(self, array: np.ndarray) -> str:
        """A new initializer; its name."""
        name = self.fresh("constant")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self.constants[name] = array
        return name

    def set_constant(self, node: onnx.NodeProto, index: int, array: np.ndarray) -> None:
        """Give one node another constant operand (others that share the old one keep it)."""
        node.input[index] = self.new_constant(array)

    def insert_after(self, node: onnx.NodeProto, op_type: str, more: Iterable[str] = (), **attributes: Any) -> None:
        """Send the node's first output through a new node."""
        inner, outer = self.fresh("before"), node.output[0]
        node.output[0] = inner
        at = next(i for i, n in enumerate(self.graph.node) if n is node or n.output == node.output)
        new = helper.make_node(op_type, [inner, *more], [outer], name=self.fresh(op_type), **attributes)
        self.graph.node.insert(at + 1, new)

    def insert_before(
        self, node: onnx.NodeProto, index: int, op_type: str, more: Iterable[str] = (), **attributes: Any
    ) -> None:
        """Send one operand of the node through a new node."""
        outer = self.fresh("after")
        at = next(i for i, n in enumerate(self.graph.node) if n.output == node.output)
        new = helper.make_node(op_type, [node.input[index], *more], [outer], name=self.fresh(op_type), **attributes)
        node.input[index] = outer
        self.graph.node.insert(at, new)

    def replace(self, node: onnx.NodeProto, op_type: str, **attributes: Any) -> None:
        """Another operator on the same operands."""
        node.op_type = op_type
        del node.attribute[:]
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())


def name_of(node: onnx.NodeProto) -> str:
    """What graphcheck calls a node."""
    return node.name or f"{node.op_type}({node.output[0]})"


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set an attribute, or add it."""
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def constant_of(node: onnx.NodeProto) -> np.ndarray | None:
    """What a Constant node holds, if numbers."""
    for a in node.attribute:
        if a.name == "value":
            return numpy_helper.to_array(a.t)
        if a.name in ("value_float", "value_floats"):
            return np.asarray(helper.get_attribute_value(a), np.float32)
        if a.name in ("value_int", "value_ints"):
            return np.asarray(helper.get_attribute_value(a), np.int64)
    return None


def _shapes(model: onnx.ModelProto) -> tuple[dict[str, tuple[int | None, ...]], dict[str, int]]:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes, types = {}, {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        types[value.name] = kind.elem_type
        if kind.HasField("shape"):
            dims = kind.shape.dim
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)
    for tensor in graph.initializer:
        shapes[tensor.name], types[tensor.name] = tuple(tensor.dims), tensor.data_type
    return shapes, types
