"""A model cut into steps: one for each node, in float64 terms from what it reads to what it writes.

Each result of a node is free for the nodes behind it, so that whoever walks over the steps decides what becomes of it: kept as
it is, rounded to its declared type, moved by noise. Casts to narrower types and quantizers are the identity here; what a type
does to a number is said by :mod:`graphcheck.precision.kinds`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Env, Interpreter, Trace
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.ops.table import ERASED, TAUGHT
from graphcheck.kernel.proof.allowed import FORMATS
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Ew, Leaf, Move, Rows, Verb
from graphcheck.precision import kinds

Key = tuple[Any, ...]
_FEW = 16
_NORMAL = {"LayerNormalization": True, "RMSNormalization": False, "SimplifiedLayerNormalization": False}  # mean taken off


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Result:
    """What a step writes: the class that computes it, the ``key`` by which later steps read it, its name, shape and type."""

    cls: int
    key: Key
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def kind(self) -> kinds.Kind | None:
        """The type as one that rounds; None for float32 and wider."""
        return kinds.of(self.dtype)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Normal:
    """A LayerNormalization: of which numbers (``key``), to which class, over rows of how many, with or without their mean taken
    off; scale and bias are arrays or the keys of constants."""

    key: Key
    cls: int
    size: int
    centred: bool
    epsilon: float
    scale: np.ndarray | Key
    bias: np.ndarray | Key | None


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Step:
    """A node: what it reads (by key), what it writes, and whether it does no more than move and choose numbers that are of the
    type of its results already; ``normal`` where it normalizes rows as a whole; ``zero``: the zero point of what it quantizes."""

    node: str
    op_type: str
    reads: tuple[Key, ...]
    results: tuple[Result, ...]
    keeps: bool
    normal: Normal | None = None
    zero: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """All steps of a model at one choice of inputs.

    Attributes:
        terms: The store of all of them.
        steps: In order of the graph.
        inputs: The keys of what is fed, with declared types.
        constants: Stored arrays of narrower types, and quantized ones, by key: each free as well, so that its own rounding can be
            followed.
        outputs: The key of each output, or the array that no input reaches.
        quanta: What one step is worth of each tensor, by name, that is dequantized by a constant scale (its largest one).
    """

    terms: Terms
    steps: tuple[Step, ...]
    inputs: Mapping[Key, np.dtype[Any]]
    constants: Mapping[Key, np.ndarray]
    outputs: Mapping[str, Key | np.ndarray]
    quanta: Mapping[str, float]


def of(model: ir.Model, feeds: Mapping[str, np.ndarray]) -> Program:
    """The steps of a model at ``feeds`` by input name; integers and booleans are taken as they are.

    Raises :class:`graphcheck.errors.Undecided`.
    """
    try:
        return _of(model, feeds, 2)
    except Undecided:  # few numbers may steer an operator, such as the scales of a Resize, which have to be known then
        return _of(model, feeds, _FEW + 1)


def _of(model: ir.Model, feeds: Mapping[str, np.ndarray], least: int) -> Program:
    cutting = Cutting(model, least)
    given = {name: cutting.free(name, x.shape, x.dtype) if is_free(x.dtype) and x.size else x for name, x in feeds.items()}
    return finished(cutting, cutting.run(given))


def is_free(dtype: np.dtype[Any]) -> bool:
    """Whether an input of this type is a leaf; integers and booleans are taken as they are."""
    return dtype.kind == "f" or dtype in FORMATS.values()


def finished(cutting: Cutting, trace: Trace) -> Program:
    """The program of a model that was cut."""
    model = cutting.model
    inputs = {key: dtype for key, dtype in cutting.types.items() if key[0] == "input"}
    outputs: dict[str, Key | np.ndarray] = {}
    for value, found in zip(model.graph.outputs, trace.outputs, strict=True):
        found = cutting.m.lower(found)
        if isinstance(found, np.ndarray):
            outputs[str(value.name)] = found
        elif isinstance(found, Tensor) and isinstance(verb := cutting.m.terms.term(found.cls).verb, Leaf):
            outputs[str(value.name)] = verb.key
    return Program(cutting.m.terms, tuple(cutting.made), inputs, cutting.constants, outputs, cutting.quanta)


class Cutting(Interpreter):
    """Traces a model and makes every result of a main-graph node a leaf."""

    m: _Reals

    def __init__(self, model: ir.Model, least: int) -> None:
        super().__init__(model, _Reals(Terms(PLAIN), erased=("float16", "bfloat16")))
        self.made: list[Step] = []
        self.constants: dict[Key, np.ndarray] = {}
        self.types: dict[Key, np.dtype[Any]] = {}
        self.quanta: dict[str, float] = {}
        self._least = least  # elements of a constant that is free
        self._inside = False

    def free(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], kind: str = "input") -> Tensor:
        """The leaf of an input, by its key ``(kind, name)``."""
        key = (kind, name)
        self.types[key] = dtype
        return Tensor(self.m.terms.leaf(key, math.prod(shape)), shape, dtype)

    def _constants(self, graph: ir.Graph, env: Env) -> None:
        super()._constants(graph, env)
        for value in graph.initializers.values() if graph is self.model.graph else ():
            env[value] = self._stored(str(value.name), env.get(value))

    def evaluate(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        """The leaves that stand for the results of a node."""
        if self._inside:
            return super().evaluate(source, env, attributes, opsets)
        self._inside = True
        try:
            made = super().evaluate(source, env, attributes, opsets)
        finally:
            self._inside = False
        names = [str(v.name) for v in source.outputs]
        given = [None if v is None else env[v] for v in source.inputs]
        if not any(isinstance(x, Tensor) for x in made):
            quantized = source.op_type == "DequantizeLinear"
            if quantized:
                self._step_of(names[0], given)
            return [self._stored(name, x, quantized) for name, x in zip(names, made, strict=False)]
        return self._cut(source, names, made, given)

    def _taught(self, node: Node, inputs: list[Value]) -> Sequence[Value]:
        key, computed = (node.domain, node.op_type), any(isinstance(x, Tensor) for x in inputs)
        if computed and key == ("", "DynamicQuantizeLinear"):
            return self._told(self._dynamic, node, inputs)
        if key in ERASED or (computed and key[1].startswith("Q") and key in TAUGHT):  # those of constants no reference knows
            self.m.quantizing = True
            try:
                return self._told(ERASED[key], node, inputs) if key in ERASED else super()._taught(node, inputs)
            finally:
                self.m.quantizing = False
        return super()._taught(node, inputs)

    def _dynamic(self, m: Algebra, node: Node, x: Tensor) -> tuple[Value, ...]:
        """DynamicQuantizeLinear but for the rounding of its values: the range of x and 0 on 255 steps, the zero point rounded
        where 0 lies."""
        zero, axes = np.zeros((), np.float32), list(range(len(x.shape)))
        high = m.ew("max", m.extreme("max", x, axes, False), zero)
        low = m.ew("min", m.extreme("min", x, axes, False), zero)
        scale = m.lift(m.mul(m.sub(high, low), np.asarray(1 / 255)))
        place = m.lift(m.mul(m.neg(low), m.recip(scale)))
        byte = np.dtype(np.uint8)
        assert node.source is not None
        names = [str(v.name) for v in node.source.outputs]
        (point,) = self._cut(node.source, names[2:] or [""], [Tensor(place.cls, place.shape, byte)])
        assert isinstance(point, Tensor)
        shifted = m.lift(m.add(m.mul(x, m.recip(scale)), point))
        return (Tensor(shifted.cls, x.shape, byte), scale, point)[: node.n_outputs]

    def _step_of(self, name: str, given: Sequence[Value]) -> None:
        """Note what a step of a dequantized tensor is worth."""
        if len(given) > 1 and isinstance(scale := given[1], np.ndarray):
            self.quanta[name] = float(np.abs(scale.astype(np.float64)).max(initial=0.0))

    def _stored(self, name: str, x: Value, quantized: bool = False) -> Value:
        """A constant of a narrow floating type, or a ``quantized`` one, as a leaf; any other as it is."""
        if not isinstance(x, np.ndarray) or x.size < self._least or not (quantized or x.dtype in FORMATS.values()):
            return x
        key = ("constant", name)
        self.constants[key], self.types[key] = x, x.dtype
        return Tensor(self.m.terms.leaf(key, x.size), x.shape, x.dtype)

    def _cut(self, source: ir.Node, names: Sequence[str], made: Sequence[Value], given: Sequence[Value] = ()) -> list[Value]:
        terms = self.m.terms
        results: list[Result] = []
        leaves: list[Value] = []
        if source.op_type == "DequantizeLinear":
            self._step_of(names[0], given)
        for place, (name, x) in enumerate(zip(names, made, strict=False)):
            verb = terms.term(x.cls).verb if isinstance(x, Tensor) else None
            if not isinstance(x, Tensor) or self._is_read(verb, x) or (not x.shape and isinstance(verb, Const)):
                leaves.append(x)  # nothing, or what was read
                continue
            key = ("result", len(self.made), place)
            results.append(Result(terms.find(x.cls), key, name, x.shape, x.dtype))
            self.types[key] = x.dtype
            leaves.append(Tensor(terms.leaf(key, terms.size(x.cls)), x.shape, x.dtype))
        if not results:
            return leaves
        reads, keeps = self._below([r.cls for r in results])
        types = {self.types[key] for key in reads}
        keeps = keeps and all(types <= {r.dtype} for r in results)
        normal = self._normal(source, given, results[0].cls) if given and source.op_type in _NORMAL else None
        last = given[:2] if source.op_type == "QLinearConcat" else given  # its own parameters come first
        points = (x for x in reversed(last) if isinstance(x, np.ndarray) and x.size == 1 and x.dtype == results[0].dtype)
        whole = (kind := results[0].kind) is not None and not kind.is_float
        zero = int(next(points, np.zeros(1, np.int8)).reshape(())) if whole else 0
        self.made.append(Step(model_.node_name(source), source.op_type, reads, tuple(results), keeps, normal, zero))
        return leaves

    def _is_read(self, verb: Verb | None, x: Tensor) -> bool:
        """Whether a result is what was read, in its type too."""
        return isinstance(verb, Leaf) and self.types.get(verb.key) == x.dtype

    def _normal(self, source: ir.Node, given: Sequence[Value], cls: int) -> Normal | None:
        """What is known of a normalization of rows."""
        (x, scale, *rest), attributes = (*given, None), source.attributes
        if not isinstance(x, Tensor) or scale is None:
            return None
        axis = attributes["axis"].as_int() if "axis" in attributes else -1
        epsilon = attributes["epsilon"].as_float() if "epsilon" in attributes else 1e-5
        (key, weight, bias) = (self._key(v) for v in (x, scale, rest[0] if rest else None))
        centred = _NORMAL[source.op_type]
        if not isinstance(key, tuple) or weight is None:
            return None
        return Normal(key, cls, math.prod(x.shape[axis:]), centred, epsilon, weight, bias if centred else None)

    def _key(self, x: Value) -> Key | np.ndarray | None:
        """An array as it is, the key of a leaf."""
        verb = self.m.terms.term(x.cls).verb if isinstance(x, Tensor) else None
        return verb.key if isinstance(verb, Leaf) else x if isinstance(x, np.ndarray) else None

    def _below(self, roots: Sequence[int]) -> tuple[tuple[Key, ...], bool]:
        """The leaves below classes, and whether nothing between rounds in any type."""
        reads: list[Key] = []
        keeps = True
        for cls in self.m.terms.order(roots):
            match self.m.terms.terms[cls].verb:
                case Leaf(key):
                    reads.append(key)
                case Move() | Const():
                    pass
                case Ew(fn):
                    keeps = keeps and fn in ("max", "min") and function(fn).rounding.exact
                case Rows(fn):
                    keeps = keeps and fn in ("max", "min")
                case _:
                    keeps = False
        return tuple(key for key in reads if key in self.types), keeps


class _Reals(Algebra):
    """An algebra in which casts to floating types and from wrapped integers do nothing, nor, while it is ``quantizing``, the
    rounding and the ends of a quantizer."""

    quantizing = False

    def ew(self, fn: str, *xs: Any, dtype: Any = None) -> Any:
        """As ever but for those."""
        name, _, of = fn.partition(":")
        x, *ends = xs
        end = all(isinstance(e, np.ndarray) and e.dtype == np.int64 and not e.shape for e in ends)
        plain = name == "wrap" or (name == "cast" and "float" in of)
        plain = plain or (self.quantizing and (name in ("round", "saturate") or (name in ("min", "max") and end)))
        if plain and isinstance(x, Tensor):
            return Tensor(x.cls, x.shape, x.dtype if dtype is None else np.dtype(dtype))
        return super().ew(fn, *xs, dtype=dtype)
