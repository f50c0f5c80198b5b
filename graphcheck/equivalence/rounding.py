"""``within-rounding``: the proof again, after re-rounded constants gave way to the other side's exact expressions (Idea 4).

A constant counts as re-rounded only if it lies within the roundings of the expression that it is to stand for: r operations err
by at most r ulps of S together, S being the expression with every term taken positive (Higham, section 3.1); a stored constant
against a stored constant has r = 1. Only constants that one graph alone has are replaced, so the other graph stays as it is.
Nothing is merged because two computed tensors are close.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcheck.domains.domain import evaluate
from graphcheck.domains.maps import Map
from graphcheck.domains.real import Float64, Real
from graphcheck.domains.terms import Term, Terms
from graphcheck.equivalence.classes import Pair
from graphcheck.equivalence.windows import Prover
from graphcheck.interpreter import Trace

_UNITS = {2: 2.0**-11, 4: 2.0**-24, 8: 2.0**-53}
_MOST = 2000  # constants replaced before it counts as another graph


class _Positive(Float64):
    """Every constant and term taken positive: the S of the bound."""

    def const(self, array: np.ndarray) -> Real:
        return super().const(np.abs(array.astype(np.float64)))


@dataclasses.dataclass(frozen=True)
class Substitution:
    """The constants after whose replacement two graphs are the same: name in A and B, elements, ulps, roundings granted;
    and the probability that the proof behind it merged anything falsely."""

    constants: list[dict[str, Any]]
    error: float

    @property
    def within(self) -> bool:
        """Whether every one of them lies within its roundings."""
        return all(c["within"] for c in self.constants)


def substitute(
    pair: Pair,
    roots: Sequence[tuple[int, int]],
    *,
    seed: int,
    target: float,
    deadline: float = math.inf,
) -> Substitution | None:
    """The constants that alone keep two graphs apart; None if there is more to it.

    ``pair`` must stand in an affine store of its own: classes are merged in it on the hypothesis that it tests.
    """
    terms = pair.terms
    replaced: list[dict[str, Any]] = []
    error = 0.0
    while True:
        # a prover of its own for every round: what was merged gave the graphs new classes
        prover = Prover(
            terms,
            [a for a, _ in roots],
            [b for _, b in roots],
            pair.row_counts(),
            seed=seed,
            target=target,
            deadline=deadline,
        )
        proved = prover.prove()
        error += 2.0 ** prover.log2_error()
        if proved:
            return Substitution(replaced, error)
        found = _near(terms, prover) or _facing(terms, prover)
        if not found or len(replaced) > _MOST:
            return None
        for a, b in found:
            if terms.find(a) != terms.find(b):
                replaced.append(_described(pair, a, b))
                terms.merge(a, b)


def _alone(terms: Terms, prover: Prover, cls: int, bit: int) -> bool:
    """Whether a class is made of constants and one graph alone has it."""
    return terms.constant_like(cls) and prover.sides.get(_root(terms, terms.find(cls)), bit) == bit


def _facing(terms: Terms, prover: Prover) -> list[tuple[int, int]]:
    """Constants that face each other: the same operator on the same computed operands, one constant operand apart."""
    waiting: dict[Any, int] = {}
    found: list[tuple[int, int]] = []
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if prover.shared(cls) or terms.constant_like(cls):
                continue
            term = terms.terms[cls]
            alone = [terms.find(a) for a in term.args if _alone(terms, prover, a, bit)]
            rest = [terms.find(a) for a in term.args if terms.find(a) not in alone]
            if len(alone) != 1 or not all(prover.shared(a) or terms.constant_like(a) for a in rest):
                continue
            key = (
                term.kind,
                _without_order(term.kind, term.params),
                tuple(sorted(rest)),
                terms.size(alone[0]),
                term.size,
            )
            constant = _as_kn(terms, term, alone[0])
            if bit == 1:
                waiting.setdefault(key, constant)
            elif key in waiting:
                found.append((waiting[key], constant))
    return found


def _as_kn(terms: Terms, term: Term, constant: int) -> int:
    """A weight in the order [k, n] in which constants are kept, so that an expression and a stored constant can meet."""
    if term.kind != "contract" or term.params[-1] or terms.find(term.args[1]) != constant:
        return constant
    batches, _, n, k, _ = term.params
    return terms.move((constant,), terms.maps.transpose((batches[1], n, k), (0, 2, 1)))


def _without_order(kind: str, params: tuple[Any, ...]) -> Any:
    if kind != "ew":
        return params[:-1] if kind == "contract" else params  # kn only says how a constant is stored
    return params[0], tuple(sorted(m.key for m in params[1] if m is not None))


def _near(terms: Terms, prover: Prover) -> list[tuple[int, int]]:
    """Constants of one side that stand within the roundings of the other's, wherever they stand."""
    frontier: dict[int, set[int]] = {1: set(), 2: set()}
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if not terms.constant_like(cls):
                frontier[bit] |= {
                    _root(terms, terms.find(a)) for a in terms.terms[cls].args if _alone(terms, prover, a, bit)
                }
    found, used = [], set()
    for a in sorted(frontier[1] - frontier[2]):
        for b in sorted(frontier[2] - frontier[1]):
            if b in used or terms.size(a) != terms.size(b) or not (a in terms.arrays or b in terms.arrays):
                continue
            if _apart(terms, a, b)["within"]:
                found.append((a, b))
                used.add(b)
                break
    return found


def _apart(terms: Terms, a: int, b: int) -> dict[str, Any]:
    """How far apart two classes of constants are, in ulps, and whether that is within their roundings."""
    values = evaluate(terms, Float64({}, bounds=False), [a, b])
    scales = evaluate(terms, _Positive({}, bounds=False), [a, b])
    a, b = terms.find(a), terms.find(b)
    x, y = values[a].value, values[b].value
    roundings = _operations(terms, a) + _operations(terms, b) or 1
    unit = max(_unit(terms, a), _unit(terms, b))
    room = roundings * 2 * unit * np.maximum(scales[a].value, scales[b].value)
    apart = np.abs(x - y)
    spacing = 2 * unit * np.maximum(np.exp2(np.floor(np.log2(np.maximum(np.abs(x), 1e-300)))), 2.0**-126)
    within = bool((apart <= room).all()) and bool(np.isfinite(x).all())
    return {"ulps": float((apart / spacing).max(initial=0.0)), "roundings": roundings, "within": within}


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


def _described(pair: Pair, a: int, b: int) -> dict[str, Any]:
    apart = _apart(pair.terms, a, b)
    roots = [_root(pair.terms, pair.terms.find(c)) for c in (a, b)]
    traces = (pair.a, pair.b)
    names = [_name(pair.terms, trace, cls) for trace, cls in zip(traces, roots, strict=True)]
    return {
        "name": names[1] or names[0] or "constant",
        "a": names[0],
        "b": names[1],
        "elements": pair.terms.size(a),
        **apart,
    }


def _name(terms: Terms, trace: Trace, cls: int) -> str | None:
    """The graph's name for a constant, in any layout; None for an expression of several."""
    array = terms.arrays.get(terms.find(cls))
    if array is None:
        return None
    ordered = np.sort(array.astype(np.float64))
    for value, held in trace.values.items():
        same_size = isinstance(held, np.ndarray) and held.size == array.size and held.dtype.kind not in "OUSb"
        if same_size and np.array_equal(np.sort(held.astype(np.float64).reshape(-1)), ordered):  # type: ignore[union-attr]
            return str(value.name)
    return None
