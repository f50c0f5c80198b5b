"""How far apart constants may lie that one rounding or many made of the same numbers: values, running errors and ulps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.proof.allowed import NOTHING, Allowed, Told, grid, in_parts
from graphcheck.kernel.proof.summation import LAMBDA, room_of_products, room_of_sums
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Rows, Sum, reduces
from graphcheck.kernel.values.bounds import FLOAT8, LEAST, dtype_of, held, least_of, span
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real

_SKETCHED = 256  # elements of a constant that are looked at first


class Roundings(Float64):
    """Exact expressions with a bound on how far the roundings of a type may carry them (a running error bound): an ulp for
    every operation, and for a sum what its order may do in float32 at least, in which runtimes add up narrower floats.

    ``wide`` takes the worst case of every sum, which is quickly told.
    """

    def __init__(self, unit: float, wide: bool, outwards: float = 0.0) -> None:
        super().__init__({})
        self.outwards = outwards  # how far whole numbers at the ends of their type are carried away
        self.ulp, self.unit_of_sums, self.wide = 2 * unit, min(unit, 2.0**-24), wide

    def _more(self, x: Real, error: Any) -> Real:
        return Real(x.value, x.error + self.ulp * error + LEAST.get(self.ulp / 2, 0.0))

    def _summed(self, x: Real, room: np.ndarray) -> Real:
        return self._more(Real(x.value, x.error + self.unit_of_sums * room.reshape(-1)), np.abs(x.value))

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        if fn.startswith("near:"):
            return self._near(fn, values[0])
        found = super().ew(fn, values, maps, size)
        if fn == "about":
            return Real(found.value, found.error + np.abs(values[1].value))
        ulps = function(fn).rounding.ulps
        return self._more(found, ulps * np.abs(found.value)) if ulps else found

    def _near(self, fn: str, q: Real) -> Real:
        """Half a step around a whole number, or half a spacing around a float8 (below a power of two, a quarter), and a few ulps
        of float32 of the division before."""
        (low, high), whole = ends_of(fn), q.value
        away = np.where(whole >= high, self.outwards, np.where(whole <= low, -self.outwards, 0.0))
        if (dtype := dtype_of(fn.partition(":")[2])).name not in FLOAT8:
            return Real(whole + away, 0.5 + 2.0**-22 * np.maximum(np.abs(whole), 256.0))
        part, power = np.frexp(np.maximum(np.abs(whole), least_of(dtype)))
        step = np.maximum(np.ldexp(2.0**-3 if "e4m3" in dtype.name else 2.0**-2, power - 1), least_of(dtype))
        lower = np.where((part == 0.5) & (step > least_of(dtype)), step / 8, 0.0)
        return Real(whole + np.sign(whole) * lower + away, step / 2 - lower + 2.0**-22 * np.abs(whole))

    def contract(self, a: Real, b: Real, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Real:
        one, two = a.value.reshape(batches[0], m, k), b.value.reshape(batches[1], *((k, n) if kn else (n, k)))
        two = two if kn else two.swapaxes(1, 2)
        room = k * (np.abs(one) @ np.abs(two)) if self.wide else room_of_products(one, two)
        return self._summed(super().contract(a, b, batches, m, n, k, kn), room)

    def sum(self, a: Real, rows: int, k: int) -> Real:
        table = a.value.reshape(rows, k)
        room = k * np.abs(table).sum(axis=1) if self.wide else room_of_sums(table)
        return self._summed(super().sum(a, rows, k), room)

    def rows(self, fn: str, a: Real, rows: int, k: int, size: int) -> Real:
        found = super().rows(fn, a, rows, k, size)
        terms = k if self.wide else min(k, LAMBDA * math.sqrt(k))  # the sum of the exponentials, all of them positive
        return found if reduces(fn) else self._more(found, (terms + 8) * np.abs(found.value))


class Sketches:
    """A few elements of classes of constants, by which most of those that lie beyond their roundings are told.

    What is known of a class holds until something that it is made of is merged: it has another form then.
    ``beyond`` are the forms of classes that lie beyond their roundings.
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.beyond: set[tuple[int, int]] = set()
        self._forms: dict[tuple[int, ...], int] = {}
        self._known: dict[tuple[int, float], tuple[np.ndarray, np.ndarray]] = {}

    def form(self, cls: int) -> int:
        """A number that tells what a class is made of."""
        return self._forms.setdefault(tuple(self.terms.order([cls])), len(self._forms))

    def apart(self, a: int, b: int) -> bool:
        """Whether an element of two classes of one size lies farther apart than the widest room of both."""
        if is_whole(self.terms, a, b):
            return False
        unit = unit_of_two(self.terms, a, b)
        (x, left), (y, right) = (self._elements(c, unit) for c in (a, b))
        with np.errstate(all="ignore"):
            rounds = any(c not in self.terms.arrays and _operations(self.terms, c) for c in (a, b))
            return not _lie_within(x, y, _room(x, y, left + right if rounds else None, unit))

    def distance(self, a: int, b: int) -> float:
        """How far elements of two classes lie apart, beside what they are; infinite where their sizes are not the same."""
        if self.terms.size(a) != self.terms.size(b):
            return math.inf
        (x, _), (y, _) = (self._elements(c, unit_of_two(self.terms, a, b)) for c in (a, b))
        with np.errstate(all="ignore"):
            return float(np.nan_to_num(np.abs(x - y).sum() / np.abs(x).sum(), nan=math.inf))

    def _elements(self, cls: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
        key = self.form(cls), unit
        if key not in self._known:
            size = self.terms.size(cls)
            places = np.unique(np.linspace(0, size - 1, _SKETCHED).astype(np.int64)) if size else np.zeros(0, np.int64)
            with np.errstate(all="ignore"):
                value = evaluate(self.terms, Roundings(unit, True), [cls])[self.terms.find(cls)]
            self._known[key] = value.raw[places].astype(np.float64), value.error[places]
        return self._known[key]


def is_whole(terms: Terms, a: int, b: int) -> bool:
    """Whether one of two constants is of integers or as wide: nothing of it was rounded."""
    return any(terms.precision.get(unmoved(terms, terms.find(c)), 0) >= 64 for c in (a, b))


def _room(x: np.ndarray, y: np.ndarray, errors: np.ndarray | None, unit: float) -> np.ndarray:
    """How far apart values may lie: by the ``errors`` of both, or by a rounding of each where nothing was computed."""
    ulp = np.maximum(2 * unit * np.maximum(np.abs(x), np.abs(y)), LEAST.get(unit, 0.0))
    room = ulp if errors is None else errors
    return np.where(np.isfinite(room) & (unit > 0), room, 0.0)


def _lie_within(x: np.ndarray, y: np.ndarray, room: np.ndarray) -> bool:
    return bool((np.where(x == y, 0.0, np.abs(x - y)) <= room).all() and np.isfinite(x).all())


def apart(
    terms: Terms, a: int, b: int, *, wide: bool = False, allowed: Allowed = NOTHING, added: bool = False
) -> dict[str, Any]:
    """How far apart two classes of constants are, in ulps, and whether that is within their roundings, the room; ``values``
    and ``room`` are those of the element that leaves it farthest, or comes nearest to that. ``allowed``
    is asked where they do not (:meth:`Allowed.told`), and its answer stands beside; ``needs`` are the ulps that it would have to
    allow."""
    steps = [steps_of(terms, c) for c in (a, b)]
    whole = not any(steps) and is_whole(terms, a, b)
    unit = 0.0 if whole else unit_of_two(terms, a, b)
    with np.errstate(all="ignore"):
        found = evaluate(terms, Roundings(unit, wide), [a, b])
    one, two = (found[terms.find(c)] for c in (a, b))
    if all(steps):  # one is the rounding of the other
        one, two = (Real(real.raw, np.maximum(one.error, two.error) / 2) for real in (one, two))
    roundings = sum(_operations(terms, terms.find(c)) for c in (a, b))
    parts = in_parts(lambda at: _part(one.part(at), two.part(at), unit, rounds=bool(roundings)), one.raw.size)
    worst = max(parts, key=lambda part: part.share)
    within = all(part.exact if whole else part.within for part in parts)
    if any(steps):
        out = [_outwards(terms, c, unit) if step else None for c, step in zip((a, b), steps, strict=True)]
        integers = (f for f in allowed.formats if f.startswith("int"))  # a bias in int32 is of any
        name = next(s for s in (steps[1] or steps[0], *integers) if s != "int32")
        told = grid(name, one.value, two.value, one.error + two.error, out, allowed.steps)
    else:
        told = Told() if within or whole else allowed.told(one.value, two.value, (one.error, two.error), added=added)
    if told.at is not None:
        worst = _part(one.part(at := slice(told.at, told.at + 1)), two.part(at), unit, rounds=bool(roundings))
    said = np.array([max(part.ulps for part in parts), worst.room, *worst.values])
    if any(steps):  # scales that are drawn anew at other sizes leave the last digits
        with np.errstate(over="ignore"):
            said = said.astype(np.float32).astype(np.float64)
    return {
        "ulps": float(said[0]),
        "values": said[2:].tolist(),
        "room": float(said[1]),
        "roundings": roundings or 1,
        "within": within or told.within,
        "needs": told.needs,
        **({key: getattr(told, key) for key in ("format", "cut", "lifted", "moved", "why")} if allowed else {}),
    }


@dataclasses.dataclass(frozen=True)
class _Part:
    """What :func:`apart` says of some elements; ``share`` of its room is what the worst of them takes."""

    exact: bool
    within: bool
    ulps: float
    share: float = -1.0
    values: tuple[float, ...] = ()
    room: float = 0.0


def _part(one: Real, two: Real, unit: float, *, rounds: bool) -> _Part:
    x, y = one.value, two.value
    with np.errstate(all="ignore"):
        apart = np.where(x == y, 0.0, np.abs(x - y))
        room = _room(x, y, one.error + two.error if rounds else None, unit)
        spacing = 2 * (unit or 2.0**-53) * np.exp2(np.floor(np.log2(np.maximum(np.abs(x), 1e-300))))
        ulps = apart / np.maximum(spacing, 2.0**-126 * (unit or 2.0**-53))
        share = np.where(apart == 0, 0.0, apart / room)
    exact = bool((apart == 0).all() and (np.abs(x) < 2.0**53).all())
    if not share.size:
        return _Part(exact, True, 0.0)
    share = np.where(np.isnan(share), np.inf, share)
    worst = int(np.argmax(share))
    most, values = float(np.where(np.isfinite(ulps), ulps, np.inf).max()), (float(x[worst]), float(y[worst]))
    return _Part(exact, _lie_within(x, y, room), most, float(share[worst]), values, float(room[worst]))


def steps_of(terms: Terms, cls: int) -> str:
    """The type of the whole numbers that a class of constants is near to, "" for none; that of a bias only beside no other."""
    names = (terms.terms[c].verb.fn.partition(":")[2].removeprefix("u").replace("_", "") for c in near_in(terms, cls))  # type: ignore[union-attr]
    return min(names, key=lambda name: (name == "int32", name), default="")


def near_in(terms: Terms, cls: int) -> list[int]:
    """The whole numbers of which a class of constants is made that stand for others."""
    if not any(fn.startswith("near:") for fn in terms.functions):
        return []
    return [c for c in terms.order([cls]) if isinstance(v := terms.terms[c].verb, Ew) and v.fn.startswith("near:")]


def stored_in(terms: Terms, cls: int) -> int:
    """The class of a stored constant, or of the most whole numbers that it is near to."""
    near = near_in(terms, cls)
    return unmoved(terms, terms.find(terms.terms[max(near, key=terms.size)].args[0])) if near else cls


def ends_of(fn: str) -> tuple[float, float]:
    """The least and the largest number of a grid; the negative of the largest is one of its ends as well."""
    found = span(dtype_of(fn.partition(":")[2]))
    return max(found[0], -found[1]) if found[0] else found[0], found[1]


def _outwards(terms: Terms, cls: int, unit: float) -> np.ndarray | None:
    """The values of a class where what stands at the end of its grid stands far behind it; None for sums of such."""
    if any(isinstance(terms.terms[c].verb, (Contract, Sum, Rows)) for c in terms.order([cls])):
        return None
    return evaluate(terms, Roundings(unit, False, 2.0**20), [cls])[terms.find(cls)].value


def unmoved(terms: Terms, cls: int) -> int:
    """The class behind a rearrangement."""
    term = terms.terms[cls]
    while isinstance(term.verb, Move) and len(term.args) == 1 and _keeps_all(terms, term.verb.map, term.args[0]):
        cls = terms.find(term.args[0])
        term = terms.terms[cls]
    return cls


def _keeps_all(terms: Terms, map_: Map, source: int) -> bool:
    return map_.size == terms.size(source) and terms.maps.inverse(map_) is not None


def _operations(terms: Terms, cls: int) -> int:
    """How many roundings an expression of constants has, a sum of K products counting 2 K."""
    total = 0
    for c in terms.order([cls]):
        match terms.terms[c].verb:
            case Ew():
                total += 1
            case Contract(k=k):
                total += 2 * k
            case Sum(k=k) | Rows(k=k):
                total += k
    return total


def unit_of_two(terms: Terms, a: int, b: int) -> float:
    """The coarsest unit roundoff of both; but a stored constant that a narrow type does not hold was not rounded to it, however
    narrow the constants of the expression are that it faces (a float16 weight, cast and scaled in float32). Of two stored
    constants it is no coarser than float32 unless both are: a copy in a narrower type is not forgiven unasked
    (:mod:`graphcheck.kernel.proof.allowed`)."""
    units = unit_of(terms, a), unit_of(terms, b)
    unit = max(units)
    stored = [root for root in (unmoved(terms, terms.find(c)) for c in (a, b)) if root in terms.arrays]
    if len(stored) == 2 and min(units) > 0:
        return max(min(units), min(unit, 2.0**-24))
    if len(stored) == 1 and unit_of(terms, stored[0]) < unit:
        values = terms.arrays[stored[0]].astype(np.float64)
        with np.errstate(over="ignore"):
            known = values.astype(np.float16) == values if unit == 2.0**-11 else held(values, unit)
        if not known.all():
            return unit_of(terms, stored[0])
    return unit


def unit_of(terms: Terms, cls: int) -> float:
    """The unit roundoff of the coarsest floats among the constants that a class is made of; 0 where there are none."""
    units = [0.0]
    for c in terms.order([cls]):
        bits = terms.precision.get(c, 0) if c in terms.arrays else 0
        if 0 < bits < 64 and not _power_of_two(terms.arrays[c]):
            units.append(2.0**-bits)
    return max(units)


def _power_of_two(array: np.ndarray) -> bool:
    """Whether a constant is a scalar that rounds nothing: any type holds it, and so says nothing of the model's."""
    return array.size == 1 and abs(math.frexp(float(array[0]))[0]) in (0.0, 0.5)
