"""What roundings that are allowed explain of a difference at an input, by draws: a bound would be infinite on a ViT.

A copy is taken with its casts and quantizers erased, so that what it differs by is what it stores and computes otherwise: where
a quantizer's range ends is the calibration's choice, and any input may lie beyond it. Held against that are draws in which each
tensor of the model is rounded to the format, as a copy rounds some of them at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.proof.allowed import FORMATS, Allowed
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Opaque, ranged
from graphcheck.kernel.values.bounds import UNITS, least_of
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.parting.budget import work
from graphcheck.parting.difference import SPREAD_FACTOR

_DRAWS = 3


def explained(
    terms: Terms,
    roots: Sequence[tuple[int, int]],
    inputs: Mapping[tuple[Any, ...], np.ndarray],
    allowed: Allowed,
    seed: int,
    tick: Callable[[float], None],
) -> bool:
    """Whether outputs (classes in A and in B) lie no farther apart at ``inputs`` (by leaf key) than allowed roundings may
    carry those of either; true where an operator is not evaluated, for nothing is shown then.

    A range that ends at 0 is a Relu or nothing, and a Clip or nothing, whichever brings both nearer.
    """

    def values(domain: Float64, side: int) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            found = evaluate(terms, domain, [row[side] for row in roots], visit=lambda cls, _: tick(work(terms.terms[cls])))
        return [found[terms.find(row[side])].value for row in roots]

    verbs = (terms.terms[cls].verb for cls in terms.order([cls for row in roots for cls in row]))
    if any(isinstance(verb, Opaque) and not ranged(verb.key) for verb in verbs):
        return True
    both = [[values(Float64(inputs, bounds=False, run_opaque=way), side) for way in (_cut, _whole)] for side in (0, 1)]
    apart = np.array([[_far(x, y) for x, y in zip(*pair, strict=True)] for pair in itertools.product(*both)]).min(axis=0)
    spread = np.zeros(len(roots))
    for side, draw in itertools.product((0, 1), range(_DRAWS)):
        drawn = values(_Rounded(inputs, allowed, seed + draw), side)
        spread = np.maximum(spread, [_far(x, y) for x, y in zip(drawn, both[side][0], strict=True)])
    return bool((apart <= SPREAD_FACTOR * spread).all())


class _Rounded(Float64):
    """Float64 in which each tensor is rounded to what is allowed: by parts of its elements, or of the largest of them."""

    def __init__(self, inputs: Mapping[tuple[Any, ...], np.ndarray], allowed: Allowed, seed: int) -> None:
        super().__init__(inputs, bounds=False, seed=seed, run_opaque=_cut)
        floats = [FORMATS[name] for name in allowed.formats if name in FORMATS]
        bits = [int(name.removeprefix("int")) for name in allowed.formats if name not in FORMATS]
        units = [UNITS.get(dtype.name, 2.0**-3 if "e5m2" in dtype.name else 2.0**-4) for dtype in floats]
        self.own = max([*units, 2 * allowed.ulps * UNITS["float32"]])
        self.least = max(map(least_of, floats), default=0.0)
        self.of_largest = max((2.0**-each * (1 + 2 * allowed.steps) for each in bits), default=0.0)

    def const(self, array: np.ndarray) -> Real:
        """The constant, rounded unless it is whole numbers of its own."""
        return super().const(array) if array.dtype.kind in "iub" else self._finish(array.astype(np.float64), None, None)

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Real:
        """The input, rounded."""
        return self._finish(super().leaf(cls, key, size).value, None, None)

    def _finish(self, value: np.ndarray, error: np.ndarray | None, scale: np.ndarray | None) -> Real:
        size = np.where(np.isfinite(value), np.abs(value), 0.0)
        room = self.own * size + self.least + self.of_largest * size.max(initial=0.0)
        return super()._finish(value + room * self.random.uniform(-1, 1, value.shape), error, scale)


def _cut(key: tuple[Any, ...], args: Sequence[np.ndarray], size: int) -> np.ndarray | None:
    """A range that has to be understood yet, as the Clip or the Relu that it may be."""
    if not ranged(key):
        return None
    _, sign, around = key[0]
    low, high = around[0][:2] if around else (0.0 if sign > 0 else -np.inf, 0.0 if sign < 0 else np.inf)
    return np.asarray(np.clip(args[0], low, high))


def _whole(key: tuple[Any, ...], args: Sequence[np.ndarray], size: int) -> np.ndarray | None:
    """A range that has to be understood yet, as nothing."""
    return args[0] if ranged(key) else None


def _far(x: np.ndarray, y: np.ndarray) -> float:
    """The largest distance; infinite where one of two has no value."""
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    apart = np.where(same, 0.0, np.abs(x - y))
    return float(np.where(np.isnan(apart), np.inf, apart).max(initial=0.0))
