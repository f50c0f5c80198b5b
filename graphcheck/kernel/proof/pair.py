"""Both graphs in one store of classes: the same class is the same tensor, by congruence alone (Idea 3 of the design)."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.files.contents import Contents
from graphcheck.kernel.every import Symbol, Typed
from graphcheck.kernel.interpreter import Interpreter, Trace
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.terms.maps import Maps
from graphcheck.kernel.terms.rules import AFFINE
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract


@dataclasses.dataclass
class Pair:
    """Two graphs traced at the same input shapes into one store, for these values of ``concrete`` inputs only."""

    algebra: Algebra
    a: Trace
    b: Trace
    shapes: dict[str, tuple[int, ...]]
    concrete: Mapping[str, np.ndarray]
    models: Sequence[ir.Model] = ()
    partners: Mapping[str, str] = dataclasses.field(default_factory=dict)  # inputs of B by A's names
    everywhere: Any = None  # of :mod:`graphcheck.kernel.proof.segments`, once it was asked for

    @property
    def terms(self) -> Terms:
        """The store."""
        return self.algebra.terms

    @property
    def assumptions(self) -> list[str]:
        """What the operators' meanings assumed."""
        return sorted(self.algebra.assumptions)

    @property
    def work(self) -> float:
        """Operations in the contractions of both graphs."""
        return sum(2.0 * term.size * term.verb.k for term in self.terms.terms if isinstance(term.verb, Contract))

    def row_counts(self) -> list[int]:
        """How many rows the tensors of both graphs have, seen through their leading dims; the most frequent first."""
        traced = [*self.a.values.values(), *self.b.values.values()]
        shapes, counts = Counter([v.shape for v in traced if isinstance(v, Tensor)]), Counter[int]()
        for shape, often in shapes.items():
            counts.update(dict.fromkeys({math.prod(shape[:i]) for i in range(1, len(shape))}, often))
        return [n for n, _ in counts.most_common(10)]


def build(
    a: ir.Model,
    b: ir.Model,
    inputs: Mapping[str, tuple[str, tuple[int, ...]]],
    concrete: Mapping[str, np.ndarray],
    *,
    affine: str = "",
    contents: Contents | None = None,
    maps: Maps | None = None,
    observe: Callable[..., Any] | None = None,
    spells: bool = False,
    whole: bool = False,
    erased: Collection[str] = (),
    free: Mapping[str, Sequence[tuple[str, int]]] | None = None,
) -> Pair:
    """Trace both models. ``inputs`` maps A's input names to (B's name, shape); ``concrete`` holds integer inputs by A's name.

    ``erased`` are float formats whose roundings vanish, and whose constants count as float32; inputs then have the types of
    each side.
    ``whole``: a Loop or Scan of many steps is one function where it can be.
    ``free`` are the symbols to type the tensors by, as (A's input name, axis) wherever they stand.
    """
    coarsest = 24 if any("float" in name for name in erased) else 0
    store = Terms(AFFINE[affine], contents=contents, coarsest=coarsest, maps=maps)
    algebra = Algebra(store, observe, spells=spells, erased=erased, whole=whole)
    algebra.terms.contents.ahead([*weights(a), *weights(b)])
    given_a: dict[str, Value] = {}
    given_b: dict[str, Value] = {}
    dtypes, types_b = ({v.name: v.dtype for v in m.graph.inputs} for m in (a, b))
    for name, (other, shape) in inputs.items():
        value: Value = concrete.get(name)
        if value is None:
            dtype = dtypes[name]
            assert dtype is not None
            value = Tensor(algebra.terms.leaf(("input", name), math.prod(shape)), shape, np.dtype(dtype.numpy()))
        given_a[name] = given_b[other] = value
        if erased and isinstance(value, Tensor) and (declared := types_b[other]) is not None:
            given_b[other] = dataclasses.replace(value, dtype=np.dtype(declared.numpy()))
    symbols = [Symbol.at(name, there, inputs) for name, there in (free or {}).items()]
    others = [symbol.renamed({name: other for name, (other, _) in inputs.items()}) for symbol in symbols]

    def traced(model: ir.Model, given: Mapping[str, Value], own: Sequence[Symbol]) -> Trace:
        return Typed(model, algebra, own).run(given) if own else Interpreter(model, algebra).run(given)

    trace_a = traced(a, given_a, symbols)
    marks, clips = len(algebra.marks), len(algebra.clips)
    trace_b = traced(b, given_b, others)
    if marks and len(algebra.clips) > clips:  # the ranges of A's quantizers may be these Clips
        del algebra.marks[:marks]
        trace_a = traced(a, given_a, symbols)
    shapes = {name: shape for name, (_, shape) in inputs.items()}
    partners = {name: other for name, (other, _) in inputs.items()}
    return Pair(algebra, trace_a, trace_b, shapes, concrete=concrete, models=(a, b), partners=partners)


def weights(model: ir.Model) -> list[np.ndarray]:
    """The large initializers of a model."""
    tensors = [v.const_value for v in model.graph.initializers.values()]
    return [t.numpy() for t in tensors if t is not None and t.nbytes >= 65536 and t.dtype != ir.DataType.STRING]
