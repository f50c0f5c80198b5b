"""``within-rounding``: the proof again, after re-rounded constants gave way to the other side's exact expressions (Idea 4).

A constant counts as re-rounded only if it lies within the roundings of the expression that it is to stand for: each operation
of it may err by an ulp, a sum of products by what the orders of summation do (:mod:`graphcheck.kernel.proof.summation`), and
the running error bound of that (Higham, section 3.3) is the room; a stored constant against a stored constant has one ulp.
Only constants that one graph alone has are replaced, so the other graph stays as it is.
Nothing is merged because two computed tensors are close.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.summation import LAMBDA, room_of_products, room_of_sums
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.renewal import anew
from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Rows, Sum, Term, Verb, reduces
from graphcheck.kernel.terms.why import Rounded
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real

_IDLE = 4  # rounds in a row that replace nothing
_SKETCHED = 256  # elements of a constant that are looked at first
_ALIKE = 1e-2  # how near to one constant another may be, relatively, of several that face it
_MOST = 2000  # constants replaced before it counts as another graph
_LEAST = {2.0**-24: 2.0**-149, 2.0**-11: 2.0**-24}  # unit roundoff -> the least number of its type, an ulp of what is near 0


class _Rounded(Float64):
    """Exact expressions with a bound on how far the roundings of a type may carry them (a running error bound): an ulp for
    every operation, and for a sum what its order may do in float32 at least, in which runtimes add up narrower floats.

    ``wide`` takes the worst case of every sum, which is quickly told.
    """

    def __init__(self, unit: float, wide: bool) -> None:
        super().__init__({})
        self.ulp, self.unit_of_sums, self.wide = 2 * unit, min(unit, 2.0**-24), wide

    def _more(self, x: Real, error: Any) -> Real:
        return Real(x.value, x.error + self.ulp * error + _LEAST.get(self.ulp / 2, 0.0))

    def _summed(self, x: Real, room: np.ndarray) -> Real:
        return self._more(Real(x.value, x.error + self.unit_of_sums * room.reshape(-1)), np.abs(x.value))

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        found = super().ew(fn, values, maps, size)
        ulps = function(fn).rounding.ulps
        return self._more(found, ulps * np.abs(found.value)) if ulps else found

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


@dataclasses.dataclass(frozen=True)
class Substitution:
    """The constants after whose replacement two graphs are the same: name in A and B, elements, ulps, roundings granted;
    the probability that the proof behind it merged anything falsely; and the stores of its rounds, each with what the classes
    of the one before are in it."""

    constants: list[dict[str, Any]]
    error: float
    stages: tuple[tuple[Terms, dict[int, int]], ...] = ()

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
    terms, error, idle = pair.terms, 0.0, 0
    replaced: list[dict[str, Any]] = []
    stages: list[tuple[Terms, dict[int, int]]] = []
    left, right = [a for a, _ in roots], [b for _, b in roots]
    names = [_Names(trace) for trace in (pair.a, pair.b)]
    while True:
        # a store and a prover of its own for every round: what was merged gave the graphs new classes
        fresh, known = anew(terms, [*left, *right])
        left, right = ([known[terms.find(root)] for root in side] for side in (left, right))
        terms = fresh
        stages.append((terms, known))
        prover = Prover(terms, left, right, pair.row_counts(), seed=seed, target=target, deadline=deadline)
        proved = prover.prove()
        error += 2.0 ** prover.log2_error()
        if proved:
            return Substitution(replaced, error, tuple(stages))
        apart: set[tuple[int, int]] = set()
        found = _near(terms, prover, apart) or _facing(terms, prover)
        idle = 0 if found else idle + 1  # merges alone may bring constants face to face in the next store
        if (idle and not terms.joins) or idle > _IDLE or len(replaced) > _MOST:
            return None
        while found:  # layer after layer: what met brings the next constants face to face
            for facing in found:
                _replace(terms, names, facing, replaced)
            found = (_near(terms, prover, apart) or _facing(terms, prover)) if prover.open_pairs() else []
            found = [f for f in found if terms.find(f.joined[0]) != terms.find(f.joined[1])]


_Views = tuple[Operand, Operand, int]  # of a constant of each side, at so many places


@dataclasses.dataclass(frozen=True)
class _Facing:
    """Constants that face each other, as pairs, and what is the same once they are: they themselves, or what uses them."""

    pairs: tuple[_Views, ...]
    joined: tuple[int, int]


def _replace(terms: Terms, known: Sequence[_Names], facing: _Facing, replaced: list[dict[str, Any]]) -> None:
    if terms.find(facing.joined[0]) == terms.find(facing.joined[1]):
        return
    names = []
    for pair in facing.pairs:
        found = _described(terms, known, *pair)
        names.append((found["a"], found["b"]))
        if found not in replaced:
            replaced.append(found)
    terms.merge(*facing.joined, Rounded(tuple(names)))


def _alone(terms: Terms, prover: Prover, cls: int, bit: int) -> bool:
    """Whether a class is made of constants and one graph alone has it."""
    return terms.constant_like(cls) and prover.sides.get(_root(terms, terms.find(cls)), bit) == bit


def _facing(terms: Terms, prover: Prover) -> list[_Facing]:
    """Constants that face each other: the same operator on the same computed operands, one constant operand apart.

    Where several do (x times W and times W / 6, as in a HardSwish), each faces the nearest, which faces it or is near.
    """
    places: dict[Any, tuple[list[_Place], list[_Place]]] = {}
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if prover.shared(cls) or terms.constant_like(cls):
                continue
            term = terms.terms[cls]
            ew = term.verb if isinstance(term.verb, Ew) else None
            views = [(terms.find(a), m) for a, m in term.views]
            at = [i for i, (a, _) in enumerate(views) if _alone(terms, prover, a, bit)]
            rest = [(a, m.key if m else b"") for i, (a, m) in enumerate(views) if i not in at]
            if len(at) != 1 or not all(prover.shared(a) or terms.constant_like(a) for a, _ in rest):
                continue
            constant, map_ = views[at[0]]
            place = -1 if ew is not None and function(ew.fn).commutative else at[0]
            key: tuple[Any, ...] = (_without_views(term.verb), place, tuple(sorted(rest)), term.size)
            key += () if ew is not None else (terms.size(constant),)
            places.setdefault(key, ([], []))[bit - 1].append((cls, _as_kn(terms, term, constant), map_))
    met = (pair for ones, twos in places.values() for pair in _paired(_Sketches(terms), ones, twos))
    return [facing for one, two in met if (facing := _met_at(terms, one, two))]


_Place = tuple[int, int, Map | None]  # the class of an operator, its constant operand, and how that is seen


def _paired(sketches: _Sketches, ones: list[_Place], twos: list[_Place]) -> list[tuple[_Place, _Place]]:
    if not ones or not twos or len(ones) == len(twos) == 1:
        return list(zip(ones, twos, strict=False))
    far = np.array([[sketches.distance(a, b) for _, b, _ in twos] for _, a, _ in ones])
    nearest = enumerate(far.argmin(axis=0))
    return [(ones[i], twos[j]) for j, i in nearest if far[i].argmin() == j or far[i, j] < _ALIKE]


def _met_at(terms: Terms, one: _Place, two: _Place) -> _Facing | None:
    (user, other, seen), (cls, constant, map_) = one, two
    places = terms.size(cls) if isinstance(terms.terms[cls].verb, Ew) else terms.size(constant)
    pairs = _unlike(terms, (other, seen), (constant, map_), places, {})
    whole = pairs == [((other, seen), (constant, map_), places)] and seen is map_
    joined = (other, constant) if whole and terms.size(other) == terms.size(constant) else (user, cls)
    return _Facing(tuple(pairs), joined) if pairs else None


def _without_views(verb: Verb) -> Any:
    if isinstance(verb, Contract):
        return dataclasses.replace(verb, kn=False)  # it only says how a constant is stored
    return (Ew, verb.fn) if isinstance(verb, Ew) else verb


def _is_stored(terms: Terms, cls: int) -> bool:
    return _root(terms, terms.find(cls)) in terms.arrays


def _unlike(terms: Terms, a: Operand, b: Operand, size: int, known: dict[Any, Any]) -> list[_Views] | None:
    """Where two expressions of constants part: the views that face each other, one of each pair a stored constant.

    None where they are different expressions: nobody rounded those, however close they are. ``known`` remembers.
    """
    key = (a, b, size)
    if key not in known:
        known[key] = [] if a == b else _parts(terms, a, b, size, known)
    return known[key]  # type: ignore[no-any-return]


def _parts(terms: Terms, a: Operand, b: Operand, size: int, known: dict[Any, Any]) -> list[_Views] | None:
    if _is_stored(terms, a[0]) or _is_stored(terms, b[0]):
        sizes = [terms.size(c) for c, m in (a, b) if m is None]
        return [(a, b, size)] if all(n in (1, size) for n in sizes) else None
    one, two = (terms.terms[terms.find(c)] for c, _ in (a, b))
    for term, x, y in ((one, a, b), (two, b, a)):
        if term.verb == Ew("recip", (None,)) and _is_stored(terms, term.args[0]) and _unit(terms, x[0]):  # c faces 1 / y
            views = _through(terms, term.args[0], None, x[1]), (terms.ew("recip", [(y[0], None)], terms.size(y[0])), y[1])
            return [(*(views if x == a else views[::-1]), size)]
    if len(one.args) != len(two.args):
        return None
    ew = one.verb if isinstance(one.verb, Ew) else None
    if ew is not None and isinstance(two.verb, Ew) and ew.fn == two.verb.fn:
        left, right = (
            [_through(terms, cls, m, outer) for cls, m in term.views] for term, (_, outer) in ((one, a), (two, b))
        )
        size_of = dict.fromkeys(left, size)
    elif ew is None and one.verb == two.verb and a[1] is b[1]:
        left, right = ([_through(terms, c, None, None) for c in term.args] for term in (one, two))
        size_of = {view: terms.size(view[0]) for view in left}
    else:
        return None
    swaps = ew is not None and function(ew.fn).commutative
    ways = []
    for other in (right, right[::-1]) if swaps else (right,):
        found = [_unlike(terms, x, y, size_of[x], known) for x, y in zip(left, other, strict=True)]
        if None not in found:
            ways.append(list(dict.fromkeys(pair for part in found for pair in part or [])))
    return min(ways, key=lambda pairs: (sum(_mixed(terms, *pair) for pair in pairs), len(pairs)), default=None)


def _mixed(terms: Terms, a: Operand, b: Operand, size: int) -> bool:
    """Whether a stored constant faces an expression: where operands may be swapped, like rather faces like."""
    return _is_stored(terms, a[0]) != _is_stored(terms, b[0])


def _through(terms: Terms, cls: int, inner: Map | None, outer: Map | None) -> Operand:
    """An operand of a view, seen at the view's places."""
    scalar = inner is None and terms.size(cls) == 1
    return terms.find(cls), None if scalar else terms.maps.compose(inner, outer)


