"""The canonical form of a graph: its live nodes in topological order, each with numbers for what it computes.

Nodes of subgraphs and model-local functions are flattened into one digraph with those of the main graph: a
node depends on its operands and on the results of the bodies that it owns. Two numbers go bottom-up: *exact*, equal for
equal expressions of equal constants, and *skeleton*, which knows constants only by dtype and shape. Nothing here recurses
or compares names of inner values.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.errors import ModelError
from graphcheck.files.contents import Contents
from graphcheck.files.model import node_name, path_of

Body = ir.Graph | ir.Function
# Defaults that operator schemas state in words only: one value for every spatial axis.
_UNIFORM_DEFAULTS = {"strides": 1, "dilations": 1, "pads": 0}
_WINDOWED_OPS = frozenset(
    ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "MaxPool", "AveragePool", "LpPool")
)
_CONSTANT_TYPES = {
    "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
    "value_string": np.object_, "value_strings": np.object_,
}  # fmt: skip


def content_of(tensor: ir.TensorProtocol, contents: Contents) -> Hashable:
    """dtype, shape and elements: the same for every way of storing the same constant, bit for bit, and only then."""
    header = f"{tensor.dtype.name}{list(tensor.shape.numpy())}"
    if tensor.dtype == ir.DataType.STRING:
        items = np.asarray(tensor.numpy(), dtype=object).ravel()
        return header, tuple(item if isinstance(item, bytes) else str(item).encode() for item in items)
    array = tensor.numpy()
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if tensor.dtype.bitwidth < 8:  # one element a byte here, and its upper bits mean nothing
        array = np.ascontiguousarray(array).view(np.uint8) & np.uint8((1 << tensor.dtype.bitwidth) - 1)
    return header, contents.of(array)


class Numbers(dict[Hashable, int]):
    """A number for each key, the same for equal ones."""

    def of(self, *key: Hashable) -> int:
        """The number of what is known by these parts."""
        return self.setdefault(key, len(self))


class FlatGraph:
    """All live nodes of a model in topological order, each with its key, its bodies and its two numbers.

    Graphs are compared by numbers that were given by the same ``numbers``, with constants by the same ``contents``.
    """

    def __init__(self, model: ir.Model, contents: Contents, numbers: Numbers) -> None:
        self.model, self.contents, self.numbers = model, contents, numbers
        self.constants: dict[ir.Value, int] = {}  # of initializers and of the outputs of Constant nodes
        self.shapes: dict[ir.Value, int] = {}  # what the skeleton knows of them
        self.leaves: dict[ir.Value, int] = {}  # graph inputs, and formal parameters of bodies
        self.bodies: dict[ir.Node, list[Body]] = {}
        self.keys: dict[ir.Node, int] = {}
        self._opsets: dict[ir.Node, dict[str, int]] = {}
        tensors: dict[ir.Value, ir.TensorProtocol] = {}
        everything = self._collect(tensors)
        self.nodes = self._live(everything, tensors)
        self._number_constants(tensors)
        for node in self.nodes:
            self.keys[node] = self._key(node)

    @functools.cached_property
    def exact(self) -> dict[ir.Node, int]:
        """A number for each live node, equal for equal expressions of equal constants."""
        return self._numbered({**self.constants, **self.leaves})

    @functools.cached_property
    def skeleton(self) -> dict[ir.Node, int]:
        """The same, of constants only dtype and shape."""
        return self._numbered({**self.shapes, **self.leaves})

    def used_constants(self) -> Iterable[tuple[ir.Value, int]]:
        """Each constant that a live node or an output needs, with its number."""
        needed = dict.fromkeys(value for node in self.nodes for value in node.inputs if value is not None)
        for body in (self.model.graph, *(body for node in self.nodes for body in self.bodies.get(node, ()))):
            needed.update(dict.fromkeys(body.outputs))
        return [(value, self.constants[value]) for value in needed if value in self.constants]

    def _collect(self, tensors: dict[ir.Value, ir.TensorProtocol]) -> list[ir.Node]:
        """Every node that is no constant, in the order of the file, with its leaves registered on the way."""
        model, nodes = self.model, []
        for value, leaf in zip(callable_inputs(model), signature(model)[0], strict=True):
            self.leaves[value] = self.numbers.of("input", repr(leaf))
        opsets = dict(model.opset_imports)
        scopes: list[tuple[Body, str, int, dict[str, int]]] = [(model.graph, "", 0, opsets)]
        scopes += [(f, "function", 0, dict(f.opset_imports)) for f in model.functions.values()]
        while scopes:
            body, kind, depth, imports = scopes.pop()
            if body is not model.graph:
                for index, value in enumerate(body.inputs):
                    self.leaves[value] = self.numbers.of(kind, depth, index)
            if isinstance(body, ir.Graph):
                self._initializers(body, tensors)
            for node in body:
                constant = constant_tensor(node)
                if constant is not None:
                    tensors[node.outputs[0]] = constant
                    continue
                nodes.append(node)
                self._opsets[node] = imports
                inner = _graphs(node)
                scopes += [(graph, kind, depth + 1, imports) for graph in inner]
                function = self._called(node)
                if inner or function is not None:
                    self.bodies[node] = [*inner, *([function] if function is not None else [])]
        return nodes

    def _called(self, node: ir.Node) -> ir.Function | None:
        """The function of the model that the node calls."""
        functions = self.model.functions
        return functions.get(node.op_identifier()) if functions else None

    def _initializers(self, graph: ir.Graph, tensors: dict[ir.Value, ir.TensorProtocol]) -> None:
        for value in graph.initializers.values():
            if value.const_value is None:
                continue
            if value in self.leaves:  # a default that a caller may override
                content = content_of(value.const_value, self.contents)
                self.leaves[value] = self.numbers.of("default", self.leaves[value], content)
            else:
                tensors[value] = value.const_value

    def _live(self, nodes: list[ir.Node], tensors: Mapping[ir.Value, ir.TensorProtocol]) -> list[ir.Node]:
        """The nodes that the outputs need, each behind those that it needs."""
        of_graph, order = set(nodes), list[ir.Node]()
        known: dict[ir.Node, bool] = {}  # met on the way: whether it is in the order yet
        stack = [p for value in self.model.graph.outputs if (p := value.producer()) is not None and p in of_graph]
        while stack:
            node = stack[-1]
            if node in known:
                stack.pop()
                if not known[node]:
                    known[node] = True
                    order.append(node)
                continue
            known[node] = False
            operands = strip(node.inputs)
            if node in self.bodies:
                operands = (*operands, *(v for body in self.bodies[node] for v in body.outputs))
            for value in operands:
                producer = value.producer() if value is not None else None
                if producer is not None and producer in of_graph:
                    if producer not in known:
                        stack.append(producer)
                    elif not known[producer]:
                        raise ModelError(path_of(self.model) or "model", "the graph has a cycle", node_name(node))
                elif value is not None and value not in tensors and value not in self.leaves:
                    cause = f"nothing produces its operand {value.name!r}"
                    raise ModelError(path_of(self.model) or "model", cause, node_name(node))
        return order

    def _number_constants(self, tensors: dict[ir.Value, ir.TensorProtocol]) -> None:
        numbers = [t for t in tensors.values() if t.dtype != ir.DataType.STRING and t.dtype.bitwidth >= 8]
        self.contents.ahead(t.numpy() for t in numbers)
        for value, tensor in tensors.items():
            self.constants[value] = self.numbers.of("constant", content_of(tensor, self.contents))
            self.shapes[value] = self.numbers.of("constant", tensor.dtype.name, tuple(tensor.shape.numpy()))

    def _key(self, node: ir.Node) -> int:
        """What the node does to its operands; of its bodies only how many parameters and results they have."""
        function, domain, op_type = self._called(node), node.domain, node.op_type
        version, defaults = (
            (0, {}) if function is not None else _schema(domain, op_type, self._opsets[node].get(domain, 0))
        )
        what = (domain, op_type, node.overload, version, len(strip(node.outputs)))
        if node not in self.bodies and not node.attributes:  # most nodes
            return self.numbers.of("node", *what, (), ())
        attributes = [(attr.name, self._attribute(attr)) for attr in node.attributes.values()]
        attributes = [(n, v) for n, v in attributes if defaults.get(n) != v and not _is_uniform_default(node, n)]
        if function is not None:
            attributes += [(f"default of {attr.name}", self._attribute(attr)) for attr in function.attributes.values()]
        attributes.sort(key=lambda named: named[0])
        counts = [(len(body.inputs), len(body.outputs)) for body in self.bodies.get(node, ())]
        return self.numbers.of("node", *what, tuple(attributes), tuple(counts))

    def _attribute(self, attr: ir.Attr) -> Hashable:
        if attr.is_ref():
            return "reference", attr.type.name, str(attr.ref_attr_name)
        if attr.type == ir.AttributeType.TENSOR:
            return "tensor", content_of(attr.value, self.contents)
        if attr.type == ir.AttributeType.TENSORS:
            return "tensors", tuple(content_of(tensor, self.contents) for tensor in attr.value)
        if attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return "graph"  # compared as a body
        return _plain_attribute(attr.type, attr.value)

    def _numbered(self, known: dict[ir.Value, int]) -> dict[ir.Node, int]:
        values, result, number = dict(known), {}, self.numbers.of
        for node in self.nodes:
            operands = tuple([None if value is None else values[value] for value in strip(node.inputs)])
            inner = tuple([values[value] for body in self.bodies.get(node, ()) for value in body.outputs])
            result[node] = first = number("result", self.keys[node], operands, inner)
            for index, value in enumerate(node.outputs):
                values[value] = first if index == 0 else number("output", first, index)
        return result


def signature(model: ir.Model) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """The interface as two graphs must share it: inputs as (name, dtype, dims), outputs as (name, dtype), in order.

    Symbolic dims are numbered by first use, so that their names do not matter but their sharing does.
    """
    numbers: dict[object, str] = {}
    inputs: list[tuple[object, ...]] = []
    for value in callable_inputs(model):
        dims: list[object] | None = None if value.shape is None else []
        for axis, dim in enumerate(value.shape or ()):
            key = (value.name, axis) if not isinstance(dim, int) and dim.value is None else dim
            assert dims is not None
            dims.append(dim if isinstance(dim, int) else numbers.setdefault(key, f"dim {len(numbers)}"))
        inputs.append((value.name, str(value.type), None if dims is None else tuple(dims)))
    return inputs, [(value.name, str(value.type)) for value in model.graph.outputs]


def callable_inputs(model: ir.Model) -> list[ir.Value]:
    """Graph inputs that a caller may give; one with an initializer is a default that the caller may override."""
    listed = lists_initializers(model)
    return [v for v in model.graph.inputs if not (listed and v.name in model.graph.initializers)]


def lists_initializers(model: ir.Model) -> bool:
    """Whether every initializer is listed among the inputs and a constant all the same, as before IR version 4."""
    return (model.ir_version or 0) < 4


def strip(values: Sequence[ir.Value | None]) -> Sequence[ir.Value | None]:
    """Without the optional operands or results that are left out at the end."""
    end = len(values)
    while end and (values[end - 1] is None or values[end - 1].name == ""):  # type: ignore[union-attr]
        end -= 1
    return values if end == len(values) else values[:end]


def _graphs(node: ir.Node) -> list[ir.Graph]:
    result: list[ir.Graph] = []
    for attr in sorted(node.attributes.values(), key=lambda attr: attr.name) if node.attributes else ():
        if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
            result.append(attr.value)
        elif attr.type == ir.AttributeType.GRAPHS and not attr.is_ref():
            result += attr.value
    return result


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant node; None for other nodes, and where a function's attribute gives it."""
    if node.op_type != "Constant" or node.domain != "" or len(node.attributes) != 1:
        return None
    attr = next(iter(node.attributes.values()))
    if attr.is_ref():
        return None
    if attr.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol = attr.value  # as_tensor() asks a protocol, which takes longer than all the rest
        return tensor
    if attr.name not in _CONSTANT_TYPES:
        return None
    array: np.ndarray[Any, Any] = np.array(attr.value, dtype=_CONSTANT_TYPES[attr.name])
    if array.dtype == object:
        data = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
        return ir.StringTensor(data, shape=ir.Shape(array.shape))
    return ir.Tensor(array)


