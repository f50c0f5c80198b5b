"""The only loop over nodes: turns a graph at concrete input shapes into terms (:mod:`graphcheck.kernel.terms.store`).

What depends on no input is computed in its declared type by onnx.reference; an operator with a taught meaning says it
in verbs; one with an ONNX function body, or a model-local function, is expanded; anything else is an unknown function
of its inputs and attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck import limits
from graphcheck.errors import Exhausted, NotFinite, Oversized, Random, Refused, Undecided, UnknownFunction, Untaught
from graphcheck.files import model as model_
from graphcheck.kernel.ops import (
    arithmetic,
    contraction,
    control,
    erasing,
    movement,
    reduction,
    reference,
    resizing,
    sequence,
)
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.bodies import function_body, types_of
from graphcheck.kernel.ops.node import Node, since_version
from graphcheck.kernel.ops.outside import taught
from graphcheck.kernel.ops.table import ERASED, TAUGHT, WRAPPING, is_random, meaning_of
from graphcheck.kernel.terms.why import distinct

Env = dict[ir.Value, Value]

_FLAGS = ("keepdims", "exclusive", "reverse", "select_last_index", "count_include_pad", "noop_with_empty_axes")
_COMPUTED = frozenset((Tensor, list))  # types of values that depend on inputs, or may: a list is a sequence
OLDEST = 7  # before it, operators broadcast by their own attributes


@dataclasses.dataclass
class Trace:
    """One graph's tensors at one choice of input shapes: ``values`` by onnx_ir value, ``outputs`` in order."""

    values: Env
    outputs: list[Value]
    opaque: list[str]
    rules: dict[ir.Node, tuple[str, ...]]  # those that were applied while a node was told in verbs
    sizings: Sequence[Any] = ()  # of :mod:`graphcheck.kernel.every`, one for each free size that was asked about


