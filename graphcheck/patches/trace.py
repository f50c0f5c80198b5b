"""Traces of a model for the analyzer: movement and shapes at concrete sizes, every contraction's result a free tensor.

What cannot be evaluated is skipped, with what depends on it, so that one untaught operator does not hide a patch
embedding elsewhere in the graph.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Exhausted, Oversized, Undecided
from graphcheck.files import model as model_
from graphcheck.interface import ports
from graphcheck.interface.lengths import divisors
from graphcheck.kernel import geometry
from graphcheck.kernel.every import Symbol, Typed
from graphcheck.kernel.interpreter import Env
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move
from graphcheck.patches.product import CONTRACTIONS, operands, out_shape

Sizes = dict[str, int]
Given = tuple[Node, tuple[Value, ...]]  # a node as operators see it, and its inputs

# (batch-like, the other dims in turn) for the first trial and the second; the first pair that evaluates is used. The same
# two lengths in another order would give the same number of patches, as if that were fixed.
_CANDIDATES = (
    ((2, (112, 224, 336)), (3, (224, 448, 112))),
    ((2, (96, 192, 288)), (3, (192, 384, 96))),
    ((2, (224, 224, 224)), (3, (224, 224, 224))),  # behind the one that 32 divides, since one size tells nothing of others
    ((2, (8, 12, 16)), (3, (12, 16, 8))),
    ((2, (16, 64, 96)), (3, (32, 96, 64))),
    ((2, (14, 56, 84)), (3, (28, 84, 56))),
    ((48, (48, 96, 144)), (96, (96, 144, 48))),
    ((2, (160, 320, 480)), (3, (320, 480, 160))),
    ((2, (360, 720, 1080)), (3, (720, 360, 1440))),
    ((2, (320, 640, 960)), (3, (640, 320, 1280))),
)
# Primes, divisible by no patch size: they tell whether the original crops or refuses.
_ODD = ((5, (113, 127, 131)), (5, (37, 41, 43)))
_LARGEST = 2**22  # elements of all inputs: three symbolic axes of 224 would be a thousand times an image


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One trace: the sizes of the symbolic dims, every value's tensor, the contractions met, and which nodes failed.

    ``products`` are contractions of a computed operand and a constant, ``computed`` those of two computed operands,
    ``transposed`` the ConvTransposes by a constant, each in graph order. ``values`` maps a value to a Tensor or a concrete
    array; one that could not be evaluated is absent.
    """

    sizes: Sizes
    algebra: Algebra
    values: Env
    products: Mapping[ir.Node, Given]
    computed: Mapping[ir.Node, Given]
    transposed: Mapping[ir.Node, Given]
    lost: tuple[tuple[str, str, bool], ...]
    tracer: _Tracer

    def resolved(self, node: ir.Node) -> Node:
        """A main-graph node as the operators see it."""
        inputs = [None if v is None else self.values.get(v) for v in node.inputs]
        return self.tracer.resolve(node, inputs)

    def tensor(self, value: ir.Value | None) -> Tensor | None:
        """The computed tensor that a value holds, if it does."""
        tensor = self.values.get(value) if value is not None else None
        return tensor if isinstance(tensor, Tensor) else None

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """The shape of a computed tensor; () for any other value."""
        tensor = self.tensor(value)
        return () if tensor is None else tensor.shape

    def dtype(self, value: ir.Value) -> np.dtype[Any] | None:
        """The type of a computed tensor; None for any other value."""
        tensor = self.tensor(value)
        return None if tensor is None else tensor.dtype

    @property
    def terms(self) -> Terms:
        """The store that the tensors' classes are in."""
        return self.algebra.terms

    @functools.cached_property
    def places(self) -> Mapping[ir.Node, int]:
        """Where each node of the main graph stands in it."""
        graph = self.tracer.model.graph
        return dict(zip(graph, range(len(graph)), strict=True))

    @functools.cached_property
    def carriers(self) -> Mapping[int, list[ir.Value]]:
        """The values that hold each class, in graph order."""
        carriers: dict[int, list[ir.Value]] = {}
        for value, tensor in self.values.items():
            if isinstance(tensor, Tensor):
                carriers.setdefault(tensor.cls, []).append(value)
        return carriers

    def carrier(self, cls: int) -> ir.Value | None:
        """The first value that holds a class."""
        return self.carriers.get(cls, [None])[0]

    def sources(self, cls: int) -> list[int]:
        """The tensors that a class draws on, if it is moved: a constant of zeros is padding, no source."""
        if not isinstance(self.terms.terms[cls].verb, Move):
            return [cls]
        return [a for a in self.terms.terms[cls].args if self.terms.scalar(a) != 0.0]

    def index_of(self, cls: int) -> tuple[int, Map]:
        """(source class, the map of its elements) of a class that draws on one tensor."""
        term, maps = self.terms.terms[cls], self.terms.maps
        if not isinstance(term.verb, Move):
            return cls, maps.whole(self.terms.size(cls))
        if len(term.args) == 1:
            return term.args[0], term.verb.map
        (source,) = self.sources(cls)
        begin = sum(self.terms.size(a) for a in term.args[: term.args.index(source)])
        found = maps.compose(maps.part(sum(map(self.terms.size, term.args)), begin, self.terms.size(source)), term.verb.map)
        assert found is not None
        return source, found