def _as_kn(terms: Terms, term: Term, constant: int) -> int:
    """A weight in the order [k, n] in which constants are kept, so that an expression and a stored constant can meet."""
    match term.verb:
        case Contract(batches, _, n, k, kn=False) if terms.find(term.args[1]) == constant:
            return terms.move((constant,), terms.maps.transpose((batches[1], n, k), (0, 2, 1)))
    return constant


def _near(terms: Terms, prover: Prover, known: set[tuple[int, int]]) -> list[_Facing]:
    """Constants of one side that stand within the roundings of the other's, wherever they stand.

    ``known`` are stored constants that do not; more are added. An expression may change with what is merged below it.
    """
    frontier: dict[int, set[int]] = {1: set(), 2: set()}
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if not terms.constant_like(cls):
                own = [a for a in terms.terms[cls].args if _alone(terms, prover, a, bit)]
                frontier[bit] |= {_root(terms, terms.find(a)) for a in own}
    found: list[_Facing] = []
    used: set[int] = set()
    sketches = _Sketches(terms)
    for a in sorted(frontier[1] - frontier[2]):
        for b in sorted(frontier[2] - frontier[1]):
            stored = [c in terms.arrays for c in (a, b)]
            if b in used or terms.size(a) != terms.size(b) or not any(stored) or (a, b) in known:
                continue
            if not sketches.apart(a, b) and _apart(terms, a, b, wide=True)["within"] and _apart(terms, a, b)["within"]:
                found.append(_Facing((((a, None), (b, None), terms.size(a)),), (a, b)))
                used.add(b)
                break
            if all(stored):
                known.add((a, b))
    return found


