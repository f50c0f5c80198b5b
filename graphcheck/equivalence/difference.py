"""Are two graphs different at an input, and does it matter? Float64 evaluation of both, and the spread of rounding (Idea 4).

Both graphs stand in one store, so what they share is computed once and cancels. Three numbers decide, for each output:

deviation   the largest |A - B| in float64
bound       how far float64 rounding could have moved the two apart. The running error bound of
            :mod:`graphcheck.domains.real` where it is finite and small enough; it grows with the product of the layers'
            norms, so behind a dozen layers it is replaced by the first-order bound: the errors of N roundings with
            sensitivities s_i add to at most sum |s_i| u <= sqrt(N) * sqrt(sum s_i**2) u (Cauchy-Schwarz), and
            sqrt(sum s_i**2) is what the seeded noise runs measure. Terms of second order in u = 2**-53 are neglected.
spread      the largest deviation that seeded noise on the scale of the declared type's rounding causes
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.domains.domain import evaluate
from graphcheck.domains.real import U, Float64, Real
from graphcheck.domains.terms import Terms

SPREAD_FACTOR = 4.0  # a deviation counts as more than rounding above this many spreads
_NOISE_RUNS = 2
_RIGOROUS_ELEMENTS = 5_000_000  # the running bound costs three more products a contraction; tried up to this size


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One output pair at one input: the largest |A - B|, what float64 could explain, what the declared types could."""

    output: str
    deviation: float
    bound: float
    spread: float
    rigorous: bool

    @property
    def certain(self) -> bool:
        """Whether the functions differ over the reals at this input."""
        return self.deviation > self.bound

    @property
    def units(self) -> float:
        """The deviation in units of the spread."""
        return self.deviation / self.spread if self.spread else (math.inf if self.deviation else 0.0)

    @property
    def gross(self) -> bool:
        """Certain, and more than rounding in the declared types explains."""
        return self.certain and self.units > SPREAD_FACTOR

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**dataclasses.asdict(self), "units": self.units, "certain": self.certain}


def judge(
    terms: Terms,
    outputs: Sequence[tuple[str, int, int]],
    inputs: Mapping[tuple[Any, ...], np.ndarray],
    unit: float,
    seed: int,
    *,
    tick: Callable[[], None] = lambda: None,
) -> list[Deviation]:
    """Deviations of the ``outputs`` (name, class in A, class in B) on ``inputs`` by leaf key; ``unit`` is the unit roundoff.

    An output whose value is not known (an untaught operator, NaN) has an infinite bound.
    """
    roots = [c for _, a, b in outputs for c in (a, b)]

    def run(**options: Any) -> dict[int, Real]:
        with np.errstate(all="ignore"):
            return evaluate(terms, Float64(inputs, **options), roots, visit=lambda *_: tick())

    def apart(a: int, b: int) -> float:
        with np.errstate(invalid="ignore"):
            return _largest(exact[terms.find(a)].value - exact[terms.find(b)].value)

    exact = run(bounds=False)
    differing = [name for name, a, b in outputs if apart(a, b) != 0]
    noise: dict[int, list[np.ndarray]] = {}
    for i in range(_NOISE_RUNS if differing else 0):
        noisy = run(bounds=False, unit=unit, seed=seed + i)
        for cls, value in noisy.items():
            noise.setdefault(cls, []).append(value.value - exact[cls].value)
    bounded = run() if differing and sum(terms.size(c) for c in terms.order(roots)) <= _RIGOROUS_ELEMENTS else {}
    roundings = _roundings(terms, roots)
    result = []
    for name, a, b in outputs:
        a, b = terms.find(a), terms.find(b)
        deviation = apart(a, b)
        if not differing or deviation == 0:
            result.append(Deviation(name, 0.0, 0.0, 0.0, True))
            continue
        moved = [d for cls in (a, b) for d in noise[cls]]
        spread = max(_largest(d) for d in moved)
        typical = max(float(np.sqrt(np.mean(d * d))) for d in moved)
        first_order = 3 * math.sqrt(roundings) * typical * (U / unit)
        rigorous = float((bounded[a].error + bounded[b].error).max(initial=0)) if bounded else math.inf
        bound = min(rigorous, first_order) if math.isfinite(deviation) else math.inf
        bound = math.inf if math.isnan(bound) else bound
        result.append(Deviation(name, deviation, bound, spread, rigorous <= first_order))
    return result


def _largest(x: np.ndarray) -> float:
    """max |x|; infinite where a value is unknown."""
    if not x.size:
        return 0.0
    largest = float(np.abs(x).max())
    return math.inf if math.isnan(largest) else largest


def _roundings(terms: Terms, roots: Sequence[int]) -> float:
    """How many roundings an evaluation does, a sum of K products counted as K**3: noise on its scale is sqrt(K) smaller than
    the sum of |terms|, and K of them may err the same way."""
    total = 1.0
    for cls in terms.order(roots):
        term = terms.terms[cls]
        k = term.params[3] if term.kind == "contract" else term.params[1] if term.kind == "sum" else 1
        total += float(term.size) * float(k) ** 3 if term.args else 0.0
    return total
