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
from graphcheck.domains.real import Float64, Real, U
from graphcheck.domains.terms import Terms

SPREAD_FACTOR = 4.0  # a deviation counts as more than rounding above this many spreads
_SEEN_FACTOR = 8.0  # what one execution in the declared types shows of the spread is taken times this,
_PLAIN = 1000.0  # and trusted in place of noise runs where the deviation is this many times as large
_NOISE_RUNS = 2
_JUMPS = frozenset({"floor", "ceil", "round", "cast", "wrap", "saturate", "mod", "fmod", "intdiv"})
_RIGOROUS_ELEMENTS = 5_000_000  # the running bound costs three more products a contraction; tried up to this size


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One output pair at one input: the largest |A - B|, what float64 could explain (``bound``; infinite where it was not
    looked into), what the declared types could (``spread``)."""

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


Executed = Mapping[str, tuple[np.ndarray, np.ndarray]]


def judge(
    terms: Terms,
    outputs: Sequence[tuple[str, int, int]],
    inputs: Mapping[tuple[Any, ...], np.ndarray],
    unit: float,
    seed: int,
    *,
    executed: Callable[[], Executed] = dict,
    tick: Callable[[], None] = lambda: None,
) -> list[Deviation]:
    """Deviations of the ``outputs`` (name, class in A, class in B) on ``inputs`` by leaf key; ``unit`` is the unit roundoff.

    ``executed`` gives what onnxruntime computed of the outputs at this input, if that is to be had: its distance from float64
    shows the spread without noise runs where a difference is far above it, or below it. What is smaller than one rounding of
    the output is not judged further (its spread is given as that rounding). An output whose value is not known has an
    infinite bound.
    """
    roots = [c for _, a, b in outputs for c in (a, b)]

    broken = False

    def run(**options: Any) -> dict[int, Real]:
        nonlocal broken
        domain = Float64(inputs, **options)
        with np.errstate(all="ignore"):
            found = evaluate(terms, domain, roots, visit=lambda *_: tick())
        broken |= domain.broken
        return found

    def values(name: str, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        return exact[terms.find(a)].value, exact[terms.find(b)].value

    exact = run(bounds=False)
    apart = {name: _largest(_minus(*values(name, a, b))) for name, a, b in outputs}
    floors = {name: SPREAD_FACTOR * unit * max(map(_magnitude, values(name, a, b))) for name, a, b in outputs}
    found = {n: Deviation(n, apart[n], 0.0 if not apart[n] else math.inf, floors[n], False) for n, _, _ in outputs}
    open_ = [(n, a, b) for n, a, b in outputs if apart[n] > floors[n]]
    roundings = _roundings(terms, roots)
    shown = executed() if open_ else {}
    stepped = bool(open_) and _has_steps(terms, roots)
    for name, a, b in list(open_):
        seen = (
            [_minus(x.reshape(-1), y) for x, y in zip(shown[name], values(name, a, b), strict=True)]
            if name in shown
            else []
        )
        once = max(map(_largest, seen), default=math.inf)
        plain = not stepped and apart[name] > _PLAIN * _SEEN_FACTOR * once
        lost = apart[name] <= SPREAD_FACTOR * once < math.inf
        if plain or lost:  # far above what execution shows of rounding, or below it: no noise run would change that
            factor = _SEEN_FACTOR if plain else 1.0
            bound = _first_order(roundings, _SEEN_FACTOR * max(map(_typical, seen)), unit)
            found[name] = Deviation(name, apart[name], bound, factor * once, False)
            open_.remove((name, a, b))
    if open_:
        noise: dict[int, list[np.ndarray]] = {}
        for i in range(_NOISE_RUNS * (1 + stepped)):
            for cls, value in run(bounds=False, unit=unit, seed=seed + i).items():
                noise.setdefault(cls, []).append(_minus(value.value, exact[cls].value))
        bounded = run() if sum(terms.size(c) for c in terms.order(roots)) <= _RIGOROUS_ELEMENTS else {}
        for name, a, b in open_:
            a, b = terms.find(a), terms.find(b)
            moved = [d for cls in (a, b) for d in noise[cls]]
            rigorous = float((bounded[a].error + bounded[b].error).max(initial=0)) if bounded else math.inf
            first_order = _first_order(roundings, max(map(_typical, moved)), unit)
            bound = rigorous if rigorous < apart[name] else first_order
            spread = max(map(_largest, moved))
            found[name] = Deviation(name, apart[name], bound, spread, rigorous < apart[name])
    if broken:  # floats saturated somewhere: nothing is certain
        return [dataclasses.replace(d, bound=math.inf) for d in found.values()]
    return [found[name] for name, _, _ in outputs]


def _has_steps(terms: Terms, roots: Sequence[int]) -> bool:
    """Whether a jump stands behind the outputs: rounding, ArgMax, or a comparison that is no Relu's (x * pos(x) has none).

    Execution may saturate at a jump just as float64 does, so that only noise tells whether it is near.
    """
    order = terms.order(roots)
    relus = set()
    for cls in order:
        term = terms.terms[cls]
        if term.kind == "ew" and term.params[0] == "mul":
            a, b = (terms.find(x) for x in term.args)
            for step, x in ((a, b), (b, a)):
                if terms.terms[step].params[:1] == ("pos",) and terms.find(terms.terms[step].args[0]) == x:
                    relus.add((cls, step))
    for cls in order:
        term = terms.terms[cls]
        if (
            (term.kind == "ew"
            and term.params[0].partition(":")[0] in _JUMPS)
            or (term.kind == "rows"
            and "arg" in term.params[0])
        ):
            return True
        for arg in map(terms.find, term.args):
            if terms.terms[arg].params[:1] == ("pos",) and (cls, arg) not in relus:
                return True
    return any(terms.terms[terms.find(r)].params[:1] == ("pos",) for r in roots)


def _first_order(roundings: float, typical: float, unit: float) -> float:
    """The first-order bound from a typical deviation seen at unit roundoff ``unit``."""
    bound = 3 * math.sqrt(roundings) * typical * (U / unit)
    return math.inf if math.isnan(bound) else bound


def _minus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.asarray(x - y, np.float64)


def _typical(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x * x))) if x.size else 0.0


def _magnitude(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


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