def trials(model: ir.Model) -> list[Trial]:
    """One trial where all input dims are static, two or three otherwise, with every symbolic dim at other sizes."""
    symbols = _symbols(model)
    algebra = Algebra(Terms(PLAIN))
    if not symbols:
        return [_run(model, algebra, {}, 0)]
    best: list[Trial] = []
    lengths = [[length for _, sizes in pair for length in sizes] for pair in _CANDIDATES]
    own = [((2, (2 * n, 4 * n, 6 * n)), (3, (4 * n, 6 * n, 2 * n))) for n in divisors([model], lengths)]
    few = [pair for pair in (*_CANDIDATES, *own) if max(_elements(model, _assign(symbols, *sizes)) for sizes in pair) <= _LARGEST]
    for pair in few or _CANDIDATES[-4:]:
        attempt = [_run(model, algebra, _assign(symbols, *sizes), at) for at, sizes in enumerate(pair)]
        if not best or sum(len(t.lost) for t in attempt) < sum(len(t.lost) for t in best):
            best = attempt
        if not any(t.lost for t in attempt):
            break
    if not all(symbols.values()):
        odd = [_assign(symbols, *sizes) for sizes in _ODD]
        best.append(_run(model, algebra, next((s for s in odd if _elements(model, s) <= _LARGEST), odd[-1]), 2))
    return best


def _elements(model: ir.Model, sizes: Sizes) -> int:
    shapes = [_shape(at, value, sizes) for at, value in enumerate(model_.required_inputs(model))]
    return sum(math.prod(shape) for shape in shapes if shape is not None)


def _shape(at: int, value: ir.Value, sizes: Sizes) -> tuple[int, ...] | None:
    """An input's shape at these sizes; None where it declares none."""
    dims = model_.declared_shape(value)
    if dims is None:
        return None
    return tuple(d if isinstance(d, int) else sizes[d or f"?{at}.{i}"] for i, d in enumerate(dims))


def _symbols(model: ir.Model) -> dict[str, bool]:
    """Names of the symbolic input dims in order, and whether each stands first in its input (a batch)."""
    symbols: dict[str, bool] = {}
    for at, value in enumerate(model_.required_inputs(model)):
        for axis, dim in enumerate(model_.declared_shape(value) or ()):
            if not isinstance(dim, int):
                name = dim or f"?{at}.{axis}"
                symbols[name] = symbols.get(name, True) and axis == 0
    return symbols


def _assign(symbols: Mapping[str, bool], batch: int, others: Sequence[int]) -> Sizes:
    rest = itertools.cycle(others)
    return {name: batch if first else next(rest) for name, first in symbols.items()}