class Interpreter:
    """Evaluates graphs into the store behind ``algebra``."""

    def __init__(self, model: ir.Model, algebra: Algebra) -> None:
        self.model, self.m, self.functions = model, algebra, model.functions
        self.opaque: list[str] = []
        self.rules: dict[ir.Node, tuple[str, ...]] = {}
        self.limits = limits.current()
        self.steps = self.folded = 0  # nodes evaluated, bytes of constants made

    def run(self, inputs: Mapping[str, Value]) -> Trace:
        """Trace the main graph on inputs by name (concrete arrays or tensors); raises :class:`Undecided`."""
        graph = self.model.graph
        for opsets in (self.model.opset_imports, *(f.opset_imports for f in self.functions.values())):
            for domain in opsets:  # what cannot be loaded is no fault of a node
                taught(domain)
        complex_ = next((n for n, x in inputs.items() if isinstance(x, Tensor) and x.dtype.kind == "c"), None)
        if complex_ is not None:
            raise Undecided(f"input {complex_!r} is complex, and only real numbers are evaluated")
        env: Env = {}
        for value in graph.inputs:
            if value.name is not None and value.name in inputs:
                env[value] = inputs[value.name]
        self._constants(graph, env)
        self._nodes(graph, env, {}, self.model.opset_imports)
        return Trace(env, [env[v] for v in graph.outputs], self.opaque, self.rules)

    def _constants(self, graph: ir.Graph, env: Env) -> None:
        for value in graph.initializers.values():
            if value not in env and value.const_value is not None:
                env[value] = value.const_value.numpy()

    def _nodes(
        self, nodes: Iterable[ir.Node], env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> None:
        applied = self.m.terms.applied
        for source in nodes:
            before = len(applied)
            env.update(zip(source.outputs, self.evaluate(source, env, attributes, opsets), strict=False))
            if len(applied) > before:
                self.rules[source] = distinct([*self.rules.get(source, ()), *applied[before:]])

    def evaluate(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        """What one node gives; a subclass may replace it, or pass over its failure. Raises :class:`Undecided`."""
        try:
            return self._node(source, env, attributes, opsets)
        except (Undecided, MemoryError) as error:
            if isinstance(error, Undecided) and error.node is None:
                error.node = model_.node_name(source)
            raise
        except UnknownFunction as error:
            op = f"{source.op_type} (node {model_.node_name(source)})"
            raise UnknownFunction(error.function, op) from error
        except RecursionError:
            raise Undecided("its functions or subgraphs are nested too deeply", model_.node_name(source)) from None
        except Exception as error:  # a node that breaks the rules of its operator, found by numpy or onnx
            values = (env.get(v) for v in source.inputs if v is not None)
            shapes = ", ".join(str(list(v.shape)) for v in values if isinstance(v, (Tensor, np.ndarray)))
            raise Refused(f"{source.op_type} does not take the shapes {shapes}", model_.node_name(source)) from error

    def _node(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        self._step()
        inputs = [None if v is None else env[v] for v in source.inputs]
        while inputs and inputs[-1] is None:
            inputs.pop()
        node = self._resolve(source, attributes, opsets, inputs)
        if self.functions and (f := self.functions.get((source.domain, source.op_type, source.overload))) is not None:
            return self._call(f, inputs, self._given(f, node), f.opset_imports)
        return self._operator(source, node, inputs, env, attributes, opsets)

    def _operator(
        self,
        source: ir.Node,
        node: Node,
        inputs: list[Any],
        env: Env,
        attributes: Mapping[str, Any],
        opsets: Mapping[str, int],
    ) -> Sequence[Value]:
        """What a node gives that calls no function of the model."""
        if is_random(node, inputs):
            raise Random(f"{node.op_type} is random", node.name)
        if node.domain == "":
            if node.version < OLDEST and since_version(node) != since_version(dataclasses.replace(node, version=OLDEST)):
                raise Undecided(
                    f"{node.op_type} of operator set {node.version} is not evaluated, only from {OLDEST} on", node.name
                )
            if node.op_type in control.OPS:
                body = control.Body(self.m, lambda g, xs: self._subgraph(g, xs, env, attributes, opsets))
                return self._controlled(node, inputs, body)
            if node.op_type in sequence.OPS:
                return self._sequenced(node, inputs)
            inputs = erasing.unfolded(self.m, node, inputs) if self.m.erased else inputs
            alone = _COMPUTED.isdisjoint(map(type, inputs))
            if alone and not (_sums_floats(node, inputs) or erasing.stands(self.m, node, inputs)):
                return self._fold(node, inputs)
        if list in map(type, inputs):
            raise Undecided(f"{node.op_type} on a sequence is not evaluated", node.name)
        if node.op_type in contraction.OPS or node.op_type in reduction.OPS or node.op_type in resizing.OPS:
            self._check_size(node, inputs)
        return self._taught(node, inputs)

    def _check_size(self, node: Node, inputs: Sequence[Value]) -> None:
        """Once for each operator and the shapes and sizes that it is given."""
        seen = tuple(reference.steering(x) for x in inputs)
        key = ("size", node.key(), seen)
        if key not in self.m.memo:
            reference.check_size(node, inputs)
            self.m.memo[key] = None

    def _step(self) -> None:
        self.steps += 1
        if self.steps > limits.MAX_STEPS:
            raise Exhausted(f"its functions and loops take more than {limits.MAX_STEPS} steps")
        self.limits.check_time()

    def _taught(self, node: Node, inputs: list[Value]) -> Sequence[Value]:
        op = meaning_of(node.domain, node.op_type)
        if op is None and erasing.format_of(self.m, np.dtype(np.uint8)):
            op = ERASED.get((node.domain, node.op_type))
        doubt = ""
        try:
            if node.attributes and any(node.attr(name, 0) not in (0, 1) for name in _FLAGS):
                raise Untaught(f"{node.op_type} with a flag that is neither 0 nor 1: runtimes differ", node.name)
            if op is not None:
                return self._told(op, node, inputs)
            body = self._body(node, inputs)
            if body is not None:
                return self._call(body, inputs, self._given(body, node), body.opset_imports)
        except Untaught as error:
            self.opaque.append(f"{node.name}: {error.reason}")
            doubt = "" if error.shaped else f": {error.reason}"
        return self._opaque(node, inputs, doubt)

    def _told(self, op: Callable[..., Any], node: Node, inputs: Sequence[Value]) -> Sequence[Value]:
        """What an operator with a taught meaning gives."""
        result = op(self.m, node, *inputs)
        self._check_symbols(node, inputs, result)
        if node.domain == "" and node.op_type in WRAPPING:
            result = arithmetic.wrapped(self.m, result)
        return result if isinstance(result, tuple) else (result,)

    def _body(self, node: Node, inputs: Sequence[Value]) -> ir.Function | None:
        """The function body of an operator, where ONNX has one for these inputs."""
        return function_body(self.m.memo, node, inputs, self.model.opset_imports)

    def _controlled(self, node: Node, inputs: list[Any], body: control.Body) -> list[Any]:
        """What an operator with a subgraph gives."""
        return control.OPS[node.op_type](self.m, node, inputs, body)

    def _sequenced(self, node: Node, inputs: list[Any]) -> list[Any]:
        """What an operator on sequences gives."""
        return sequence.OPS[node.op_type](self.m, node, inputs)

    def _check_symbols(self, node: Node, inputs: Sequence[Value], result: Any) -> None:
        """Raise :class:`Undecided` where something is computed of a NaN or +inf: they may be moved, and chosen by Where."""
        nan = self.m.terms.nan
        if not nan or (node.domain == "" and node.op_type in movement.OPS):
            return
        rows = inputs[:1] if node.op_type == "Where" else inputs, result if isinstance(result, tuple) else (result,)
        given, made = ({x.cls for x in xs if isinstance(x, Tensor) and x.cls in nan} for xs in rows)
        if given != made and (given or node.op_type != "Where"):
            raise NotFinite(f"a constant that holds NaN or +inf reaches {node.op_type}", node.name)

    def _resolve(
        self, source: ir.Node, attributes: Mapping[str, Any], opsets: Mapping[str, int], inputs: Sequence[Value]
    ) -> Node:
        domain = "" if source.domain == "ai.onnx" else source.domain
        plain: dict[str, Any] = {}
        for name, attribute in source.attributes.items() if source.attributes else ():
            if attribute.is_ref():
                if attribute.ref_attr_name is not None and attribute.ref_attr_name in attributes:
                    plain[name] = attributes[attribute.ref_attr_name]
            else:
                plain[name] = attribute.value
        version = opsets.get(domain, opsets.get("ai.onnx", 1) if domain == "" else 1)
        given, made = tuple([x is not None for x in inputs]), tuple([v.name != "" for v in source.outputs])
        label = model_.node_name(source)
        return Node(domain, source.op_type, version, label, plain, len(given), len(made), given, made, source)

    def _given(self, function: ir.Function, node: Node) -> dict[str, Any]:
        defaults = {name: a.value for name, a in function.attributes.items() if a is not None and a.value is not None}
        return {**defaults, **node.attributes}

    def _subgraph(
        self,
        graph: ir.Graph,
        inputs: Sequence[Value],
        env: Env,
        attributes: Mapping[str, Any],
        opsets: Mapping[str, int],
    ) -> list[Value]:
        env.update(zip(graph.inputs, inputs, strict=True))
        self._constants(graph, env)
        self._nodes(graph, env, attributes, opsets)
        return [env[v] for v in graph.outputs]

    def _call(
        self, function: ir.Function, inputs: Sequence[Value], attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> list[Value]:
        env: Env = dict(zip(function.inputs, [*inputs, *[None] * len(function.inputs)], strict=False))
        self._constants(function.graph, env)
        self._nodes(function, env, attributes, opsets)
        return [env[v] for v in function.outputs]

    def _fold(self, node: Node, inputs: list[Any]) -> Sequence[Value]:
        if node.op_type == "Constant":
            return (self._constant(node),)
        try:
            results = reference.run(node, inputs)
        except Oversized:
            raise
        except Undecided:
            if (node.domain, node.op_type) not in TAUGHT:
                raise
            results = [self.m.lower(x) for x in self._taught(node, inputs)]
        self.folded += sum(x.nbytes for x in results if isinstance(x, np.ndarray))
        self.limits.check_taken(self.folded)
        return results

    def _constant(self, node: Node) -> np.ndarray:
        for name, value in node.attributes.items():
            if name == "value":
                return np.asarray(value.numpy())
            if name in ("value_float", "value_floats"):
                return np.asarray(value, np.float32)
            if name in ("value_int", "value_ints"):
                return np.asarray(value, np.int64)
        raise Undecided("a Constant holds no number", node.name)

    def _opaque(self, node: Node, inputs: list[Value], doubt: str) -> list[Value]:
        """An unknown function of the inputs; its outputs' shapes by ONNX shape inference where that is in no ``doubt``, or as a
        runtime gives them."""
        if node.domain == "" and node.op_type in movement.INDEXED and isinstance(inputs[1], Tensor):
            assert inputs[0] is not None
            inputs = [inputs[0], movement.indices_of(self.m, inputs[0], inputs[1]), *inputs[2:]]
        try:
            schema = onnx.defs.get_schema(node.op_type, node.version, node.domain)
        except onnx.defs.SchemaError:
            return self._opaque_declared(node, inputs)
        defaults = {
            n: onnx.helper.get_attribute_value(a.default_value)
            for n, a in schema.attributes.items()
            if a.default_value.type
        }
        node = dataclasses.replace(node, attributes={**defaults, **node.attributes})
        types = {f"i{i}": t for i, t in enumerate(types_of(inputs)) if inputs[i] is not None}
        data = {f"i{i}": onnx.numpy_helper.from_array(x) for i, x in enumerate(inputs) if isinstance(x, np.ndarray)}
        found = onnx.shape_inference.infer_node_outputs(schema, node.proto(), types, data)
        shapes: list[tuple[tuple[int, ...], np.dtype[Any]] | None] = []
        for i in range(node.n_outputs):
            kind = found.get(f"o{i}")
            if kind is None or not kind.tensor_type.HasField("shape"):
                shapes.append(None)
                continue
            dims = kind.tensor_type.shape.dim
            known = not doubt and all(d.HasField("dim_value") for d in dims)
            dtype = np.dtype(ir.DataType(kind.tensor_type.elem_type).numpy())
            shapes.append((tuple(d.dim_value for d in dims), dtype) if known else None)
        return self._unknown(node, inputs, self._seen(node, inputs, shapes), doubt)

    def _opaque_declared(self, node: Node, inputs: list[Value]) -> list[Value]:
        """An operator without a schema: the shapes that the model declares for its outputs, where they are static."""
        shapes: list[tuple[tuple[int, ...], np.dtype[Any]] | None] = []
        for value in node.source.outputs if node.source is not None else ():
            dims = model_.declared_shape(value)
            static = dims is not None and all(isinstance(d, int) for d in dims) and value.dtype is not None
            shapes.append((tuple(dims), np.dtype(value.dtype.numpy())) if static else None)  # type: ignore[union-attr,arg-type]
        return self._unknown(node, inputs, self._seen(node, inputs, shapes))

    def _seen(self, node: Node, inputs: Sequence[Value], shapes: list[Any]) -> list[Any]:
        """The shapes, where one is not known those that a runtime gives, if it does run the operator."""
        lacks = any(shape is None and node.present_outputs[i] and _is_read(node, i) for i, shape in enumerate(shapes))
        if self.m.observe is None or node.has_graphs() or not lacks:
            return shapes
        key = ("observed", node.key(), tuple(reference.steering(x) for x in inputs))
        if key not in self.m.memo:
            types = {f"i{i}": t for i, t in enumerate(types_of(inputs)) if inputs[i] is not None}
            data = {f"i{i}": x for i, x in enumerate(inputs) if isinstance(x, np.ndarray)}
            found = self.m.observe(node.proto(), {"": 17, **self.model.opset_imports}, types, data)
            places = iter(found or ())
            self.m.memo[key] = found and [next(places) if there else None for there in node.present_outputs]
        if self.m.memo[key]:
            self.m.assumptions.add(f"the shape of what {model_.op_name(node)} gives is taken from onnxruntime")
        return self.m.memo[key] or shapes

    def _unknown(self, node: Node, inputs: list[Value], shapes: Sequence[Any], doubt: str = "") -> list[Value]:
        if node.has_graphs():
            raise Undecided(f"{node.op_type} holds a subgraph that is not evaluated", node.name)
        args = [self.m.lift(x) for x in inputs if x is not None]
        results: list[Value] = []
        for i, shape in enumerate(shapes):
            if shape is None:
                if node.present_outputs[i] and _is_read(node, i):
                    raise Undecided(f"the shape of what {model_.op_name(node)} gives is not known{doubt}", node.name, "GC204")
                results.append(None)
                continue
            results.append(self.m.unknown(node.key(), args, i, *shape))
        return results


def _is_read(node: Node, at: int) -> bool:
    """Whether a node or the graph takes an output; of a node without a source it is not known."""
    value = None if node.source is None else node.source.outputs[at]
    return value is None or bool(value.uses()) or value.is_graph_output()


def _sums_floats(node: Node, inputs: Sequence[Value]) -> bool:
    """Whether the result in floats depends on an order of summation that ONNX leaves open: then it is taken exactly."""
    sums = node.op_type in contraction.OPS or node.op_type in reduction.OPS
    return sums and isinstance(inputs[0], np.ndarray) and inputs[0].dtype.kind not in "iub"
