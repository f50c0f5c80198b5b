"""Derivatives of one number at the outputs towards every result and stored constant of a program, step by step from the end.

Source: reverse mode as in :mod:`graphcheck.parting.slopes`, whose tape is used within each step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Leaf, Rows, Sum
from graphcheck.kernel.values.bounds import U
from graphcheck.parting.slopes import Place, Tape
from graphcheck.parting.windows import lengths
from graphcheck.precision.program import Key, Program, Step

_NOTHING = np.zeros(1)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Pulled:
    """What reaches a step: the derivatives towards what it writes, by key, those towards what it reads, and, if asked for, of
    the roundings inside of it the sum of |derivative| * rounding and that of its squares, in roundings of float64."""

    step: Step
    results: Mapping[Key, np.ndarray]
    reads: Mapping[Key, np.ndarray]
    inside: float
    squares: float


def pulled(
    program: Program,
    values: Mapping[Key, np.ndarray],
    at: Mapping[str, np.ndarray],
    *,
    inside: bool = False,
    tick: Callable[[], None] = lambda: None,
) -> Iterator[Pulled]:
    """The steps from the last to the first, given the derivatives ``at`` the outputs by name and every value; where none is known
    (a jump, an untaught operator) it is taken as 0."""
    slopes: dict[Key, np.ndarray] = {}
    for name, slope in at.items():
        key = program.outputs[name]
        if isinstance(key, tuple):
            slopes[key] = slopes[key] + slope if key in slopes else slope
    for step in reversed(program.steps):
        tick()
        up = {r.key: slopes.pop(r.key) for r in step.results if r.key in slopes}
        if not up:
            continue
        reads, share, squares = _through(program.terms, step, values, up, inside)
        for key, slope in reads.items():
            slopes[key] = slopes[key] + slope if key in slopes else slope
        yield Pulled(step, up, reads, share, squares)


def _through(
    terms: Terms, step: Step, values: Mapping[Key, np.ndarray], up: Mapping[Key, np.ndarray], inside: bool
) -> tuple[dict[Key, np.ndarray], float, float]:
    roots: list[int] = []
    leaves: dict[Key, np.ndarray] = {key: values[key] for key in step.reads}
    for result in step.results:
        if result.key in up:
            towards, size = ("towards", *result.key), up[result.key].size
            leaves[towards] = up[result.key]
            roots.append(terms.contract(result.cls, terms.leaf(towards, size), (1, 1), 1, 1, size))
    root = roots[0]
    for other in roots[1:]:
        root = terms.ew("add", [(root, None), (other, None)], 1)
    tape = (_Sized if inside else _Plain)(terms, leaves, [root])
    tape.root = terms.find(root)
    found: dict[Key, np.ndarray] = {}
    total = 0.0
    for cls, slope, share in tape.back(root, 0):
        total += share
        verb = terms.terms[cls].verb
        if isinstance(verb, Leaf) and verb.key in values:
            found[verb.key] = slope if np.isfinite(slope).all() else np.where(np.isfinite(slope), slope, 0.0)
    return found, total, tape.squares


class _Plain(Tape):
    """A tape that looks for no kinks, for the derivative at the point itself is asked for, and sums no roundings."""

    squares, root = 0.0, -1

    def _near(
        self, places: Sequence[Place], told: Callable[..., tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        return told(*(_NOTHING for _ in places))

    def _share(self, cls: int, slope: np.ndarray, args: Sequence[Any], value: np.ndarray) -> float:
        return 0.0


class _Sized(_Plain):
    """One that sums the roundings inside of a step, those of the sum that asks for the derivatives left out."""

    def _share(self, cls: int, slope: np.ndarray, args: Sequence[Any], value: np.ndarray) -> float:
        if cls == self.root:
            return 0.0
        verb = self.terms.terms[cls].verb
        match verb:
            case Contract(m=m, n=n, k=k):  # k roundings of partial sums, none larger than the lengths of both rows
                rows, columns = lengths(verb, args[0], args[1])
                both = np.square(slope).reshape(-1, m, n) @ np.square(columns)[:, :, None]
                self.squares += float(k * U * U * (np.square(rows) * both[..., 0]).sum())
            case Sum(rows, k):
                size = np.abs(args[0]).reshape(rows, k).sum(axis=1)
                self.squares += float(k * np.square(U * slope * size).sum())
            case Rows("softmax", _, k):
                self.squares += float(np.square(4 * U * (k + 16) * slope * value).sum())
            case Ew(fn) if not (rounding := function(fn).rounding).exact:
                size = np.abs(np.where(np.isfinite(value), value, 0.0))
                self.squares += float(np.square(rounding.relative * slope * size).sum())
        return super(_Plain, self)._share(cls, slope, args, value)
