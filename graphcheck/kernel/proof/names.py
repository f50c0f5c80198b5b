"""Names of tensors that hold at every size: two tensors of one name are the same function of the inputs, whatever the sizes.

A graph is walked as it is written, so nothing here depends on the size at which it was traced. The name of what a node gives
is made of its operator, its attributes and the names of its inputs; sizes are terms over the free dims. docs/explanation.md
has the theorem.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.errors import Undecided
from graphcheck.files.contents import Contents
from graphcheck.kernel.interpreter import OLDEST, Env, Interpreter, Trace
from graphcheck.kernel.ops import movement, reference, rows
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.node import Node, since_version
from graphcheck.kernel.ops.table import TAUGHT, is_random

_SMALL = 64  # elements of an array of sizes
# Operators that mean the same from this version on, for the types that they had before.
_SINCE = {
    1: "Conv Gather GlobalAveragePool GlobalMaxPool MatMul Shape Softplus Transpose",
    4: "Concat",
    6: "Abs Cast Ceil Elu Exp Floor HardSigmoid InstanceNormalization LeakyRelu Log Neg Reciprocal Relu Sigmoid Sqrt Tanh Tile",
    7: "Add And Cos Div Equal Gemm Greater Less Mul Or Pow Sin Sub",
    8: "Expand Max Mean Min Sum",
    9: "BatchNormalization ConstantOfShape Erf Sign Where",
    10: "Slice",
    11: "Clip CumSum Pad Range",
    13: "LogSoftmax Softmax",
    17: "LayerNormalization",
}
_FROM = {name: version for version, names in _SINCE.items() for name in names.split()}
# Operators whose operands may change places; those whose shapes ONNX infers with free dims, elementwise ones besides; those of
# com.microsoft that keep the shape of input 0.
_GROUPS = {
    "commute": "Add And Equal Max Mean Min Mul Or Sum",
    "shaped": """AveragePool BatchNormalization Cast Clip Concat Conv ConvTranspose CumSum Gather Gemm GlobalAveragePool
    GlobalMaxPool InstanceNormalization LayerNormalization LogSoftmax LpNormalization MatMul MaxPool Pad RMSNormalization ReduceL2
    ReduceMax ReduceMean ReduceMin ReduceSum Resize Slice Softmax Split Transpose""",
    "kept": "BiasGelu FastGelu Gelu QuickGelu SkipLayerNormalization",
}
_COMMUTE, _SHAPED, _KEPT = (frozenset(names.split()) for names in _GROUPS.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Term:
    """A size that is no number: ``symbol`` (name), ``dim`` (of a tensor's name, axis), or arithmetic of sizes."""

    op: str
    args: tuple[Any, ...]


Size = int | Term


def sure(size: Size) -> bool:
    """Whether a size is at least 1 wherever the free dims are."""
    if not isinstance(size, Term):
        return size >= 1
    return size.op == "symbol" or (size.op in ("Mul", "Add") and all(map(sure, size.args)))


def product(sizes: Sequence[Size]) -> Size:
    """Their product in normal form."""
    factors = [f for size in sizes for f in (size.args if isinstance(size, Term) and size.op == "Mul" else (size,))]
    number = math.prod(f for f in factors if isinstance(f, int))
    terms = sorted((f for f in factors if isinstance(f, Term)), key=repr)
    if not number or not terms:
        return number
    found: list[Size] = [*([number] if number != 1 else []), *terms]
    return found[0] if len(found) == 1 else Term("Mul", tuple(found))


def quotient(sizes: Sequence[Size], by: Sequence[Size]) -> Size | None:
    """What ``by``, sizes of at least 1, leave of a product; None where that is not known."""
    over, under = ([*s.args] if isinstance(s, Term) and s.op == "Mul" else [s] for s in map(product, (sizes, by)))
    numbers = [math.prod(f for f in side if isinstance(f, int)) for side in (over, under)]
    left, gone = (Counter(f for f in side if isinstance(f, Term)) for side in (over, under))
    if not all(map(sure, under)) or numbers[0] % numbers[1] or gone - left:
        return None
    return product([numbers[0] // numbers[1], *(left - gone).elements()])


def _calculated(op: str, x: Size, y: Size) -> Size | None:
    """Arithmetic of two sizes, in types of 64 bits; None where nothing is known of it."""
    if op == "Equal":
        both = isinstance(x, int) and isinstance(y, int)
        apart = [isinstance(p, Term) and sure(p) and isinstance(q, int) and q < 1 for p, q in ((x, y), (y, x))]
        return int(x == y) if both or x == y else 0 if any(apart) else None
    if op == "Mul":
        return product([x, y])
    if op == "Div":
        exact = quotient([x], [y]) if sure(y) else None
        if exact is None and isinstance(x, int) and isinstance(y, int) and x >= 0 < y:
            return x // y
        return Term(op, (x, y)) if exact is None else exact
    if isinstance(x, int) and isinstance(y, int):
        return x + y if op == "Add" else x - y
    if y == 0 or (x == 0 and op == "Add"):
        return x if y == 0 else y
    return Term(op, (x, y) if op == "Sub" else tuple(sorted((x, y), key=repr)))


class Names:
    """The names of both graphs' tensors, as numbers; what is known of each holds at every size."""

    def __init__(self, contents: Contents, sizes: Mapping[str, int]) -> None:
        self.contents, self.sizes = contents, sizes
        self._keys: dict[Any, int] = {}
        self._params: dict[str, Size] = {}
        self.dims: dict[int, tuple[Size, ...]] = {}
        self.types: dict[int, int] = {}  # as ONNX numbers them
        self.arrays: dict[int, np.ndarray] = {}  # of what is the same constant at every size
        self.elements: dict[int, np.ndarray] = {}  # of small arrays of int64: sizes
        self._base: dict[int, int] = {}  # what a tensor has the elements of, in another shape
        self._turns: dict[int, tuple[int, Sequence[int]]] = {}  # what a tensor is a Transpose of, and its axes
        self._traced: dict[int, tuple[int, ...]] = {}

    def name(self, *key: Any) -> int:
        """The number of a key."""
        return self._keys.setdefault(key, len(self._keys))

    def fresh(self) -> int:
        """A name that nothing else has."""
        return self.name(object())

    def constant(self, array: np.ndarray) -> int:
        """An array, known by its bytes."""
        plain = array.dtype.kind not in "OUS"
        held = self.contents.of(array) if plain else repr(array.tolist())
        found = self.name("constant", array.dtype.name, array.shape, held)
        self.arrays[found], self.dims[found] = array, tuple(array.shape)
        if plain:
            self.types[found] = int(ir.DataType.from_numpy(array.dtype))
        if array.dtype == np.int64 and array.size <= _SMALL:
            self.elements[found] = array.astype(object)
        return found

    def vector(self, elements: np.ndarray) -> int:
        """An array of int64, known by its elements."""
        flat = elements.reshape(-1).tolist()
        if all(isinstance(size, int) for size in flat):
            return self.constant(np.array(flat, np.int64).reshape(elements.shape))
        found = self.name("sizes", elements.shape, tuple(flat))
        self.elements[found], self.dims[found], self.types[found] = elements, elements.shape, int(ir.DataType.INT64)
        return found

    def node(self, node: Node, inputs: Sequence[int | None], traced: Sequence[Value]) -> list[int]:
        """The names of what a node without subgraphs gives; ``traced`` are its outputs at one size."""
        plain = node.domain == ""
        if plain and node.op_type in ("Identity", "Dropout") and not any(node.present_outputs[1:]):
            assert inputs[0] is not None
            return [inputs[0]]
        single = node.n_outputs == 1 and not node.has_graphs()
        steps = (self._sized, self._moved, self._flat, self._spelled) if plain else (self._spelled,)
        for step in steps if single else ():
            made = step(node, inputs)
            if made is not None:
                return [made]
        key = self._key(node, inputs)
        found = [self.name(*key, at) for at in range(len(node.present_outputs))]
        for at, value in enumerate(traced):
            if isinstance(value, Tensor | np.ndarray):
                self._traced.setdefault(found[at], tuple(value.shape))
        if found[0] not in self.dims:
            self._infer(node, inputs, found)
        return found

    def _key(self, node: Node, inputs: Sequence[int | None]) -> tuple[Any, ...]:
        """The operator with its attributes, but for those that are the default, and the names of its inputs."""
        since, name = since_version(node), node.op_type
        attributes = {k: v for k, v in node.attributes.items() if not isinstance(v, ir.Graph)}
        try:
            told = onnx.defs.get_schema(name, node.version, node.domain).attributes
        except onnx.defs.SchemaError:
            told = {}
        usual = {
            k: onnx.helper.get_attribute_value(told[k].default_value)
            for k in attributes
            if k in told and told[k].default_value.type
        }
        usual = {k: v.decode() if isinstance(v, bytes) else v for k, v in usual.items()}
        if node.domain == "" and (name.startswith("Reduce") or name in ("Squeeze", "Unsqueeze")):
            axes = self._axes(node, inputs)
            if axes is not None:
                inputs, attributes, since = inputs[:1], {**attributes, "axes": sorted(axes)}, 1
        if name in ("Conv", "ConvTranspose", "MaxPool", "AveragePool") and node.domain == "":
            steps = {"strides": 1, "dilations": 1, "pads": 0}
            usual |= {k: [n] * len(attributes[k]) for k, n in steps.items() if k in attributes}
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()}
        attributes = {k: v for k, v in attributes.items() if k not in usual or usual[k] != plain[k]}
        if node.domain == "" and since >= _FROM.get(name, since):
            since = _FROM.get(name, since)
        if node.domain == "" and name in _COMMUTE:
            inputs = sorted(inputs, key=repr)
        bare = dataclasses.replace(node, attributes=attributes).key()
        return "node", bare[0], bare[1], since, bare[3], tuple(inputs), node.present_outputs

    def _axes(self, node: Node, inputs: Sequence[int | None]) -> list[int] | None:
        """Named axes, from the front, of an operator that has them as an attribute or as input 1."""
        axes = node.attr("axes")
        if axes is None and len(inputs) > 1:
            given = self.arrays.get(inputs[1]) if inputs[1] is not None else None
            axes = None if given is None else given.reshape(-1).tolist()
        dims = self.dims.get(inputs[0]) if inputs[0] is not None else None
        if not axes or dims is None:
            return None
        rank = len(dims) + (len(axes) if node.op_type == "Unsqueeze" else 0)
        found = [int(a) + rank if a < 0 else int(a) for a in axes]
        return found if all(0 <= a < rank for a in found) and len({*found}) == len(found) else None

    # -- sizes ---------------------------------------------------------------------------------------------------

    def _sized(self, node: Node, inputs: Sequence[int | None]) -> int | None:
        """The name of what is told of sizes: a Shape, and arithmetic and movement of small arrays; None where it is none."""
        name = node.op_type
        if name == "Shape" and inputs[0] in self.dims:
            return self.vector(_array(self.dims[inputs[0]][node.attr("start", 0) : node.attr("end", None)]))
        given = [self.elements.get(x) if x is not None else None for x in inputs]
        there = [x for x in given if x is not None]
        if not any(isinstance(size, Term) for x in there for size in x.reshape(-1).tolist()):
            return None
        if name == "Cast" and node.attr("to") == int(ir.DataType.INT64):
            return inputs[0]
        if name in ("Add", "Div", "Equal", "Mul", "Sub") and len(there) == 2:
            x, y = np.broadcast_arrays(*there)
            found = [_calculated(name, p, q) for p, q in zip(x.reshape(-1), y.reshape(-1), strict=True)]
            if None in found or x.size > _SMALL:
                return None
            if name == "Equal":
                return self.constant(np.array(found, bool).reshape(x.shape))
            return self.vector(_array(found, x.shape))  # type: ignore[arg-type]
        moved = movement.DATA.get(name, (1, 2) if name == "Where" else ())
        data = range(len(inputs)) if moved is movement.ALL else moved
        constants = [None if x is None else self.arrays.get(x) for x in inputs]
        told = [given[i] if i in data else constants[i] for i, x in enumerate(inputs) if x is not None]
        if not data or any(x is None for x in told) or node.attr("reduction", "none") != "none":
            return None
        pool: list[Size] = [0]
        numbered: list[Any] = list(constants)
        for i in data:
            elements = given[i] if i < len(given) else None
            if elements is not None:
                numbered[i] = np.arange(len(pool), len(pool) + elements.size).reshape(elements.shape)
                pool += elements.reshape(-1).tolist()
        try:
            index = reference.run(node, numbered)[0]
        except Undecided:
            return None
        if index.size > _SMALL:
            return None
        return self.vector(_array([pool[i] for i in index.reshape(-1)], index.shape))

    def _moved(self, node: Node, inputs: Sequence[int | None]) -> int | None:
        """The name of the same elements in another shape that is known; None where it is not."""
        x = inputs[0] if inputs else None
        dims = self.dims.get(x) if x is not None else None
        if x is None or dims is None:
            return None
        to: list[Size] | None = None
        if node.op_type == "Reshape" and len(inputs) > 1 and inputs[1] in self.elements:
            to = _filled(dims, self.elements[inputs[1]].reshape(-1).tolist(), bool(node.attr("allowzero", 0)))
        elif node.op_type == "Flatten":
            at = int(node.attr("axis", 1))
            at = at + len(dims) if at < 0 else at
            to = [product(dims[:at]), product(dims[at:])]
        elif node.op_type in ("Squeeze", "Unsqueeze") and (axes := self._axes(node, inputs)):
            if node.op_type == "Squeeze":
                to = [n for i, n in enumerate(dims) if i not in axes] if all(dims[a] == 1 for a in axes) else None
            else:
                rest = iter(dims)
                to = [1 if i in axes else next(rest) for i in range(len(dims) + len(axes))]
        elif node.op_type == "Transpose":
            return self._turned(x, [int(p) for p in node.attr("perm") or range(len(dims))[::-1]])
        return None if to is None else self._reshaped(x, to)

    def _reshaped(self, x: int, to: Sequence[Size]) -> int:
        """A tensor in another shape, as one Reshape of what has none before it."""
        base = self._base.get(x, x)
        if tuple(to) == self.dims[base]:
            return base
        found = self.name("reshaped", base, tuple(to))
        self._base[found], self.dims[found] = base, tuple(to)
        if base in self.types:
            self.types[found] = self.types[base]
        return found

    def _flat(self, node: Node, inputs: Sequence[int | None]) -> int | None:
        """A product by a matrix, or a sum with a vector, of what was reshaped but for its last axis, as the reshape of theirs."""
        if node.op_type not in ("Add", "MatMul") or len(inputs) != 2:
            return None
        for at in (0, 1) if node.op_type == "Add" else (0,):
            x, other = inputs[at], inputs[1 - at]
            base, rank = self._base.get(x), len(self.dims.get(other, (0,) * 9))  # type: ignore[arg-type]
            if x is None or base is None or not (rank < 2 if node.op_type == "Add" else rank == 2):
                continue
            dims, before = self.dims[x], self.dims[base]
            if min(len(dims), len(before)) > 1 and dims[-1] == before[-1]:
                (made,) = self.node(node, [base, other], [])
                if made in self.dims and len(self.dims[made]) == len(before):
                    return self._reshaped(made, [*dims[:-1], self.dims[made][-1]])
        return None

    def _spelled(self, node: Node, inputs: Sequence[int | None]) -> int | None:
        """What other operators say: a plain Gemm is a product and a sum, a FusedConv a Conv with a sum and a function."""

        def one(name: str, xs: Sequence[int | None], **attributes: Any) -> int:
            plain = Node("", name, 13, node.name, attributes, len(xs), 1, tuple([x is not None for x in xs]), (True,))
            return self.node(plain, xs, [])[0]

        if (node.domain, node.op_type) == ("", "Gemm"):
            if any(node.attr(k, n) != n for k, n in (("alpha", 1.0), ("beta", 1.0), ("transA", 0), ("transB", 0))):
                return None
            y, rest = one("MatMul", inputs[:2]), inputs[2:]
        elif (node.domain, node.op_type) == ("com.microsoft", "FusedConv"):
            given = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
            then = node.attr("activation")
            then = then.decode() if isinstance(then, bytes) else then
            if then not in ("Relu", "Sigmoid", "Tanh") or node.attr("activation_params"):
                return None
            bias = inputs[2:3] if len(inputs) > 2 and inputs[2] is not None else []
            y, rest = one("Conv", [*inputs[:2], *bias], **given), inputs[3:]
            return one(then, [one("Add", [y, *rest]) if rest else y])
        else:
            return None
        return one("Add", [y, *rest]) if rest else y

    def _turned(self, x: int, perm: Sequence[int]) -> int:
        """A tensor with its axes in another order, as one Transpose of what has none before it."""
        base, before = self._turns.get(x, (x, range(len(perm))))
        perm = [before[p] for p in perm]
        if perm == sorted(perm):
            return base
        found = self.name("turned", base, tuple(perm))
        self._turns[found], self.dims[found] = (base, perm), tuple([self.dims[base][p] for p in perm])
        if base in self.types:
            self.types[found] = self.types[base]
        return found

    # -- shapes --------------------------------------------------------------------------------------------------

    def _infer(self, node: Node, inputs: Sequence[int | None], found: Sequence[int]) -> None:
        """Note the shapes and types of what a node gives, where ONNX infers them, and they fit the trace."""
        if (node.domain, node.op_type) == ("", "Range") and all(x in self.elements for x in inputs):
            start, end, step = (self.elements[x].reshape(-1)[0] for x in inputs)  # type: ignore[index]
            if (start, step) == (0, 1) and sure(end):
                self.dims[found[0]], self.types[found[0]] = (end,), int(ir.DataType.INT64)
            return
        first = inputs[0] if inputs else None
        if node.domain == "com.microsoft" and node.op_type in _KEPT and first in self.dims and first in self.types:
            self.dims[found[0]], self.types[found[0]] = self.dims[first], self.types[first]
            return
        rule = getattr(TAUGHT.get((node.domain, node.op_type)), "rows", None) or rows.UNTOLD.get(node.op_type)
        known = all(x is None or (x in self.types and x in self.dims) for x in inputs)
        if node.domain != "" or not known or not (node.op_type in _SHAPED or rule is rows.elementwise):
            return
        there = {f"i{i}": x for i, x in enumerate(inputs) if x is not None}
        types = {key: onnx.helper.make_tensor_type_proto(self.types[x], self._shape(x)) for key, x in there.items()}
        small = {key: self.arrays[x] for key, x in there.items() if x in self.arrays and self.arrays[x].size <= _SMALL}
        data = {key: onnx.numpy_helper.from_array(x) for key, x in small.items() if x.dtype.kind in "iufb"}
        schema = onnx.defs.get_schema(node.op_type, node.version, "")
        try:
            told = onnx.shape_inference.infer_node_outputs(schema, node.proto(), types, data)
        except Exception:  # what ONNX cannot infer has no shape that is known
            return
        for at, name in enumerate(found):
            kind = told.get(f"o{at}")
            if kind is None or not kind.tensor_type.HasField("shape"):
                continue
            axes = enumerate(kind.tensor_type.shape.dim)
            dims = tuple(self._size(name, axis, d) for axis, d in axes)
            traced = self._traced.get(name)
            if traced is None or (len(traced) == len(dims) and all(map(self._fits, dims, traced))):
                self.dims[name], self.types[name] = dims, kind.tensor_type.elem_type

    def _shape(self, name: int) -> list[int | str]:
        found: list[int | str] = []
        for size in self.dims[name]:
            if isinstance(size, Term):
                self._params[repr(size)] = size
            found.append(repr(size) if isinstance(size, Term) else size)
        return found

    def _size(self, name: int, axis: int, dim: Any) -> Size:
        if dim.HasField("dim_value"):
            return int(dim.dim_value)
        return self._params.get(dim.dim_param, Term("dim", (name, axis)))

    def _fits(self, size: Size, traced: int) -> bool:
        """Whether a size is what the trace has, as far as that can be told."""
        here = self._here(size)
        return here is None or here == traced

    def _here(self, size: Size) -> int | None:
        if not isinstance(size, Term):
            return size
        if size.op == "symbol":
            return self.sizes[size.args[0]]
        if size.op == "dim":
            return self._traced.get(size.args[0], {size.args[1]: None})[size.args[1]]
        parts = [self._here(arg) for arg in size.args]
        if None in parts or size.op == "Div":
            return None
        numbers = [n for n in parts if n is not None]
        return math.prod(numbers) if size.op == "Mul" else sum(numbers) if size.op == "Add" else numbers[0] - numbers[1]


def _array(sizes: Sequence[Size], shape: Sequence[int] | None = None) -> np.ndarray:
    found = np.empty(len(sizes), object)
    for i, size in enumerate(sizes):
        found[i] = size
    return found if shape is None else found.reshape(shape)


def _filled(dims: Sequence[Size], to: Sequence[Size], zero: bool) -> list[Size] | None:
    """The shape that a Reshape gives, in which 0 and -1 are told; None where it is not known for every size."""
    found: list[Size] = []
    for i, size in enumerate(to):
        same = i < len(dims) and (size == dims[i] or (size == 0 and not zero))
        if not same and not sure(size) and size != -1:
            return None
        found.append(dims[i] if same else size)
    if -1 not in found:
        return found
    left = quotient(dims, [size for size in found if size != -1])
    return None if left is None or found.count(-1) > 1 else [left if size == -1 else size for size in found]


class Namer(Interpreter):
    """Names what a graph computes, node by node as it is written; ``met`` hears of each value of the main graph and its name,
    and may give it another one of the same function."""

    def __init__(self, model: ir.Model, algebra: Algebra, names: Names, trace: Trace, met: Callable[..., int]) -> None:
        super().__init__(model, algebra)
        self.names, self.trace, self.met, self._level = names, trace, met, 0
        self.env: Env = {}

    def named(self, inputs: Mapping[str, int]) -> list[int]:
        """The names of the outputs."""
        graph: Any = self.model.graph
        self.env.update({value: inputs[value.name] for value in graph.inputs if value.name in inputs})
        self._constants(graph, self.env)
        self._nodes(graph, self.env, {}, self.model.opset_imports)
        return [self.env[value] for value in graph.outputs]  # type: ignore[misc]

    def _constants(self, graph: ir.Graph, env: Any) -> None:
        for value in graph.initializers.values():
            if value not in env and value.const_value is not None:
                env[value] = self.names.constant(value.const_value.numpy())

    def evaluate(self, source: ir.Node, env: Any, attributes: Any, opsets: Any) -> Sequence[Any]:
        """The names of what one node gives."""
        found = super().evaluate(source, env, attributes, opsets)
        if source.graph is not self.model.graph:
            return found
        return [self.met(value, name) for value, name in zip(source.outputs, found, strict=False)]

    def _operator(
        self, source: ir.Node, node: Node, inputs: list[Any], env: Any, attributes: Any, opsets: Any
    ) -> Sequence[Any]:
        constants = [None if x is None else self.names.arrays.get(x, x) for x in inputs]
        if node.domain == "" and node.version < OLDEST:
            raise Undecided(f"{node.op_type} of operator set {node.version} has no name", node.name)
        several = any(isinstance(v, list | tuple) and ir.Graph in map(type, v) for v in node.attributes.values())
        if is_random(node, constants) or several:
            return [self.names.fresh() for _ in source.outputs]
        if node.has_graphs():
            return self._bodies(node, inputs, env, attributes, opsets)
        traced = [self.trace.values.get(v) for v in source.outputs]
        if (node.domain, node.op_type) == ("", "Constant") and not {"value_string", "value_strings"} & {
            *node.attributes
        }:
            return [self.names.constant(self._constant(node))]
        if all(isinstance(x, np.ndarray) for x in (*traced, *[x for x in constants if x is not None])):
            return [self.names.constant(y) for y in traced]  # type: ignore[arg-type]
        return self.names.node(node, inputs, traced)

    def _bodies(self, node: Node, inputs: Sequence[Any], env: Any, attributes: Any, opsets: Any) -> Sequence[Any]:
        """An operator with subgraphs, known by what those give of free names; of an If with a known condition, one branch."""
        graphs = [(name, g) for name, g in sorted(node.attributes.items()) if isinstance(g, ir.Graph)]
        condition = self.names.arrays.get(inputs[0]) if inputs and inputs[0] is not None else None
        if node.op_type == "If" and node.domain == "" and condition is not None:
            taken = node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
            return self._subgraph(taken, (), env, attributes, opsets)
        self._level += 1
        made = []
        for name, graph in graphs:
            given: list[Any] = [self.names.name("given", self._level, at) for at in range(len(graph.inputs))]
            made.append((name, self._level, tuple(self._subgraph(graph, given, env, attributes, opsets))))
        self._level -= 1
        key = self.names._key(node, inputs)
        return [self.names.name(*key, tuple(made), at) for at in range(len(node.present_outputs))]
