"""How far a copy's outputs can be from those of the model that it is a copy of, at one input, in whatever order sums are added.

Three bounds, of one model of arithmetic: inside of a node float32 (:data:`UNIT`), and each result rounded to its declared type
once. A sum of K products in any order errs by at most gamma_K * sum |a_k b_k|, gamma_K = K u / (1 - K u) (Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., sections 3.1 and 3.3).

``first_order``: each rounding at its worst, times the derivative (Bauer, SIAM J. Numer. Anal. 11, 1974); stored constants by
what they differ by. Products of two roundings are left out. Told of the elements that deviate most.
``likely``: the same where roundings are independent, and 0 in the mean, which is what happens (Higham and Mary, SIAM J. Sci.
Comput. 41, 2019): with a probability of 1 - :data:`MISS` no element of the output is beyond it, if those that were looked at
are its worst.
``running``: a radius beside each value, carried forward (:mod:`graphcheck.precision.running`). It leaves out nothing, and grows
from layer to layer far beyond what happens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphcheck.kernel.values.bounds import U
from graphcheck.precision import running
from graphcheck.precision.backwards import pulled
from graphcheck.precision.kinds import Kind
from graphcheck.precision.program import Key, Program

UNIT = 2.0**-24  # of float32, in which sums are accumulated
MISS = 1e-9  # the probability of an element beyond ``likely``
_NOTHING = np.zeros(1)
ELEMENTS = 3  # of each output, which deviate most


def bounds(
    program: Program,
    fed: Mapping[Key, np.ndarray],
    values: Mapping[Key, np.ndarray],
    errors: Mapping[Key, np.ndarray],
    guessed: frozenset[Key],
    rounded: Mapping[str, np.ndarray],
    wide: Mapping[str, np.ndarray],
    tick: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """A row for each output.

    ``values`` are those of the rounded program, ``errors`` how far constants, inputs and results are from what they stand for,
    at most so far where they are ``guessed``; ``rounded`` and ``wide`` are the outputs of the copy and of the other model.
    """
    radii = running.radii(program, fed, errors, UNIT, tick)
    kinds = [result.kind for step in program.steps for result in step.results]
    narrow = max((kind.unit for kind in kinds if kind is not None), default=0.0)
    twice = 2.0 if guessed else 1.0  # both models are then somewhere around the copy's constants
    rows = []
    for name, y in wide.items():
        if not isinstance(program.outputs.get(name), tuple) or not y.size:
            continue
        apart = np.abs(rounded[name] - y)
        places = np.argsort(-apart, kind="stable")[:ELEMENTS]
        found = [first_order(program, values, errors, guessed, name, int(at), tick) for at in places]
        measured, likely = float(apart[places[0]]), max(each.likely(y.size, UNIT) for each in found)
        rows.append(
            {
                "output": name,
                "accumulate": "float32",
                "measured": measured,
                "likely": likely,
                "probability": MISS,
                "ratio": likely / measured if measured else None,
                "first_order": max(each.worst(UNIT) for each in found),
                "likely_in_format": max(each.likely(y.size, narrow) for each in found) if narrow else None,
                "elements": len(found),
                "of": int(y.size),
                "running": _or_none(twice * float(radii[name].max(initial=0.0))),
            }
        )
    return rows


@dataclasses.dataclass(frozen=True)
class First:
    """To first order what an element deviates by: ``known`` by the stored constants, and at most ``sum`` by the roundings of
    results, whose squares come to ``squares``; ``inside`` and ``inside_squares`` are those within nodes, in unit roundoffs."""

    known: float
    sum: float
    squares: float
    inside: float
    inside_squares: float

    def worst(self, unit: float) -> float:
        """With each rounding at its worst, where sums are accumulated with this unit roundoff."""
        return self.known + self.sum + self.inside * unit

    def likely(self, count: int, unit: float) -> float:
        """What none of so many such elements exceeds but with a probability of :data:`MISS`, where roundings are independent,
        and 0 in the mean (Hoeffding, J. Am. Stat. Assoc. 58, 1963)."""
        squares = self.squares + self.inside_squares * unit**2
        return min(self.worst(unit), self.known + math.sqrt(2 * math.log(2 * count / MISS) * squares))


def first_order(
    program: Program,
    values: Mapping[Key, np.ndarray],
    errors: Mapping[Key, np.ndarray],
    guessed: frozenset[Key],
    output: str,
    index: int,
    tick: Callable[[], None] = lambda: None,
) -> First:
    """What one element of an output deviates by."""
    start = np.zeros(values[program.outputs[output]].size)  # type: ignore[index]
    start[index] = 1.0
    total = squares = known = within = within_squares = 0.0
    stored: dict[Key, np.ndarray] = {}
    for each in pulled(program, values, {output: start}, inside=True, tick=tick):
        within, within_squares = within + each.inside / U, within_squares + each.squares / U**2
        for result in each.step.results:
            if result.key in each.results and not each.step.keeps:
                slope, error = each.results[result.key], errors.get(result.key, _NOTHING)
                parts = np.abs(slope) * _worst(result.kind, values[result.key], error)
                known += float((slope * _beyond(result.kind, error)).sum())
                total, squares = total + float(parts.sum()), squares + float(parts @ parts)
        for key, slope in each.reads.items():
            if key[0] != "result":
                stored[key] = stored[key] + slope if key in stored else slope
    for key, slope in stored.items():
        if key in guessed:
            parts = np.abs(slope) * errors[key]
            total, squares = total + float(parts.sum()), squares + float(parts @ parts)
        elif key in errors:
            known += float(slope @ errors[key])
    return First(abs(known), total, squares, within, within_squares)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _worst(kind: Kind | None, value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """The most that the rounding of each element may be; what a quantizer meets exactly (0 behind a Relu) stays exact."""
    if kind is None:
        return np.asarray(UNIT * np.abs(value))
    if kind.is_float:
        return np.asarray(kind.unit * np.abs(value) + kind.least / 2)
    return np.broadcast_to(np.where(error == 0, 0.0, 0.5), value.shape)


def _beyond(kind: Kind | None, error: np.ndarray) -> np.ndarray:
    """What the ends of a quantizer cut off."""
    return error - np.clip(error, -0.5, 0.5) if kind is not None and not kind.is_float else _NOTHING