def _run(model: ir.Model, algebra: Algebra, sizes: Sizes, number: int) -> Trial:
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    dtypes: dict[str, np.dtype[Any]] = {}
    for at, value in enumerate(model_.required_inputs(model)):
        shape = _shape(at, value, sizes)
        if shape is not None and value.dtype is not None and value.name is not None:
            shapes[value.name], dtypes[value.name] = (value.name, shape), np.dtype(value.dtype.numpy())
    tracer = _Tracer(model, algebra, sizes, number, _free(model, shapes) if number == 0 else ())
    tracer.trace({name: tracer.free(("input", name), shape, dtypes[name]) for name, shape in shapes.values()})
    values = {v: x for v, x in tracer.env.items() if not isinstance(x, _Lost)}
    met = tracer.products, tracer.computed, tracer.transposed
    return Trial(sizes, algebra, values, *met, tuple(tracer.lost), tracer)


def _free(model: ir.Model, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[Symbol]:
    """The free dims of the inputs, at the sizes of these shapes."""
    places = ports.places(ports.pair_interfaces(model, model))
    return [Symbol.at(name, there, shapes) for name, there in places.items() if all(key in shapes for key, _ in there)]


class _Lost:
    """Stands for a value that could not be evaluated."""


_LOST: Any = _Lost()


class _Tracer(Typed):
    """The interpreter, with contractions cut off and failures passed over."""

    def __init__(self, model: ir.Model, algebra: Algebra, sizes: Sizes, number: int, free: Sequence[Symbol]) -> None:
        super().__init__(model, algebra, free)
        self.sizes, self.number = sizes, number
        self.env: Env = {}
        self.products: dict[ir.Node, Given] = {}
        self.computed: dict[ir.Node, Given] = {}
        self.transposed: dict[ir.Node, Given] = {}
        self.lost: list[tuple[str, str, bool]] = []
        self._fresh: Iterator[int] = itertools.count()

    def trace(self, inputs: Mapping[str, Value]) -> None:
        """Fill ``env`` for the main graph."""
        graph, inputs = self.model.graph, self.typed(inputs)
        for value in graph.inputs:
            if value.name not in graph.initializers:
                self.env[value] = inputs.get(value.name or "", _LOST)
        self._constants(graph, self.env)
        self._nodes(graph, self.env, {}, self.model.opset_imports)
        self.settle([self.env.get(v) for v in graph.outputs])

    def free(self, key: tuple[Any, ...], shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """A tensor of its own, not to be told apart by value."""
        size = math.prod(shape)
        return Tensor(self.m.terms.leaf((self.number, *key), size), tuple(shape), dtype)

    def resolve(self, source: ir.Node, inputs: Sequence[Value]) -> Node:
        """The node with its attributes and opset version."""
        return self._resolve(source, {}, self.model.opset_imports, inputs)

    def evaluate(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        """What one node gives; of the main graph, a contraction gives a free tensor, and so does one that fails."""
        if source.graph is not self.model.graph:
            return super().evaluate(source, env, attributes, opsets)
        limited = False
        try:
            if any(v is not None and isinstance(self.env.get(v, _LOST), _Lost) for v in source.inputs):
                return [self._declared(v) for v in source.outputs]
            return self._cut(source, opsets) or self._node(source, self.env, {}, opsets)
        except (Oversized, MemoryError) as error:
            limited, reason = True, str(error) or "it needs more memory than there is"
        except RecursionError:
            reason = "its functions or subgraphs are nested too deeply"
        except Exhausted as error:
            error.node = error.node or model_.node_name(source)
            raise
        except Undecided as error:
            reason = error.reason
        except Exception as error:  # a node that breaks the rules of its operator, found by numpy, onnx or us
            reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        self.lost.append((model_.node_name(source), reason, limited))
        return [self._declared(v) for v in source.outputs]

    def _declared(self, value: ir.Value) -> Value:
        """A free tensor of the declared shape, where its dims are known at these sizes."""
        dims = model_.declared_shape(value)
        if dims is None or value.dtype is None:
            return _LOST  # type: ignore[no-any-return]
        shape = [d if isinstance(d, int) else self.sizes.get(d or "") for d in dims]
        if any(d is None for d in shape):
            return _LOST  # type: ignore[no-any-return]
        return self.free(
            ("declared", next(self._fresh)), [d for d in shape if d is not None], np.dtype(value.dtype.numpy())
        )

    def _cut(self, source: ir.Node, opsets: Mapping[str, int]) -> Sequence[Value] | None:
        """A contraction's result as a free tensor; None for any other node, and for one that only moves elements."""
        domain = "" if source.domain == "ai.onnx" else source.domain
        inputs = [None if v is None else self.env[v] for v in source.inputs]
        if (domain, source.op_type) == ("", "ConvTranspose"):
            upward = self._resolve(source, {}, opsets, inputs)
            found = self._upward(upward, *inputs[:2])
            if found:
                self.transposed[source] = (upward, tuple(inputs))
            return found and self.see(upward, inputs, found)
        if (domain, source.op_type) not in CONTRACTIONS or len(inputs) < 2:  # an Einsum of one operand moves and sums it
            return None
        node = self._resolve(source, {}, opsets, inputs)
        pair = operands(node, inputs)
        if pair is not None and not _one_hot(node, inputs, pair[1]):
            self.products[source] = (node, tuple(inputs))
        elif pair is not None or isinstance(inputs[0], np.ndarray):
            return None
        else:
            self.computed[source] = (node, tuple(inputs))
        shape, like = self._shape(node, inputs, pair), inputs[0 if pair is None else pair[0]]
        if shape is None or like is None:
            return None
        return self.see(node, inputs, [self.free(("product", next(self._fresh)), shape, like.dtype)])

    def _upward(self, node: Node, x: Value, w: Value) -> Sequence[Value] | None:
        """The result of a ConvTranspose by a dense constant; its shape is that of one channel of one image."""
        if not isinstance(x, Tensor) or not isinstance(w, np.ndarray) or len(x.shape) < 3 or _is_binary(w):
            return None
        groups = node.attr("group", 1)
        if x.shape[1] != w.shape[0] or x.shape[1] % groups:
            return None
        bare = dataclasses.replace(node, n_inputs=2, present_inputs=(True, True), attributes={**node.attributes, "group": 1})
        one: list[Value] = [self.free(("one", next(self._fresh)), (1, 1, *x_.shape[2:]), x.dtype) for x_ in (x, w)]
        out = self._taught(bare, one)[0]
        assert out is not None
        return [self.free(("product", next(self._fresh)), (x.shape[0], w.shape[1] * groups, *out.shape[2:]), x.dtype)]

    def _shape(self, node: Node, inputs: list[Value], pair: tuple[int, int] | None) -> tuple[int, ...] | None:
        x, w = inputs[:2]
        if x is None or w is None:
            return None
        if "Conv" in node.op_type:
            window = geometry.Window.resolve(node.attributes, x.shape[2:], w.shape[2:])
            out = window.out_shape(x.shape[2:])
            if x.shape[1] != w.shape[1] * node.attr("group", 1) or min(out, default=1) < 1:
                raise Undecided("the kernel does not fit its input")
            return (x.shape[0], w.shape[0], *out)
        shape = out_shape(node, x, w)
        if shape is None and pair is not None:
            stand_in: list[Value] = list(inputs)
            w = inputs[pair[1]]
            assert w is not None
            stand_in[pair[1]] = self.free(("weight", next(self._fresh)), w.shape, w.dtype)
            result = self._taught(node, stand_in)[0]
            assert result is not None
            shape = tuple(result.shape)
        return shape


def _one_hot(node: Node, inputs: Sequence[Value], at: int) -> bool:
    """Whether every filter picks one element: then the node only moves elements (tf2onnx writes patches so)."""
    w = inputs[at]
    assert isinstance(w, np.ndarray)
    if w.ndim < 2 or node.op_type == "Einsum" or node.attr("activation") or node.attr("group", 1) != 1:
        return False
    if "Conv" in node.op_type:
        table = w.reshape(w.shape[0], -1)
    elif w.ndim == 2:
        table = w if bool(node.attr("transB" if at == 1 else "transA", 0)) == (at == 1) else w.T
    else:
        return False
    if table.shape[1] < 2 or not _is_binary(w) or np.count_nonzero(table[0]) != 1:
        return False
    return bool((np.count_nonzero(table, axis=1) == 1).all() and (table.max(axis=1) == 1).all())


def _is_binary(w: np.ndarray) -> bool:
    """Whether a weight may consist of zeros and ones: a dense one is told by its first elements, the rest may be gigabytes."""
    first = w.reshape(-1)[:64]
    return bool(((first == 0) | (first == 1)).all())
