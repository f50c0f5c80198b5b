"""Constants that face each other: one of each graph at the same place, or near to each other wherever they stand."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.room import Sketches, apart, near_in, steps_of, unit_of, unmoved
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules.numbers import positive
from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Opaque, Rows, Term, Verb, ranged
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

_ADDENDS = 4  # of a sum of constants that may be added up in another order
_JOINED = 2**22  # elements of a join whose tensors are put in turn
_STEPS = 2.0**-9  # half a step of a range of 256
_ALIKE = 1e-2  # how near to one constant another may be, relatively, of several that face it

_STEP = Ew("pos", (None,))  # x * pos(x) is a Relu
_STEERED = ("max", "min", "mul")

Views = tuple[Operand, Operand, int]  # of a constant of each side, at so many places


@dataclasses.dataclass(frozen=True)
class Facing:
    """Constants that face each other, as pairs, and what is the same once they are: they themselves, or what uses them.

    ``added``: the operator that sees them adds them to what is computed."""

    pairs: tuple[Views, ...]
    joined: tuple[int, int]
    added: bool = False


def _alone(terms: Terms, prover: Prover, cls: int, bit: int) -> bool:
    """Whether a class is made of constants and one graph alone has it."""
    return terms.constant_like(cls) and prover.sides.get(unmoved(terms, terms.find(cls)), bit) == bit


def face_to_face(terms: Terms, prover: Prover, sketches: Sketches, copied: bool = False) -> list[Facing]:
    """Constants that face each other: the same operator on the same computed operands, one constant operand apart. Where one
    graph is ``copied`` from the other, both may have a constant elsewhere (an epsilon beside that of a LayerNormalization).

    Where several do (x times W and times W / 6, as in a HardSwish), each faces the nearest, which faces it or is near.
    """
    places: dict[Any, tuple[list[_Place], list[_Place]]] = {}
    near = any(fn.startswith("near:") for fn in terms.functions)
    for side, bit in (("a", 1), ("b", 2)):
        factors = _factors(terms, prover.nodes[side]) if near else {}
        for cls in prover.nodes[side]:
            if prover.shared(cls) or terms.constant_like(cls):
                continue
            term = terms.terms[cls]
            ew = term.verb if isinstance(term.verb, Ew) else None
            if len(term.args) > 1 and ew is None and any(map(terms.constant_like, term.args)) and term.size <= _JOINED:
                term = _in_turn(terms, term)
            views = [(terms.find(a), m) for a, m in term.views]
            at = [i for i, (a, _) in enumerate(views) if _alone(terms, prover, a, bit)]
            if not at and copied:  # one constant, rounded anew wherever it is used
                at = [i for i, (a, _) in enumerate(views) if terms.constant_like(a)]
            rest = [(a, m.key if m else b"") for i, (a, m) in enumerate(views) if i not in at]
            if len(at) != 1 and not isinstance(term.verb, Move):  # which may join several
                continue
            if not all(prover.shared(a) or terms.constant_like(a) for a, _ in rest):
                continue
            for i in at:
                constant, map_ = views[i]
                place = -1 if ew is not None and function(ew.fn).commutative else i
                key: tuple[Any, ...] = (_without_views(term.verb), place, tuple(sorted(rest)), term.size)
                key += () if ew is not None else (terms.size(constant),)
                found = [(cls, _as_kn(terms, term, constant), map_)]
                if near and isinstance(term.verb, Contract):
                    scaled = [(by, terms.ew("mul", [(found[0][1], None), (c, None)], key[-1])) for by, c in factors.get(cls, ())]
                    found += [(*each, None) for each in scaled]
                places.setdefault(key, ([], []))[bit - 1].extend(found)
    met = (pair for ones, twos in places.values() for pair in _paired(sketches, ones, twos))
    return [facing for one, two in met if (facing := _met_at(terms, one, two))]


def _seen(terms: Terms, term: Term, seen: Map | None = None) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Each tensor that a join of several sees, where, and which elements of it (1 is the first), as they come first."""
    if not isinstance(term.verb, Move) or len(term.args) < 2 or (map_ := terms.maps.compose(term.verb.map, seen)) is None:
        return []
    index, begins = map_.index.astype(np.int64), np.cumsum([0, *map(terms.size, term.args)])
    places = [np.flatnonzero((index > low) & (index <= high)) for low, high in itertools.pairwise(begins)]
    found = [(terms.find(a), at, index[at] - low) for a, at, low in zip(term.args, places, begins, strict=False) if at.size]
    return sorted(found, key=lambda each: each[1][0])


