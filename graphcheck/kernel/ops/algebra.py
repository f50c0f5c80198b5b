"""What an operator may say: the verbs of :mod:`graphcheck.kernel.terms.store` on tensors with shapes and declared types.

A value is a concrete ``numpy.ndarray`` (it depends on no graph input and is computed in its declared type, as a runtime
folds it), a :class:`Tensor`, or None for an omitted input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import Refused, Undecided
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.masks import masked
from graphcheck.kernel.terms.rules.selections import by_comparison
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Move
from graphcheck.records import record


@record(frozen=True)
class Tensor:
    """A computed tensor: its class in the store, its shape and its declared numpy dtype; ``held``: the narrower type that it
    was cast from, which holds its values."""

    cls: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    held: np.dtype[Any] | None = None


Value = np.ndarray | Tensor | None
Some = np.ndarray | Tensor

_LIFTED, _SMALL = 10_000, 64  # so many arrays are remembered as they were lifted, of so many elements at most
Aligned = tuple[tuple[int, ...], int, list[Map | None]]


def axis_of(x: Some, axis: int) -> int:
    """An axis counted from the front; raises :class:`Undecided` if ``x`` has none such."""
    rank = len(x.shape)
    if not -rank <= axis < rank:
        raise Refused(f"there is no axis {axis} in a tensor of rank {rank}")
    return axis % rank


def shaped(node: Node, x: Some, *legal: Sequence[int]) -> Some:
    """``x``, of one of the ``legal`` shapes: an operator that does not broadcast this far raises :class:`Refused`."""
    if x.shape not in map(tuple, legal):
        raise Refused(f"{node.op_type} takes no {list(x.shape)} where {list(legal[0])} is due", node.name)
    return x


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a type rounds a number to one near it: float16 does not below its normal numbers and beyond its largest."""
    return dtype != np.float16 or value == 0 or 2.0**-14 <= abs(value) <= 65504


