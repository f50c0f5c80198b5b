"""The record of an evaluation: hash-consed terms over a handful of verbs, in normal form (congruence).

A *class* is a flat tensor of reals known by what computes it (:mod:`graphcheck.kernel.terms.verbs`); the shape stands
outside, so every reshape is free.

The same key is the same class. ``merge`` joins two classes that were proved equal, and re-keys what uses them, as
e-graphs do (Willsey et al., "egg", POPL 2021), so that everything behind a merged tensor closes without evaluation.
Every rule that is applied, and every merge, is kept with its reason (:mod:`graphcheck.kernel.terms.why`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.files.contents import Contents
from graphcheck.kernel.terms import constants
from graphcheck.kernel.terms.functions import Function, function
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.verbs import (
    Const,
    Contract,
    Ew,
    Leaf,
    Move,
    Opaque,
    Rows,
    Sum,
    Term,
    Verb,
    ranged,
    reduces,
)
from graphcheck.kernel.terms.why import Congruence, Why, distinct
from graphcheck.kernel.values.gather import picked

Operand = tuple[int, Map | None]
NAN = ("nan", "inf")  # the leaf of two symbols
# What a rule finds: its number (0: not worth a note), and the class of the result or the operands in normal form.
Found = tuple[int, int | Sequence[Any]]


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Rule:
    """One or several identities: the name of their file, and what ``find`` (store, operands, what stands beside them) makes of
    the operands, or None; ``of`` are the elementwise functions that it is for (none named: all)."""

    name: str
    find: Callable[..., Found | None]
    of: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Rules:
    """What a store takes two expressions for one by, beyond equal keys (:mod:`graphcheck.kernel.terms.rules` has the choices).

    Attributes:
        flatten: (sources, map) Movement of movement as one.
        neginf: (verb, operands, size) Whether -inf may stand in the result of a verb.
        ew: (views, function, size) As an elementwise function is asked for.
        placed: (views, function, size) Once its operands stand as they are kept.
        contract: ((a, b), verb).
        rows: ((a,), function, rows, k) Sums, and functions of a row.
    """

    flatten: Callable[[Terms, tuple[int, ...], Map], tuple[tuple[int, ...], Map]]
    neginf: Callable[[Terms, Verb, tuple[int, ...], int], bool]
    ew: tuple[Rule, ...]
    placed: tuple[Rule, ...] = ()
    contract: tuple[Rule, ...]
    rows: tuple[Rule, ...]

    def of(self, fn: str) -> tuple[Function, tuple[Rule, ...], tuple[Rule, ...]]:
        """The record of an elementwise function, and the rules for it; raises :class:`graphcheck.errors.UnknownFunction`."""
        ew, placed = (tuple(r for r in rules if not r.of or fn in r.of) for rules in (self.ew, self.placed))
        return function(fn), ew, placed


def _place(view: Operand) -> tuple[int, bytes]:
    return view[0], view[1].key if view[1] else b""


class Terms:
    """The store of classes, under the ``rules`` it is given; ``contents`` and ``maps`` may be shared with other stores."""

    def __init__(self, rules: Rules, *, contents: Contents | None = None, maps: Maps | None = None, coarsest: int = 0) -> None:
        self.contents, self.coarsest = contents or Contents(), coarsest  # floats of fewer bits count as of so many
        self.maps, self.rules = maps or Maps(), rules
        self._of: dict[str, tuple[Function, tuple[Rule, ...], tuple[Rule, ...]]] = {}  # by elementwise function
        self.terms: list[Term] = []
        self.depth: list[tuple[int, int]] = []  # (contractions, verbs) below a class
        self.neginf: list[bool] = []  # may hold -inf
        self.arrays: dict[int, np.ndarray] = {}  # class of a constant -> its flat values
        self.precision: dict[int, int] = {}  # bits of the finest type that a constant is stored in; integers are exact
        self.nan: set[int] = set()  # classes in which a NaN or +inf of a constant stands
        self.integers: dict[int, tuple[float, float]] = {}  # classes of integers of a type, with its ends
        self._keys: dict[tuple[Any, ...], int] = {}
        self._asked: dict[tuple[Any, ...], tuple[int, tuple[str, ...]]] = {}  # what ew gave since the last merge, by which rules
        self._moved: dict[tuple[int, Map, int | None], int] = {}  # what a map makes of a constant
        self._parent: list[int] = []
        self._users: list[list[int]] = []
        self._constant_like: dict[int, bool] = {}
        self.joined: list[int] = []  # 1: joined of several, or padded; n + 1: n elementwise functions behind that; 0: no such
        self.unjoined: dict[tuple[int, Map], int | None] = {}  # what movement of these is inside of them (rules/layout.py)
        self.centred: set[int] = set()  # classes that had the mean of each row taken off, by an identity
        self.applied: list[str] = []  # rules, as they were applied
        self.joins: list[tuple[int, int, Why]] = []  # merges, as they were asked for, with their reasons
        self.replaced: dict[int, Term] = {}  # what a class was made of before a merge gave it a better term
        self.on_merge: Callable[[int, int], None] | None = None  # told (kept, given up) at every merge

    @property
    def functions(self) -> Collection[str]:
        """The elementwise functions that were asked for."""
        return self._of.keys()

    # -- classes -------------------------------------------------------------------------------------------------

    def find(self, cls: int) -> int:
        """The representative of a class."""
        while self._parent[cls] != cls:
            self._parent[cls] = self._parent[self._parent[cls]]
            cls = self._parent[cls]
        return cls

    def term(self, cls: int) -> Term:
        """What computes the class, operands up to date."""
        term = self.terms[self.find(cls)]
        args = tuple([self.find(a) for a in term.args])
        return term if args == term.args else Term(term.verb, args, term.size)

    def users(self, cls: int) -> list[int]:
        """The classes that have it as an operand, as they were made."""
        return self._users[self.find(cls)]

    def size(self, cls: int) -> int:
        """Number of elements of a class."""
        return self.terms[cls].size

    def _intern(self, make: Callable[..., Verb], params: tuple[Any, ...], args: tuple[int, ...], size: int) -> int:
        key = (make, params, args, size)  # a tuple is found ten times as fast as the verb that it becomes
        found = self._keys.get(key)
        if found is not None:
            return self.find(found)
        cls, verb = len(self.terms), make(*params)
        self.neginf.append(self.rules.neginf(self, verb, args, size))  # first: where it is not known there is no class
        self._keys[key] = cls
        self.terms.append(Term(verb, args, size))
        self._parent.append(cls)
        self._users.append([])
        joins = contractions = height = 0
        for arg in args:
            joins = max(joins, self.joined[arg]) if make is Move or make is Ew else 0
            below = self.depth[arg]
            contractions, height = max(contractions, below[0]), max(height, below[1])
        self.joined.append(1 if make is Move and (len(args) > 1 or params[0].has_zero) else joins + (make is Ew and joins > 0))
        self.depth.append((contractions + (make is Contract), height + 1))
        if (make is Leaf and params == (NAN,)) or (self.nan and any(a in self.nan for a in args)):
            self.nan.add(cls)
        for arg in set(args):
            self._users[arg].append(cls)
        return cls

    def merge(self, a: int, b: int, why: Why) -> int:
        """Join two classes proved equal, and everything that then has the same key; returns the representative."""
        asked, work = a, [(a, b, why)]
        while work:
            join = work.pop()
            a, b = self.find(join[0]), self.find(join[1])
            if a == b:
                continue
            self.joins.append(join)
            if self._rank(b) < self._rank(a):
                a, b = b, a
            self._parent[b] = a
            self._asked.clear()  # what is known of operands has changed
            users, self._users[b] = self._users[b], []
            if self._becomes_move(a, b):
                self.replaced.setdefault(a, self.terms[a])
                self.terms[a] = self.terms[b]
                users, self._users[a] = users + self._users[a], []
            if self.on_merge is not None:
                self.on_merge(a, b)
            for user in users:
                before = len(self.applied)
                again = self.rebuild(user)
                if again is not None and self.find(again) != self.find(user):
                    now = [(c, self.find(c)) for c in self.terms[user].args if self.find(c) != c]
                    work.append((again, user, Congruence((join[:2], *now), distinct(self.applied[before:]))))
            self._users[a] += users
        return self.find(asked)

    def _becomes_move(self, kept: int, gone: int) -> bool:
        """Whether the class kept is better known as the movement that the other one is, since users look through movement."""
        term = self.terms[gone]
        known = kept in self.arrays or isinstance(self.terms[kept].verb, (Move, Leaf))
        return not known and isinstance(term.verb, Move) and all(self.find(a) < kept for a in term.args)

    def _rank(self, cls: int) -> tuple[bool, bool, int]:
        verb = self.terms[cls].verb
        return cls not in self.arrays, isinstance(verb, Opaque) and ranged(verb.key), cls

    def rebuild(self, cls: int) -> int | None:
        """The class of the same verb on the operands' present representatives."""
        term = self.terms[cls]
        return self.make(term, [self.find(a) for a in term.args]) if term.args else None

    def make(self, term: Term, args: Sequence[int]) -> int:
        """The class of a term's verb on other operands."""
        match term.verb:
            case Move(map_):
                return self.move(args, map_)
            case Ew(fn, maps):
                return self.ew(fn, list(zip(args, maps, strict=True)), term.size)
            case Contract(batches, m, n, k, kn):
                return self.contract(args[0], args[1], batches, m, n, k, kn)
            case Sum(rows, k):
                return self.sum(args[0], rows, k)
            case Rows(fn, rows, k):
                return self.rows(fn, args[0], rows, k)
            case verb:
                return self._intern(type(verb), (verb.key,), tuple(args), term.size)

    # -- verbs ---------------------------------------------------------------------------------------------------

    def leaf(self, key: tuple[Any, ...], size: int) -> int:
        """A free tensor known by ``key``."""
        return self._intern(Leaf, (key,), (), size)

    def const(self, array: np.ndarray, bits: int | None = None) -> int:
        """A constant; NaN and +inf in it are free symbols. A constant with one value throughout is a scalar.

        ``bits`` is the precision it is stored in, if not its type's; 0 for a number that no graph holds.
        """
        flat = array.reshape(-1)
        bits = constants.significant_bits(flat.dtype) if bits is None else bits
        bits = max(bits, self.coarsest) if bits else 0
        if flat.size > 1 and flat.dtype != object and constants.uniform(flat):
            return self.move((self.const(flat[:1], bits),), self.maps.spread(flat.size))
        digest = constants.key(flat, self.contents)
        found = self._keys.get((Const, (digest,), (), flat.size))
        if found is not None:
            cls = self.find(found)
            self.precision[cls] = max(self.precision.get(cls, 0), bits)
            return cls
        values = flat.astype(np.float64) if flat.dtype == bool or flat.dtype.kind == "V" else flat
        has_neginf = False
        if values.dtype.kind not in "iu" and not self.contents.finite(values):
            wide = values.astype(np.float64)
            if not (np.isfinite(wide) | np.isneginf(wide)).all():
                return self._symbols(wide, bits)
            has_neginf = True
        cls = self._intern(Const, (digest,), (), flat.size)
        self.arrays[cls], self.precision[cls] = values, bits
        self.neginf[cls] = has_neginf
        return cls

    def _symbols(self, flat: np.ndarray, bits: int) -> int:
        """A constant that holds NaN or +inf: whatever they are, they may be put somewhere, and nothing be computed of them."""
        bad = np.isnan(flat), np.isposinf(flat)
        rest = self.const(np.where(bad[0] | bad[1], 0.0, flat), bits)
        symbols = self.leaf(NAN, 2)
        index = np.where(bad[0], flat.size + 1, np.where(bad[1], flat.size + 2, np.arange(1, flat.size + 1)))
        return self.move((rest, symbols), self.maps.intern(index))

    def move(self, sources: Sequence[int], map_: Map) -> int:
        """Pick elements of the ``sources``, laid end to end, by the map; in normal form."""
        sources = tuple(self.find(s) for s in sources)
        sources, map_ = self.rules.flatten(self, sources, map_)
        if not sources or map_.empty:
            return self.const(np.zeros(1, np.float32)) if map_.size == 1 else self._zeros(map_.size)
        if len(sources) == 1 and map_.identity and map_.size == self.size(sources[0]):
            return sources[0]
        if len(sources) == 1 and sources[0] in self.arrays and self.size(sources[0]) > 1:
            key = sources[0], map_, self.precision.get(sources[0])  # a weight that each step of a recurrence turns is turned once
            if key not in self._moved:
                array = self.arrays[sources[0]]
                limits.current().check_elements(map_.size, "a table of movement")
                moved = self.contents.moved(array, map_.pieces, lambda: picked([array], map_))
                self._moved[key] = self.const(moved, key[2])
            return self.find(self._moved[key])
        if all(s in self.arrays for s in sources) and (len(sources) > 1 or map_.has_zero):
            arrays = [self.arrays[s] for s in sources]
            dtype = np.result_type(*(a.dtype for a in arrays))
            if all(constants.fits(a, dtype) for a in arrays):
                whole = picked([a.astype(dtype, copy=False) for a in arrays], map_)
                return self.const(whole, max(self.precision.get(s, 0) for s in sources))
        return self._intern(Move, (map_,), sources, map_.size)

    def _zeros(self, size: int) -> int:
        zero = self.const(np.zeros(1, np.float32))
        return self._intern(Move, (self.maps.spread(size),), (zero,), size)

    def ew(self, fn: str, operands: Sequence[Operand], size: int) -> int:
        """Elementwise ``fn``; each operand is (class, map to ``size`` elements) with None for as-is or a scalar.

        Raises :class:`graphcheck.errors.UnknownFunction` for a function that has no record.
        """
        key = (fn, size, *operands)
        if (known := self._asked.get(key)) is None:
            before = len(self.applied)
            cls = self._ew(fn, operands, size)
            self._asked[key] = cls, tuple(self.applied[before:])
            return cls
        self.applied += known[1]
        return self.find(known[0])

    def _ew(self, fn: str, operands: Sequence[Operand], size: int) -> int:
        record, rules, _ = self._of.get(fn) or self._of.setdefault(fn, self.rules.of(fn))
        assert record.arity in (0, len(operands))
        views = [self._view(cls, map_, size) for cls, map_ in operands]
        for c, m in views:
            assert self.terms[c].size in (1, size) if m is None else m.size == size
        found = self._ruled(rules, views, fn, size)
        return found if isinstance(found, int) else self.placed(fn, found, size)

    def _ruled(self, rules: tuple[Rule, ...], operands: Sequence[Any], *what: Any) -> Any:
        """The class that a rule gives, or the operands that are left of all of them; rules are noted."""
        for rule in rules:
            if (found := rule.find(self, operands, *what)) is not None:
                if found[0]:
                    self.applied.append(f"{rule.name} {found[0]}")
                if isinstance(found[1], int):
                    return found[1]
                operands = found[1]
        return operands

    def whole(self, cls: int, map_: Map | None) -> Map | None:
        """None for a map that gives the class as it is."""
        return None if map_ is not None and map_.identity and map_.size == self.size(cls) else map_

    def _view(self, cls: int, map_: Map | None, size: int) -> Operand:
        cls = self.find(cls)
        term = self.terms[cls]
        moved = term.verb if isinstance(term.verb, Move) else None
        if map_ is None and moved is None:
            return cls, None
        if map_ is None and self.size(cls) == 1 < size and moved is not None:
            map_ = self.maps.spread(size)  # a scalar picked from a tensor is seen at every place
        if moved is not None and len(term.args) == 1:
            inner = self.find(term.args[0])
            composed = self.maps.compose(moved.map, map_)
            assert composed is not None
            if self.size(inner) == 1 and not composed.has_zero:
                return inner, None
            if not composed.has_zero:
                return inner, self.whole(inner, composed)
        if self.size(cls) == 1 and (map_ is None or not map_.has_zero):
            return cls, None
        if map_ is not None and map_.has_zero:
            return self.move((cls,), map_), None
        return cls, self.whole(cls, map_)

    def placed(self, fn: str, views: Sequence[Operand], size: int) -> int:
        """Elementwise ``fn`` on operands that stand as they are to be kept."""
        record, _, rules = self._of.get(fn) or self._of.setdefault(fn, self.rules.of(fn))
        views = self._ruled(rules, views, fn, size) if rules else views
        if isinstance(views, int):
            return views
        if record.commutative:
            views = sorted(views, key=_place)
        return self._intern(Ew, (fn, tuple([m for _, m in views])), tuple([c for c, _ in views]), size)

    def constant_like(self, cls: int) -> bool:
        """Whether a class is computed from constants alone."""
        known = self._constant_like
        if (found := known.get(self.find(cls))) is not None:
            return found
        for c in self.order([cls], known.__contains__):
            if c not in known:
                term = self.terms[c]
                known[c] = c in self.arrays or (not isinstance(term.verb, Leaf) and all(known[self.find(a)] for a in term.args))
        return known[self.find(cls)]

    def scalar(self, cls: int) -> float | None:
        """The value of a scalar constant, if the class is one (also one spread over a tensor)."""
        term = self.terms[self.find(cls)]
        if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero:
            cls = term.args[0]
        array = self.arrays.get(self.find(cls))
        return float(array[0]) if array is not None and array.size == 1 else None

    def seen(self, view: Operand, size: int) -> int:
        """The class of a view at ``size`` places."""
        cls, map_ = view
        if map_ is not None:
            return self.move((cls,), map_)
        return cls if self.size(cls) == size else self.move((cls,), self.maps.spread(size))

    def contract(self, a: int, b: int, batches: tuple[int, int], m: int, n: int, k: int, kn: bool = False) -> int:
        """[Ba, m, k] x [Bb, n, k] -> [B, m, n]; ``batches`` = (Ba, Bb), one of them may be 1.

        With ``kn`` the second operand is [Bb, k, n]: the way most weights are stored, and how constants are kept.
        """
        a, b = self.find(a), self.find(b)
        if kn != (b in self.arrays):
            b, kn = self.move((b,), self.maps.transpose((batches[1], *((k, n) if kn else (n, k))), (0, 2, 1))), not kn
        found = self._ruled(self.rules.contract, (a, b), Contract(batches, m, n, k, kn))
        if isinstance(found, int):
            return found
        return self._intern(Contract, (batches, m, n, k, kn), tuple(found), max(batches) * m * n)

    def sum(self, a: int, rows: int, k: int) -> int:
        """[rows, k] -> [rows]."""
        found = self._ruled(self.rules.rows, (self.find(a),), "sum", rows, k)
        return found if isinstance(found, int) else self._intern(Sum, (rows, k), tuple(found), rows)

    def rows(self, fn: str, a: int, rows: int, k: int) -> int:
        """Apply a row function to each row of [rows, k]; max and min give one value a row, the others k."""
        found = self._ruled(self.rules.rows, (self.find(a),), fn, rows, k)
        if isinstance(found, int):
            return found
        return self._intern(Rows, (fn, rows, k), tuple(found), rows if reduces(fn) else rows * k)

    def opaque(self, key: tuple[Any, ...], args: Sequence[int], size: int) -> int:
        """An unknown function, known by ``key``, of its operands."""
        return self._intern(Opaque, (key,), tuple(self.find(a) for a in args), size)

    # -- walks ---------------------------------------------------------------------------------------------------

    def order(self, roots: Sequence[int], stop: Callable[[int], bool] = lambda _: False) -> list[int]:
        """Classes below ``roots`` in order of evaluation, not looking below those for which ``stop`` holds."""
        seen: set[int] = set()
        result: list[int] = []
        stack = [(self.find(r), False) for r in reversed(roots)]
        while stack:
            cls, done = stack.pop()
            if done:
                result.append(cls)
                continue
            if cls in seen:
                continue
            seen.add(cls)
            stack.append((cls, True))
            if not stop(cls):
                stack += [(self.find(a), False) for a in self.terms[cls].args]
        return result