def _in_turn(terms: Terms, term: Term) -> Term:
    """A join of several tensors in the order in which they come first, whatever they are made of."""
    index, begin, joined = np.zeros(term.size, np.int64), 0, _seen(terms, term)
    for a, places, elements in joined:
        index[places], begin = elements + begin, begin + terms.size(a)
    return dataclasses.replace(term, verb=Move(terms.maps.intern(index)), args=tuple(a for a, *_ in joined)) if joined else term


def _split(terms: Terms, x: Operand, y: Operand, size: int, known: dict[Any, Any]) -> list[Views] | None:
    """Where the parts of a stored constant and the tensors that another expression joins part; None where they are no such."""
    joined = _seen(terms, terms.terms[terms.find(y[0])], y[1]) if _is_stored(terms, x[0]) else []
    if sum(at.size for _, at, _ in joined) < size:  # there may be zeros as well
        return None
    intern = terms.maps.intern
    views = [(_through(terms, x[0], x[1], intern(at + 1)), (a, intern(elements)), at.size) for a, at, elements in joined]
    found = [_unlike(terms, *each, known) for each in views]
    return None if None in found else [pair for part in found for pair in part or []]


def _factors(terms: Terms, nodes: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """For each class that is multiplied by a constant number, the product and the number, which may be a quantizer's step."""
    found: dict[int, list[tuple[int, int]]] = {}
    for cls in nodes:
        match terms.terms[cls]:
            case Term(Ew("mul", (None, None)), (one, two)):
                for a, c in ((one, two), (two, one)):
                    if terms.size(c) == 1 and terms.constant_like(c):
                        found.setdefault(terms.find(a), []).append((cls, terms.find(c)))
    return found


_Place = tuple[int, int, Map | None]  # the class of an operator, its constant operand, and how that is seen


def _paired(sketches: Sketches, ones: list[_Place], twos: list[_Place]) -> list[tuple[_Place, _Place]]:
    if not ones or not twos or len(ones) == len(twos) == 1:
        return list(zip(ones, twos, strict=False))
    far = np.array([[sketches.distance(a, b) for _, b, _ in twos] for _, a, _ in ones])
    nearest = enumerate(far.argmin(axis=0))
    return [(ones[i], twos[j]) for j, i in nearest if far[i].argmin() == j or far[i, j] < _ALIKE]


def _met_at(terms: Terms, one: _Place, two: _Place) -> Facing | None:
    (user, other, seen), (cls, constant, map_) = one, two
    own = isinstance(terms.terms[cls].verb, Ew) and constant in map(terms.find, terms.terms[cls].args)
    places = terms.size(cls if own else constant)
    pairs = _unlike(terms, (other, seen), (constant, map_), places, {})
    whole = pairs == [((other, seen), (constant, map_), places)] and seen is map_
    verb = terms.terms[cls].verb
    alone = isinstance(verb, Move) or (whole and terms.size(other) == terms.size(constant))
    read = all(c in map(terms.find, terms.terms[user].args) for c, user in ((other, user), (constant, cls)))  # as it stands
    joined = (other, constant) if alone and read else (user, cls)  # others that a Move joins may be unlike as well
    return Facing(tuple(pairs), joined, isinstance(verb, Ew) and verb.fn == "add") if pairs else None


def _without_views(verb: Verb) -> Any:
    if isinstance(verb, Contract):
        return dataclasses.replace(verb, kn=False)  # it only says how a constant is stored
    return (Ew, verb.fn) if isinstance(verb, Ew) else verb


def _is_stored(terms: Terms, cls: int) -> bool:
    return unmoved(terms, terms.find(cls)) in terms.arrays


def _meet(terms: Terms, a: int, b: int) -> bool:
    """Whether two expressions of constants face each other as they are: one is stored; or is whole numbers, less a zero point,
    times a scale: half a step would hide what any other constant beside these is off."""
    rounded = [near_in(terms, c) for c in (a, b)]
    if not any(rounded):
        return _is_stored(terms, a) or _is_stored(terms, b)
    return all(
        not found or (len(found) == 1 and _strangers(terms, own, other) <= 1 + (steps_of(terms, own) == "int32"))
        for found, own, other in zip(rounded, (a, b), (b, a), strict=True)
    )


def _strangers(terms: Terms, cls: int, other: int) -> int:
    """How many constants an expression has that another one does not have; zero points and what is divided out again aside."""
    below, there = ({*terms.order([root])} for root in (cls, other))
    stored = {terms.find(terms.terms[c].args[0]) for c in near_in(terms, cls)}
    constants = (c for c in below - there - stored if c in terms.arrays)
    most = 2**16 if steps_of(terms, cls) == "int16" else 256
    own = [c for c in constants if terms.precision.get(c) and not _counts(terms.arrays[c], most)]
    readers = {c: {u for u in below if c in map(terms.find, terms.terms[u].args)} for c in own}
    return sum(len(readers[c]) < 2 or terms.ew("recip", [(c, None)], terms.size(c)) not in readers[c] for c in own)


def _counts(array: np.ndarray, most: int) -> bool:
    """Whether a constant may be of whole numbers or their zero points, ``most`` at the farthest: one that is off by 1 is off
    by more than half a step."""
    return array.dtype.kind in "iu" or bool(((array == np.rint(array)) & (np.abs(array) <= most)).all())


def _unlike(terms: Terms, a: Operand, b: Operand, size: int, known: dict[Any, Any]) -> list[Views] | None:
    """Where two expressions of constants part: the views that face each other, one of each pair a stored constant.

    None where they are different expressions: nobody rounded those, however close they are. ``known`` remembers.
    """
    key = (a, b, size)
    if key not in known:
        known[key] = [] if a == b else _parts(terms, a, b, size, known)
    return known[key]  # type: ignore[no-any-return]


def _bare(terms: Terms, view: Operand) -> Operand:
    """What an expression is moved from."""
    while isinstance((term := terms.terms[terms.find(view[0])]).verb, Move) and len(term.args) == 1:
        view = _through(terms, term.args[0], term.verb.map, view[1])
    return view


def _parts(terms: Terms, a: Operand, b: Operand, size: int, known: dict[Any, Any]) -> list[Views] | None:
    rounded = any(near_in(terms, c) for c, _ in (a, b))
    if _meet(terms, a[0], b[0]):
        for left, right, size_of in _operands(terms, a, b, size) if rounded else ():  # what is done to both alike is peeled off
            unlike = [pair for pair in zip(left, right, strict=True) if pair[0] != pair[1]]
            if len(unlike) == 1 and (inner := _unlike(terms, *unlike[0], size_of[unlike[0][0]], known)) is not None:
                return inner
        sizes = [terms.size(c) for c, m in (a, b) if m is None]
        return [(a, b, size)] if all(n in (1, size) for n in sizes) else None
    for x, y in ((a, b), (b, a)):
        if (split := _split(terms, x, y, size, known)) is not None:
            return split if x == a else [(two, one, n) for one, two, n in split]
    if rounded:
        a, b = _bare(terms, a), _bare(terms, b)
    one, two = (terms.terms[terms.find(c)] for c, _ in (a, b))
    for term, x, y in ((one, a, b), (two, b, a)) if one.verb != two.verb else ():
        if term.verb == Ew("recip", (None,)) and _is_stored(terms, term.args[0]) and unit_of(terms, x[0]):  # c faces 1 / y
            views = _through(terms, term.args[0], None, x[1]), (terms.ew("recip", [(y[0], None)], terms.size(y[0])), y[1])
            return [(*(views if x == a else views[::-1]), size)]
    ways = []
    for left, right, size_of in _operands(terms, a, b, size):
        found = [_unlike(terms, x, y, size_of[x], known) for x, y in zip(left, right, strict=True)]
        if None not in found:
            ways.append(list(dict.fromkeys(pair for part in found for pair in part or [])))
    return min(ways, key=lambda pairs: (sum(_mixed(terms, *pair) for pair in pairs), len(pairs)), default=None)


_Sides = tuple[list[Operand], list[Operand], dict[Operand, int]]


def _operands(terms: Terms, a: Operand, b: Operand, size: int) -> list[_Sides]:
    """The operands of both, in each order in which they may face each other, and at how many places each is seen; none where the
    operators are not the same."""
    (one, seen), (two, other) = ((terms.terms[terms.find(c)], m) for c, m in (a, b))
    sides = (one, two), (two, one)
    one, two = (_gathered(terms, term) if isinstance(beside.verb, Contract) else term for term, beside in sides)
    if isinstance(one.verb, Contract) and _without_views(one.verb) != _without_views(two.verb):
        two, other = _turned(terms, two, other)
    if _without_views(one.verb) != _without_views(two.verb) or len(one.args) != len(two.args):
        return []
    if isinstance(one.verb, Ew):
        left, right = ([_through(terms, c, m, at) for c, m in term.views] for term, at in ((one, seen), (two, other)))
        ways = [(left, right)]
        if one.verb.fn == "add":
            ways = [each for each in itertools.product(_addends(terms, a), _addends(terms, b)) if len({*map(len, each)}) == 1]
            most = max(len(left) for left, _ in ways)
            counts = [(Counter(left), Counter(right)) for left, right in ways if len(left) == most]
            ways = [([*(own - other).elements()], [*(other - own).elements()]) for own, other in counts]  # what both add aside
        orders = itertools.permutations if function(one.verb.fn).commutative else lambda right: [right]
        return [(left, [*order], dict.fromkeys(left, size)) for left, right in ways for order in orders(right)]
    left, right = ([_through(terms, _as_kn(terms, term, terms.find(c)), None, None) for c in term.args] for term in (one, two))
    return [(left, right, {view: terms.size(view[0]) for view in left})] if seen is other else []


def _gathered(terms: Terms, term: Term) -> Term:
    """A product of matrices times steps of a quantizer (one, or one a column) as that of what is near to whole numbers times
    these."""
    whole, factors = term, list[Operand]()
    while isinstance(whole.verb, Ew) and whole.verb.fn == "mul":
        factor, of = sorted(whole.views, key=lambda view: terms.size(view[0]))
        if terms.size(factor[0]) >= whole.size or of[1] is not None:
            return term
        factors.append(factor)
        whole = terms.terms[terms.find(of[0])]
    near = [a for a in whole.args if near_in(terms, a)]
    if not factors or not near or not isinstance(whole.verb, Contract):
        return term
    weight = scaled = min(near, key=lambda a: len(terms.order([a])))
    for step, seen in factors:
        if seen is not None and (seen := _along(terms, whole.verb, seen, whole.args.index(weight))) is None:
            return term
        scaled = terms.ew("mul", [(scaled, None), (step, seen)], terms.size(weight))
    return dataclasses.replace(whole, args=tuple(scaled if a == weight else a for a in whole.args))


def _along(terms: Terms, verb: Contract, seen: Map, at: int) -> Map | None:
    """How the operand at a place sees a factor of its own rows or columns; None where the product sees more than these."""
    places = seen.index.reshape(-1, verb.m, verb.n) if at == 0 else seen.index.reshape(-1, verb.m, verb.n).transpose(0, 2, 1)
    if (places != places[:1, :, :1]).any() or verb.batches != (1, 1):
        return None
    index = np.broadcast_to(places[0, :, :1], (places.shape[1], verb.k))
    return terms.maps.intern(np.ravel(index.T if at and verb.kn else index))


def _turned(terms: Terms, term: Term, seen: Map | None) -> tuple[Term, Map | None]:
    """Products as the same ones with their factors exchanged, and how those are seen."""
    match term:
        case Term(Contract((p, q), m, n, k, kn), (x, y)) if p == q:
            rows = terms.move((y,), terms.maps.transpose((p, k, n), (0, 2, 1))) if kn else y
            turned = dataclasses.replace(term, verb=Contract((p, p), n, m, k, False), args=(rows, x))
            seen = terms.maps.compose(terms.maps.transpose((p, n, m), (0, 2, 1)), seen)
            return turned, None if seen is not None and seen.identity and seen.size == term.size else seen
    return term, seen


def _addends(terms: Terms, view: Operand, most: int = _ADDENDS) -> list[list[Operand]]:
    """The ways to take a sum of sums apart, into so many addends at most."""
    term = terms.terms[terms.find(view[0])]
    if most < 2 or not isinstance(term.verb, Ew) or term.verb.fn != "add":
        return [[view]]
    one, two = (_addends(terms, _through(terms, c, m, view[1]), most - 1) for c, m in term.views)
    return [[view], *(left + right for left in one for right in two if len(left) + len(right) <= most)]


def _mixed(terms: Terms, a: Operand, b: Operand, size: int) -> int:
    """Whether a stored constant, or one that stands for it, faces an expression, or one of another size: where operands may be
    swapped, like rather faces like."""
    one, two = (_is_stored(terms, c) or bool(near_in(terms, c)) for c, _ in (a, b))
    return 2 * (one != two) + (terms.size(a[0]) != terms.size(b[0]))


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


def near_each_other(terms: Terms, prover: Prover, sketches: Sketches) -> list[Facing]:
    """Constants of one side that stand within the roundings of the other's, wherever they stand.

    An expression may change with what is merged below it: pairs are known apart by their forms.
    """
    frontier: dict[int, set[int]] = {1: set(), 2: set()}
    for side, bit in (("a", 1), ("b", 2)):
        for cls in prover.nodes[side]:
            if not terms.constant_like(cls):
                own = [a for a in terms.terms[cls].args if _alone(terms, prover, a, bit) and not near_in(terms, a)]
                frontier[bit] |= {unmoved(terms, terms.find(a)) for a in own}
    sized: dict[int, list[int]] = {}
    for b in sorted(frontier[2] - frontier[1]):
        sized.setdefault(terms.size(b), []).append(b)
    forms = {c: sketches.form(c) for c in (*frontier[1], *frontier[2])}
    found: list[Facing] = []
    used: set[int] = set()
    for a in sorted(frontier[1] - frontier[2]):
        for b in sized.get(terms.size(a), ()):
            pair = forms[a], forms[b]
            if b in used or pair in sketches.beyond or not (a in terms.arrays or b in terms.arrays):
                continue
            if not sketches.apart(a, b) and apart(terms, a, b, wide=True)["within"] and apart(terms, a, b)["within"]:
                found.append(Facing((((a, None), (b, None), terms.size(a)),), (a, b)))
                used.add(b)
                break
            sketches.beyond.add(pair)
    return found


def ranges(terms: Terms, prover: Prover, clips: Sequence[int], alone: bool = False) -> list[Facing]:
    """Quantizers whose operand both graphs have by now, or is of constants, or ``alone`` any whose range ends at 0, each with
    what is left of it but for roundings: the first of the ``clips`` whose ends its range lies within, else the Relu of the
    operand where the range ends at 0 and the other graph has one (constants: where it cuts something off), else the operand."""
    found, there = [], {terms.find(cls) for cls in clips}
    for side, other in (("a", "b"), ("b", "a")):
        steps = [term for c in prover.nodes[other] if (term := terms.terms[terms.find(c)]).verb == _STEP]
        relus = {_steered(terms, term.args[0]) for term in steps}
        for cls in prover.nodes[side]:
            match terms.terms[terms.find(cls)]:
                case Term(Opaque(((_, sign, around), *_) as key), (x,), size) if ranged(key):
                    if not (bool(sign and not around) if alone else terms.constant_like(x) or _both_have(terms, prover, x)):
                        continue
                    plain = _clip(terms, x, size, 0.0 if sign > 0 else -math.inf, 0.0 if sign < 0 else math.inf)
                    ways = (_clip(terms, plain, size, *ends[:2]) for ends in around)
                    bare = _steered(terms, x) not in relus or (sign > 0 and positive(terms, x))
                    if terms.constant_like(x):
                        value = evaluate(terms, Float64({}, bounds=False), [x])[terms.find(x)].value * (sign or 1)
                        if np.isnan(value).any():  # the range of another one comes first
                            continue
                        bare = value.min() >= -_STEPS * value.max()
                    kept = terms.find(x) if bare else plain
                    chosen = next((way for way in ways if prover.shared(way) or way in there), kept)
                    found.append(Facing((), (cls, chosen)))
    return found


def _both_have(terms: Terms, prover: Prover, cls: int) -> bool:
    """Whether both graphs have a class, or what it is moved from."""
    term = terms.terms[terms.find(cls)]
    return prover.shared(cls) or (isinstance(term.verb, Move) and all(map(prover.shared, term.args)))


def _steered(terms: Terms, cls: int) -> int:
    """What a class is computed from by movement, maxima, Relus and constants alone, among which a Relu may stand anywhere."""
    while True:
        term = terms.terms[cls := terms.find(cls)]
        args = [a for a in term.args if not terms.constant_like(a) and terms.terms[terms.find(a)].verb != _STEP]
        if len(args) != 1 or not isinstance(term.verb, (Move, Ew, Rows)) or getattr(term.verb, "fn", "max") not in _STEERED:
            return cls
        cls = args[0]


def _clip(terms: Terms, cls: int, size: int, low: float, high: float) -> int:
    for fn, end in (("max", low), ("min", high)):
        if math.isfinite(end):
            cls = terms.ew(fn, [(cls, None), (terms.const(np.array([end]), 0), None)], size)
    return terms.find(cls)
