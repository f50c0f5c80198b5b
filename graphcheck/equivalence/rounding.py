"""``within-rounding``: the proof again, after re-rounded constants gave way to the other side's exact expressions (Idea 4).

A constant counts as re-rounded only if it lies within the roundings of the expression that it is to stand for: r operations err
by at most r ulps of S together, S being the expression with every term taken positive (Higham, section 3.1); a stored constant
against a stored constant has r = 1. Only constants that one graph alone has are replaced, so the other graph stays as it is.
Nothing is merged because two computed tensors are close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.domains.domain import evaluate
from graphcheck.domains.maps import Map
from graphcheck.domains.real import Float64, Real
from graphcheck.domains.terms import Terms
from graphcheck.equivalence.classes import Pair
from graphcheck.equivalence.windows import Prover
from graphcheck.ops.algebra import Tensor

_UNITS = {2: 2.0**-11, 4: 2.0**-24, 8: 2.0**-53}
_ROUNDS = 4


class _Positive(Float64):
    """Every constant and term taken positive: the S of the bound."""

    def const(self, array: np.ndarray) -> Real:
        return super().const(np.abs(array.astype(np.float64)))


def substitute(
    models: tuple[ir.Model, ir.Model],
    pair: Pair,
    roots: Sequence[tuple[int, int]],
    *,
    seed: int,
    target: float,
    deadline: float = math.inf,
) -> list[dict[str, Any]] | None:
    """The constants after whose replacement the outputs meet (an empty list if they meet without), None if they do not.

    ``pair`` must stand in an affine store of its own: classes are merged in it on the hypothesis that it tests.
    """
    terms = pair.terms
    prover = Prover(
        terms, [a for a, _ in roots], [b for _, b in roots], pair.row_counts(), seed=seed, target=target, deadline=deadline
    )
    replaced: list[dict[str, Any]] = []
    for _ in range(_ROUNDS):
        if prover.prove():
            return replaced
        found = _candidates(terms, prover)
        if not found:
            return None
        for kept, gone, ulps, roundings in found:
            replaced.append(_described(models, pair, kept, gone, prover.sides, ulps, roundings))
            terms.merge(kept, gone)
    return None


def _candidates(terms: Terms, prover: Prover) -> list[tuple[int, int, float, int]]:
    """(class, its replacement, ulps, roundings) for the constants of one side that stand within the other's roundings."""
    frontier: dict[int, set[int]] = {1: set(), 2: set()}
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if not terms.constant_like(cls):
                for arg in terms.terms[cls].args:
                    rep = _root(terms, terms.find(arg))
                    if terms.constant_like(rep) and prover.sides.get(rep, bit) == bit:
                        frontier[bit].add(rep)
    everything = sorted(frontier[1] | frontier[2])
    values = evaluate(terms, Float64({}, bounds=False), everything)
    scales = evaluate(terms, _Positive({}, bounds=False), everything)
    found, used = [], set()
    for a in sorted(frontier[1] - frontier[2]):
        for b in sorted(frontier[2] - frontier[1]):
            if b in used or terms.size(a) != terms.size(b) or not (a in terms.arrays or b in terms.arrays):
                continue
            roundings = _operations(terms, a) + _operations(terms, b) or 1
            unit = max(_unit(terms, a), _unit(terms, b))
            x, y = values[a].value, values[b].value
            room = roundings * 2 * unit * np.maximum(scales[a].value, scales[b].value)
            if bool((np.abs(x - y) <= room).all()) and bool(np.isfinite(x).all()):
                spacing = 2 * unit * np.maximum(np.exp2(np.floor(np.log2(np.maximum(np.abs(x), 1e-300)))), 2.0**-126)
                found.append((a, b, float((np.abs(x - y) / spacing).max(initial=0.0)), roundings))
                used.add(b)
                break
    return found


def _root(terms: Terms, cls: int) -> int:
    """The class behind a rearrangement."""
    term = terms.terms[cls]
    while term.kind == "move" and len(term.args) == 1 and _keeps_all(terms, term.params[0], term.args[0]):
        cls = terms.find(term.args[0])
        term = terms.terms[cls]
    return cls


def _keeps_all(terms: Terms, map_: Map, source: int) -> bool:
    return map_.size == terms.size(source) and terms.maps.inverse(map_) is not None


def _operations(terms: Terms, cls: int) -> int:
    """How many roundings an expression of constants has, a sum of K products counting 2 K."""
    total = 0
    for c in terms.order([cls]):
        term = terms.terms[c]
        if term.kind == "ew":
            total += 1
        elif term.kind == "contract":
            total += 2 * int(term.params[3])
        elif term.kind in ("sum", "rows"):
            total += int(term.params[-1])
    return total


def _unit(terms: Terms, cls: int) -> float:
    """The unit roundoff of the constants that a class is made of (the coarsest)."""
    sizes = [terms.arrays[c].dtype for c in terms.order([cls]) if c in terms.arrays]
    floats = [_UNITS.get(d.itemsize, 2.0**-24) for d in sizes if d.kind == "f" and d.itemsize < 8]
    return max(floats, default=2.0**-24)


def _described(
    models: tuple[ir.Model, ir.Model], pair: Pair, a: int, b: int, sides: dict[int, int], ulps: float, roundings: int
) -> dict[str, Any]:
    names = [_name(models[side], pair, cls) for side, cls in ((0, a), (1, b))]
    return {"name": names[1] or names[0] or "constant", "a": names[0], "b": names[1], "elements": pair.terms.size(a),
            "ulps": ulps, "roundings": roundings}


def _name(model: ir.Model, pair: Pair, cls: int) -> str | None:
    """The initializer that holds a constant's values, in any layout; None for an expression."""
    array = pair.terms.arrays.get(pair.terms.find(cls))
    if array is None:
        return None
    ordered = np.sort(array.astype(np.float64))
    for value in _constants(model, pair):
        held = value[1].reshape(-1)
        if held.size == array.size and np.array_equal(np.sort(held.astype(np.float64)), ordered):
            return value[0]
    return None


def _constants(model: ir.Model, pair: Pair) -> list[tuple[str, np.ndarray]]:
    trace = pair.a if any(v in pair.a.values for v in model.graph.outputs) else pair.b
    return [
        (str(value.name), array)
        for value, array in trace.values.items()
        if isinstance(array, np.ndarray) and array.dtype.kind not in "OUSiub" and not isinstance(array, Tensor)
    ]
