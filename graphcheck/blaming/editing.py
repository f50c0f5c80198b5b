"""A node of a cut-out piece, and the small changes that a mistake is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


@dataclasses.dataclass(frozen=True, eq=False)
class Spot:
    """A node of a piece, which is changed in place."""

    model: ir.Model
    node: ir.Node

    @property
    def op(self) -> str:
        """The operator."""
        return self.node.op_type

    @property
    def made(self) -> ir.Value:
        """The first result."""
        return self.node.outputs[0]

    def attr(self, name: str, default: Any) -> Any:
        """An attribute."""
        found = self.node.attributes.get(name)
        return default if found is None else found.value

    def set(self, **attributes: Any) -> None:
        """Give attributes other values."""
        for name, value in attributes.items():
            self.node.attributes[name] = ir.convenience.convert_attribute(name, value)

    def read(self, at: int) -> ir.Value | None:
        """An operand, or None."""
        return self.node.inputs[at] if at < len(self.node.inputs) else None

    def array(self, at: int) -> np.ndarray | None:
        """The array of a constant operand, or None."""
        value = self.read(at)
        return None if value is None or value.const_value is None else value.const_value.numpy()

    def constant(self, array: Any, like: np.ndarray | None = None) -> ir.Value:
        """A new constant, of the type of another."""
        array = np.asarray(array) if like is None else np.asarray(array).astype(like.dtype)
        name = f"mistake_{len(self.model.graph.initializers)}"
        value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.from_numpy(array.dtype))
        self.model.graph.register_initializer(value)
        return value

    def put(self, at: int, array: Any) -> None:
        """Another array for a constant operand."""
        self.node.replace_input_with(at, self.constant(array, self.array(at)))

    def scalar(self, number: float) -> ir.Value:
        """A number of the type of the result."""
        dtype = self.made.dtype
        return self.constant(np.asarray(number, np.float32 if dtype is None else dtype.numpy()))

    def before(self, op: str, inputs: Sequence[ir.Value | None], **attributes: Any) -> ir.Value:
        """What a new node in front of this one gives."""
        node = ir.node(op, list(inputs), attributes)
        node.outputs[0].name = f"mistake_of_{id(node)}"
        self.model.graph.insert_before(self.node, node)
        return node.outputs[0]

    def swap(self, op: str, inputs: Sequence[ir.Value | None], domain: str = "", **attributes: Any) -> None:
        """Another node in the place of this one."""
        node = ir.node(op, list(inputs), attributes, domain=domain)
        self.model.graph.insert_before(self.node, node)
        self._stand_for(node.outputs[0])

    def then(self, op: str, *inputs: ir.Value, **attributes: Any) -> None:
        """A node more behind this one."""
        node = ir.node(op, [self.made, *inputs], attributes)
        self.model.graph.insert_after(self.node, node)
        self._stand_for(node.outputs[0], keep=node)

    def skip(self, at: int = 0) -> None:
        """The operand as the result."""
        self.swap("Identity", [self.read(at)])

    def _stand_for(self, value: ir.Value, keep: ir.Node | None = None) -> None:
        old = self.made
        value.type, value.shape = old.type, old.shape
        value.name, old.name = old.name, f"{old.name}/right"
        for user, at in list(old.uses()):
            if user is not keep:
                user.replace_input_with(at, value)
        for at, output in enumerate(self.model.graph.outputs):
            if output is old:
                self.model.graph.outputs[at] = value