class Algebra:
    """The verbs at tensor level, over one store of terms; ``observe`` (node, operator sets, types, values) gives the shapes and
    types of an operator's outputs as a runtime has them, or None. With ``spells`` operators that are unknown functions for a
    proof are spelled out where that can be done; without, ``spelling`` tells that there was such a one. Roundings to the float
    types ``erased`` vanish; ``marks`` are their nodes' names, types and classes. With ``whole`` a Loop or Scan of many steps is
    one function where it can be (:mod:`graphcheck.kernel.ops.control`); ``wholes`` counts these.
    """

    def __init__(
        self,
        terms: Terms,
        observe: Callable[..., Any] | None = None,
        *,
        spells: bool = False,
        erased: Collection[str] = (),
        whole: bool = False,
    ) -> None:
        self.terms, self.observe, self.spells, self.spelling = terms, observe, spells, False
        self.whole, self.wholes, self.level = whole, 0, 0  # level: how many loops that are taken whole stand around
        self.erased, self.marks = erased, list[tuple[str, str, int]]()
        self.clips: dict[int, tuple[float, float]] = {}  # the bounds of what every Clip gave, where something is erased
        self.memo: dict[Any, Any] = {}
        self._aligned: dict[tuple[tuple[int, ...], ...], Aligned] = {}  # by the shapes of the operands
        self._lifted: dict[int, tuple[np.ndarray, Tensor]] = {}  # small arrays by identity, which most nodes share
        self.assumptions: set[str] = set()

    # -- plumbing ------------------------------------------------------------------------------------------------

    def lift(self, x: Some) -> Tensor:
        """A concrete array as a constant tensor."""
        if isinstance(x, Tensor):
            return x
        known = self._lifted.get(id(x))
        if known is not None and known[0] is x:
            return known[1]
        if x.dtype.kind in "OUSc":
            raise Undecided(f"{'complex numbers' if x.dtype.kind == 'c' else 'strings'} are not evaluated")
        found = Tensor(self.terms.const(x), x.shape, x.dtype)
        if len(self._lifted) < _LIFTED and x.size <= _SMALL:
            self._lifted[id(x)] = x, found
        return found

    def lower(self, x: Value) -> Value:
        """A constant tensor as a concrete array; anything else as it is."""
        if not isinstance(x, Tensor):
            return x
        term = self.terms.term(x.cls)
        arrays = self.terms.arrays
        if isinstance(term.verb, Const):
            flat = arrays[self.terms.find(x.cls)]
        elif isinstance(term.verb, Move) and all(a in arrays for a in term.args):
            flat = np.concatenate([np.zeros(1, x.dtype), *(arrays[a].astype(x.dtype) for a in term.args)])[
                term.verb.map.index
            ]
        else:
            return x
        return flat.reshape(x.shape).astype(x.dtype)

    def reshape(self, x: Some, shape: Sequence[int]) -> Tensor:
        """The same elements in another shape; one entry may be -1."""
        x = self.lift(x)
        shape = list(shape)
        if -1 in shape:
            at = shape.index(-1)
            shape[at] = 1
            shape[at] = math.prod(x.shape) // max(math.prod(shape), 1)
        if math.prod(shape) != self.terms.size(x.cls):
            raise Refused(f"{list(x.shape)} has not as many elements as {shape}")
        return Tensor(x.cls, tuple(int(s) for s in shape), x.dtype)

    def transpose(self, x: Some, perm: Sequence[int]) -> Tensor:
        """Axes in the order of ``perm``."""
        x = self.lift(x)
        perm = [axis_of(x, p) for p in perm]
        cls = self.terms.move((x.cls,), self.terms.maps.transpose(x.shape, perm))
        return Tensor(cls, tuple(x.shape[p] for p in perm), x.dtype)

    def pick(self, x: Some, index: np.ndarray | Map, shape: Sequence[int]) -> Tensor:
        """Elements of ``x`` by a 1-based index map (0: zero), in ``shape``."""
        x = self.lift(x)
        map_ = index if isinstance(index, Map) else self.terms.maps.intern(index)
        return Tensor(self.terms.move((x.cls,), map_), tuple(shape), x.dtype)

    def cut(self, x: Some, first: Sequence[int], shape: Sequence[int]) -> Tensor:
        """``shape`` elements of the axes, from ``first`` on; 0 where there is none."""
        x = self.lift(x)
        limits.current().check_elements(math.prod(shape), "a padded tensor")
        weights = [math.prod(x.shape[i + 1 :]) for i in range(len(x.shape))]
        units = np.eye(len(shape), dtype=int).tolist()
        guards = [(tuple(unit), -f, n - f - 1) for unit, f, n in zip(units, first, x.shape, strict=True)]
        form = strided.normal(shape, sum(f * w for f, w in zip(first, weights, strict=True)), weights, guards)
        return self.pick(x, self.terms.maps.of(form, lambda: np.zeros(math.prod(shape), np.int64)), shape)

    def remembered(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """The map or the array that ``make`` builds, built once per key."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]

    def join(self, parts: Sequence[Some], index: np.ndarray, shape: Sequence[int], dtype: Any) -> Tensor:
        """Elements of several tensors laid end to end, by a 1-based index map."""
        cls = self.terms.move([self.lift(p).cls for p in parts], self.terms.maps.intern(index))
        return Tensor(cls, tuple(shape), np.dtype(dtype))

    def expand(self, x: Some, shape: Sequence[int]) -> Tensor:
        """Broadcast to ``shape``."""
        x = self.lift(x)
        map_ = self.terms.maps.broadcast(x.shape, shape)
        return (
            x
            if map_ is None and x.shape == tuple(shape)
            else Tensor(x.cls if map_ is None else self.terms.move((x.cls,), map_), tuple(shape), x.dtype)
        )

    # -- elementwise ---------------------------------------------------------------------------------------------

    def ew(self, fn: str, *xs: Some, dtype: Any = None) -> Some:
        """Elementwise ``fn`` with numpy broadcasting; folded in the declared type where everything is concrete."""
        out_dtype = np.dtype(dtype) if dtype is not None else xs[0].dtype
        record = function(fn)
        if record.folds and Tensor not in map(type, xs):
            with np.errstate(all="ignore"):
                return np.asarray(record.value(*xs)).astype(out_dtype)
        shapes = tuple([x.shape for x in xs])
        shape, size, maps = self._aligned.get(shapes) or self._align(shapes)
        operands = [((x if type(x) is Tensor else self.lift(x)).cls, map_) for x, map_ in zip(xs, maps, strict=True)]
        return Tensor(self.terms.ew(fn, operands, size), shape, out_dtype)

    def _align(self, shapes: tuple[tuple[int, ...], ...]) -> Aligned:
        """The shape and size that operands are broadcast to, and how each is seen there; most nodes share a few."""
        shape = np.broadcast_shapes(*shapes)
        as_is = [s == shape or math.prod(s) == 1 for s in shapes]
        maps = [None if same else self.terms.maps.broadcast(s, shape) for s, same in zip(shapes, as_is, strict=True)]
        found = self._aligned[shapes] = shape, math.prod(shape), maps
        return found

    def scalar(self, value: float, like: Some) -> np.ndarray:
        """A constant of the type of ``like``: constants of expanded operators are what a runtime would store.

        An attribute below float16's normal numbers or beyond its largest stays what it is: onnxruntime computes with it in
        float32, where ONNX's function bodies make it 0, one of few bits, or infinite.
        """
        return np.asarray(value, like.dtype if holds(like.dtype, value) else np.float32)

    def add(self, a: Some, b: Some) -> Some:
        """a + b."""
        return self.ew("add", a, b)

    def neg(self, a: Some) -> Some:
        """-a; an integer array is widened, for the values would not fit its type."""
        if isinstance(a, np.ndarray) and a.dtype.name.startswith(("int", "uint")):
            limits = np.iinfo(np.int64)
            if all(limits.min < int(value) <= limits.max for value in (a.min(initial=0), a.max(initial=0))):
                return -a.astype(np.int64)
        elif isinstance(a, np.ndarray):
            return -a
        return self.ew("mul", np.asarray(-1, np.float32), self.lift(a), dtype=a.dtype)

    def sub(self, a: Some, b: Some) -> Some:
        """a - b; of concrete operands in their declared type."""
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(np.subtract(a, b)).astype(a.dtype)
        return self.ew("add", a, self.neg(b))

    def mul(self, a: Some, b: Some) -> Some:
        """a * b."""
        return self.ew("mul", a, b)

    def div(self, a: Some, b: Some) -> Some:
        """a / b over the reals; concrete operands divide in their declared type."""
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(np.divide(a, b)).astype(a.dtype)
        return self.ew("mul", a, self.recip(b))

    def recip(self, a: Some) -> Some:
        """1 / a; exact even where ``a`` is a constant, since the quotient depends on an input."""
        return self.ew("recip", self.lift(a))

    def exp(self, a: Some) -> Some:
        """e ** a."""
        return self.ew("exp", a)

    def sigmoid(self, x: Some) -> Some:
        """1 / (1 + Exp(-x))."""
        return self.recip(self.add(self.scalar(1, x), self.exp(self.neg(x))))

    def pos(self, x: Some) -> Some:
        """1 where x > 0, else 0."""
        return self.ew("pos", x)

    def relu(self, x: Some) -> Some:
        """Max(x, 0), which is x * pos(x)."""
        return self.ew("max", x, self.remembered(("zero", x.dtype), lambda: np.zeros((), x.dtype)))

    def where(self, c: Some, x: Some, y: Some) -> Some:
        """``c`` ? x : y; a selection where ``c`` is concrete, otherwise c * x + (1 - c) * y, or a sum with a mask of -inf."""
        if isinstance(c, np.ndarray):
            shape = np.broadcast_shapes(c.shape, x.shape, y.shape)
            size = math.prod(shape)
            at = np.arange(1, size + 1).reshape(shape)
            index = np.where(c, at, at + size)
            return self.join((self.expand(x, shape), self.expand(y, shape)), index, shape, x.dtype)
        shape = np.broadcast_shapes(c.shape, x.shape, y.shape)
        fn = by_comparison(self.terms, self.expand(c, shape).cls, self.expand(x, shape).cls, self.expand(y, shape).cls)
        if fn is not None:
            return self.expand(self.ew(fn, x, y, dtype=x.dtype), shape)
        finite = [isinstance(z, Tensor) or bool(np.isfinite(z.astype(np.float64)).all()) for z in (x, y)]
        rest = self.sub(self.scalar(1, x), c)
        for i, kept in ((0, rest), (1, c)):
            if not finite[i] and finite[1 - i] and self.masked((x, y)[i]).all():
                self.assumptions.add("no row of a Softmax is masked as a whole")
                return self.add((y, x)[i], self.expand(self.ew("masking", kept, dtype=x.dtype), shape))
        if isinstance(x, np.ndarray) and not x.any() and finite[1]:
            return self.add(y, self.mul(c, self.neg(y)))
        return self.ew("add", self.ew("mul", c, x, dtype=x.dtype), self.ew("mul", rest, y, dtype=y.dtype))

    def masked(self, x: Some) -> np.ndarray:
        """Where ``x`` is -inf because a constant mask is, everything computed being taken as finite."""
        if isinstance(x, np.ndarray):
            return np.isneginf(x.astype(np.float64))
        return masked(self.terms, x.cls).reshape(x.shape)

    def unknown(self, key: tuple[Any, ...], args: Sequence[Tensor], at: int, shape: Sequence[int], dtype: Any) -> Tensor:
        """Output number ``at`` of an unknown function, known by its node's ``key`` and the types of its operands."""
        shape = tuple(shape)
        picks = key[0] == "" and str(key[1]).startswith("Gather")  # the same in every type
        whole = (key, at, tuple((a.shape, "" if picks else a.dtype.name) for a in args), shape)
        return Tensor(self.terms.opaque(whole, [a.cls for a in args], math.prod(shape)), shape, np.dtype(dtype))

    # -- contraction and reduction -------------------------------------------------------------------------------

    def contract(self, a: Some, b: Some) -> Tensor:
        """a [Ba, m, k] and b [Bb, n, k] to [B, m, n]; a batch of 1 is shared, and a sum of one product is that product."""
        a, b = self.lift(a), self.lift(b)
        batches, (m, k), n = (a.shape[0], b.shape[0]), a.shape[1:], b.shape[1]
        if k == 1:
            return self.lift(self.mul(a, self.transpose(b, (0, 2, 1))))
        cls = self.terms.contract(a.cls, b.cls, batches, m, n, k)
        return Tensor(cls, (max(batches), m, n), a.dtype)

    def matmul(self, a: Some, b: Some) -> Tensor:
        """numpy's matmul: 1-D operands, batch axes and their broadcasting included."""
        a, b = self.lift(a), self.lift(b)
        one_a, one_b = len(a.shape) == 1, len(b.shape) == 1
        if one_a:
            a = self.reshape(a, (1, *a.shape))
        if one_b:
            b = self.reshape(b, (*b.shape, 1))
        (m, k), (k2, n) = a.shape[-2:], b.shape[-2:]
        if k != k2:
            raise Refused(f"a matrix product of shapes {list(a.shape)} and {list(b.shape)} is not defined")
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        size_b, size = math.prod(b.shape[:-2]), math.prod(batch)
        if size_b == 1:
            a = self.expand(a, (*batch, m, k))
            cls = self.terms.contract(a.cls, b.cls, (1, 1), size * m, n, k, kn=True)
        else:
            if math.prod(a.shape[:-2]) != 1:
                a = self.expand(a, (*batch, m, k))
            b = self.expand(b, (*batch, k, n))
            cls = self.terms.contract(a.cls, b.cls, (math.prod(a.shape[:-2]), size), m, n, k, kn=True)
        out = Tensor(cls, (size, m, n), a.dtype)
        shape = (*batch, *((m,) if not one_a else ()), *((n,) if not one_b else ()))
        return self.reshape(out, shape)

    def last(self, x: Some, axes: Sequence[int]) -> tuple[Tensor, tuple[int, ...], int, int]:
        """``x`` with ``axes`` moved behind, the kept axes' sizes, and (rows, k)."""
        x = self.lift(x)
        rank = len(x.shape)
        axes = sorted({axis_of(x, a) for a in axes})
        kept = [i for i in range(rank) if i not in axes]
        moved = x if kept + axes == list(range(rank)) else self.transpose(x, kept + axes)
        keep = tuple(x.shape[i] for i in kept)
        return moved, keep, math.prod(keep), math.prod(x.shape[i] for i in axes)

    def sum(self, x: Some, axes: Sequence[int], keepdims: bool = True) -> Some:
        """Sum over ``axes``."""
        moved, keep, rows, k = self.last(x, axes)
        if k == 0:
            return self.reduced(self.lift(np.zeros(keep, x.dtype)), x, axes, keepdims)
        return self.reduced(Tensor(self.terms.sum(moved.cls, rows, k), keep, moved.dtype), x, axes, keepdims)

    def extreme(self, fn: str, x: Some, axes: Sequence[int], keepdims: bool = True) -> Some:
        """Max or min over ``axes``."""
        moved, keep, rows, k = self.last(x, axes)
        if k == 0:
            raise Refused(f"the {fn} of nothing is infinite")
        return self.reduced(Tensor(self.terms.rows(fn, moved.cls, rows, k), keep, moved.dtype), x, axes, keepdims)

    def reduced(self, y: Tensor, x: Some, axes: Sequence[int], keepdims: bool) -> Tensor:
        """Put ones back where ``axes`` were, if ``keepdims``."""
        if not keepdims:
            return y
        gone = {axis_of(x, a) for a in axes}
        return self.reshape(y, [1 if i in gone else n for i, n in enumerate(x.shape)])

    def mean(self, x: Some, axes: Sequence[int], keepdims: bool = True) -> Some:
        """Mean over ``axes``: the sum divided by the exact count."""
        count = math.prod(x.shape[a] for a in {axis_of(x, a) for a in axes})
        return self.div(self.sum(x, axes, keepdims), np.asarray(count, np.int64).astype(np.float64))

    def along(self, fn: str, x: Some, axis: int) -> Tensor:
        """A row function (softmax ...) along ``axis``."""
        x = self.lift(x)
        rank, axis = len(x.shape), axis_of(x, axis)
        moved, keep, rows, k = self.last(x, [axis])
        y = Tensor(self.terms.rows(fn, moved.cls, rows, k), (*keep, k), x.dtype)
        back = [*range(axis), rank - 1, *range(axis, rank - 1)]
        return y if axis == rank - 1 else self.transpose(y, back)