@functools.lru_cache(maxsize=4096)
def _schema(domain: str, op_type: str, version: int) -> tuple[int, dict[str, Hashable]]:
    """(since-version, encoded attribute defaults) of an operator; the imported version where nobody knows it."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except Exception:  # SchemaError has no public home
        return version, {}
    defaults: dict[str, Hashable] = {}
    for name, attribute in schema.attributes.items():
        if attribute.default_value.name:
            attr = ir.serde.deserialize_attribute(attribute.default_value)
            defaults[name] = _plain_attribute(attr.type, attr.value)
    return schema.since_version, defaults


def _plain_attribute(kind: ir.AttributeType, value: Any) -> tuple[str, Hashable]:
    """The kind and the value, floats bit for bit."""
    if kind == ir.AttributeType.FLOAT:
        return "FLOAT", struct.pack("<d", value)
    if kind == ir.AttributeType.FLOATS:
        return "FLOATS", struct.pack(f"<{len(value)}d", *value)
    if kind == ir.AttributeType.STRING:
        return "STRING", value if isinstance(value, bytes) else str(value).encode()
    if kind == ir.AttributeType.STRINGS:
        return "STRINGS", tuple(item if isinstance(item, bytes) else str(item).encode() for item in value)
    return kind.name, repr(value)


def _is_uniform_default(node: ir.Node, name: str) -> bool:
    standard = node.domain in ("", "ai.onnx") and node.op_type in _WINDOWED_OPS
    if not standard or name not in _UNIFORM_DEFAULTS or node.attributes[name].is_ref():
        return False
    return all(item == _UNIFORM_DEFAULTS[name] for item in node.attributes[name].value)