class _Sketches:
    """A few elements of classes of constants, by which most of those that lie beyond their roundings are told."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._known: dict[tuple[int, float], tuple[np.ndarray, np.ndarray]] = {}

    def apart(self, a: int, b: int) -> bool:
        """Whether an element of two classes of one size lies farther apart than the widest room of both."""
        if _is_whole(self.terms, a, b):
            return False
        unit = _unit_of_two(self.terms, a, b)
        (x, left), (y, right) = (self._elements(c, unit) for c in (a, b))
        with np.errstate(all="ignore"):
            rounds = any(c not in self.terms.arrays and _operations(self.terms, c) for c in (a, b))
            return not _lie_within(x, y, _room(x, y, left + right if rounds else None, unit))

    def distance(self, a: int, b: int) -> float:
        """How far elements of two classes lie apart, beside what they are; infinite where their sizes are not the same."""
        if self.terms.size(a) != self.terms.size(b):
            return math.inf
        (x, _), (y, _) = (self._elements(c, _unit_of_two(self.terms, a, b)) for c in (a, b))
        with np.errstate(all="ignore"):
            return float(np.nan_to_num(np.abs(x - y).sum() / np.abs(x).sum(), nan=math.inf))

    def _elements(self, cls: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
        if (cls, unit) not in self._known:
            size = self.terms.size(cls)
            places = np.unique(np.linspace(0, size - 1, _SKETCHED).astype(np.int64)) if size else np.zeros(0, np.int64)
            with np.errstate(all="ignore"):
                value = evaluate(self.terms, _Rounded(unit, True), [cls])[self.terms.find(cls)]
            self._known[cls, unit] = value.raw[places].astype(np.float64), value.error[places]
        return self._known[cls, unit]


def _is_whole(terms: Terms, a: int, b: int) -> bool:
    """Whether one of two constants is of integers or as wide: nothing of it was rounded."""
    return any(terms.precision.get(_root(terms, terms.find(c)), 0) >= 64 for c in (a, b))


def _room(x: np.ndarray, y: np.ndarray, errors: np.ndarray | None, unit: float) -> np.ndarray:
    """How far apart values may lie: by the ``errors`` of both, or by a rounding of each where nothing was computed."""
    ulp = np.maximum(2 * unit * np.maximum(np.abs(x), np.abs(y)), _LEAST.get(unit, 0.0))
    room = ulp if errors is None else errors
    return np.where(np.isfinite(room) & (unit > 0), room, 0.0)


def _lie_within(x: np.ndarray, y: np.ndarray, room: np.ndarray) -> bool:
    return bool((np.where(x == y, 0.0, np.abs(x - y)) <= room).all() and np.isfinite(x).all())


def _apart(terms: Terms, a: int, b: int, *, wide: bool = False) -> dict[str, Any]:
    """How far apart two classes of constants are, in ulps, and whether that is within their roundings, the room; ``values``
    and ``room`` are those of the element that leaves it farthest, or comes nearest to that."""
    whole = _is_whole(terms, a, b)
    unit = 0.0 if whole else _unit_of_two(terms, a, b)
    with np.errstate(all="ignore"):
        values = evaluate(terms, _Rounded(unit, wide), [a, b])
        a, b = terms.find(a), terms.find(b)
        x, y = values[a].value, values[b].value
        apart = np.where(x == y, 0.0, np.abs(x - y))
        roundings = _operations(terms, a) + _operations(terms, b)
        room = _room(x, y, values[a].error + values[b].error if roundings else None, unit)
        spacing = 2 * (unit or 2.0**-53) * np.exp2(np.floor(np.log2(np.maximum(np.abs(x), 1e-300))))
        ulps = apart / np.maximum(spacing, 2.0**-126 * (unit or 2.0**-53))
        share = np.where(apart == 0, 0.0, apart / room)
    exact = (x == y).all() and (np.abs(x) < 2.0**53).all()
    worst = int(np.argmax(np.where(np.isnan(share), np.inf, share))) if share.size else 0
    return {
        "ulps": float(np.max(np.where(np.isfinite(ulps), ulps, np.inf), initial=0.0)),
        "values": [float(v[worst]) for v in (x, y)] if ulps.size else [],
        "room": float(room[worst]) if room.size else 0.0,
        "roundings": roundings or 1,
        "within": bool(exact) if whole else _lie_within(x, y, room),
    }


def _root(terms: Terms, cls: int) -> int:
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


def _unit_of_two(terms: Terms, a: int, b: int) -> float:
    """The coarsest unit roundoff of both; but a stored constant that a narrow type does not hold was not rounded to it, however
    narrow the constants of the expression are that it faces (a float16 weight, cast and scaled in float32)."""
    unit = max(_unit(terms, a), _unit(terms, b))
    stored = [root for root in (_root(terms, terms.find(c)) for c in (a, b)) if root in terms.arrays]
    if len(stored) == 1 and _unit(terms, stored[0]) < unit:
        part = np.frexp(terms.arrays[stored[0]].astype(np.float64))[0] / unit
        if (part != np.rint(part)).any():
            return _unit(terms, stored[0])
    return unit


def _unit(terms: Terms, cls: int) -> float:
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


def _described(terms: Terms, known: Sequence[_Names], a: Operand, b: Operand, size: int) -> dict[str, Any]:
    roots = [_root(terms, terms.find(c)) for c, _ in (a, b)]
    found = [(each, terms.arrays.get(root)) for each, root in zip(known, roots, strict=True)]
    names = [None if array is None else each.of(array) for each, array in found]  # an expression of several has none
    one, two = _met(terms, a, b, size)
    return {
        "name": names[1] or names[0] or "constant",
        "a": names[0],
        "b": names[1],
        "elements": terms.size(one),
        **_apart(terms, one, two),
    }


def _met(terms: Terms, a: Operand, b: Operand, size: int) -> tuple[int, int]:
    """The elements of two constants that are seen at the same places, each pair once."""
    if a[1] is b[1] and terms.size(a[0]) == terms.size(b[0]):
        return a[0], b[0]
    left, right = (np.arange(size) % terms.size(c) + 1 if m is None else m.index.astype(np.int64) for c, m in (a, b))
    assert left.size == right.size == size
    places = np.divmod(np.unique(left * (terms.size(b[0]) + 1) + right), terms.size(b[0]) + 1)  # 0 stands for a zero
    one, two = (terms.move((c,), terms.maps.intern(at)) for (c, _), at in zip((a, b), places, strict=True))
    return one, two


class _Names:
    """A graph's names for its constants, found by their elements in any order."""

    def __init__(self, trace: Trace) -> None:
        named = [(str(v.name), held) for v, held in trace.values.items() if isinstance(held, np.ndarray)]
        self._held = [(name, held) for name, held in named if held.dtype.kind not in "OUSb"]
        self._known: dict[int, dict[tuple[int, int], str]] = {}

    def of(self, array: np.ndarray) -> str | None:
        """The first name of the elements."""
        if array.size not in self._known:
            self._known[array.size] = {_mark(held): n for n, held in reversed(self._held) if held.size == array.size}
        return self._known[array.size].get(_mark(array))


def _mark(array: np.ndarray) -> tuple[int, int]:
    """The same for the same numbers in any order: sums of two functions of their bits."""
    bits = (array.reshape(-1).astype(np.float64) + 0.0).view(np.uint64)
    return int(bits.sum()), int((bits * (bits ^ bits >> np.uint64(29))).sum())
