"""The error probability of a proof by fingerprints, computed from tracked degrees and coefficient heights.

For two different classes the difference of their values is a nonzero rational function of the free symbols (leaves, and what
uninterpreted functions give). Modulo one random prime and at one random point its numerator vanishes with probability at most

    d / p  +  B / p'

d: its degree (Schwartz-Zippel), p >= 2**21; B: how many primes of the range can divide a coefficient, at most its height
in bits / 21; p' = 140,336 primes to draw from. k primes multiply. The bound is the sum of that over all pairs that could have
been confused: fingerprints of one size, and arguments of one uninterpreted function; plus 2**-128 a pair for the hash.
docs/decisions/0004 says why the degrees and heights below are upper bounds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum, Verb
from graphcheck.kernel.values.residues import LOW, PRIME_COUNT

_PART = 1 << 16  # elements of a constant at a time
_MOST_ATOMS = 512  # denominators of one class; beyond, nothing is claimed of it

Poles = Mapping[tuple[int, ...], float]


@dataclasses.dataclass(frozen=True, slots=True)
class Degree:
    """Every element is P / D. P has degree ``num``, coefficients that are multiples of 2**lo, and absolute values of them that
    add to at most 2**hi; lo <= 0 <= hi. D is a product of ``atoms``, what was inverted: class -> (exponent, how many of its
    elements at most; where that is all of them, D holds each with just that exponent). ``poles``: inverted Moebius functions
    of one symbol, which count as symbols, by their steps and scalars, with the bits of those."""

    num: float = 0.0
    lo: float = 0.0
    hi: float = 0.0
    atoms: Mapping[int, tuple[float, float]] = dataclasses.field(default_factory=dict)
    poles: Poles = dataclasses.field(default_factory=dict)


SYMBOL = Degree(1.0)
_BY_EXP = (-1,)  # the pole 1 / (1 + Exp) of Tanh and of a Softmax of two: no class is that of its 1
_STEPS = {"add": -2, "mul": -3, "recip": -4}  # c + c s and c (c + s) have the same scalars, and not the same poles


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What one class brings to a difference with another one: degree and height in bits."""

    degree: float
    height: float

    @property
    def chance(self) -> float:
        """Its part of the probability that the difference vanishes modulo one prime."""
        return self.degree / LOW + self.height / 21 / PRIME_COUNT


class Degrees:
    """Degrees of the classes of a store, by class; those for which ``free`` holds are free symbols."""

    def __init__(self, terms: Terms, free: frozenset[int] | set[int] = frozenset()) -> None:
        self.terms, self.free = terms, free
        self._known: dict[int, Degree] = {}
        self._atoms: dict[int, tuple[float, float, int]] = {}  # degree, height and elements of what was inverted

    def of(self, cls: int) -> Degree:
        """The degree of a class."""
        for c in self.terms.order([cls], lambda c: c in self._known or c in self.free):
            if c not in self._known:
                self._known[c] = SYMBOL if c in self.free and c not in self.terms.arrays else self._at_least(c)
        return self._known[self.terms.find(cls)]

    def size(self, *classes: int) -> Size:
        """What a class, or the larger of several, brings to a difference."""
        sizes = [self._size(self.of(c)) for c in classes]
        return Size(max(s.degree for s in sizes), max(s.height for s in sizes))

    def _at_least(self, cls: int) -> Degree:
        """No less than a symbol's: a class that was merged may be drawn anew as one."""
        d = self._degree(cls)
        if cls in self.terms.arrays:
            return d
        return dataclasses.replace(d, num=max(d.num, 1.0), lo=min(d.lo, 0.0), hi=max(d.hi, 0.0))

    def _size(self, d: Degree) -> Size:
        degree, height = self._denominator(d.atoms)
        total = (3 + len(d.poles)) * (d.num + degree) + degree
        return Size(total, max(d.hi, 0) - min(d.lo, 0) + d.num * sum(d.poles.values()) + 2 * height + 2)

    def _denominator(self, atoms: Mapping[int, tuple[float, float]]) -> tuple[float, float]:
        """Degree and height of a product of atoms."""
        rows = [(m * n, *self._atoms[c][:2]) for c, (m, n) in atoms.items()]
        return sum(n * d for n, d, _ in rows), sum(n * h for n, _, h in rows)

    def _degree(self, cls: int) -> Degree:
        term = self.terms.terms[cls]
        args = [self._known[self.terms.find(a)] for a in term.args]
        match term.verb:
            case Const():
                return _constant(self.terms.arrays[cls])
            case Move():
                return args[0] if len(args) == 1 else self._joined(args, 0.0)
            case Sum(_, k):
                return self._sum(args[0], k)
            case Contract(k=k):
                return self._sum(self._product(*args), k)
            case Ew("recip"):
                return self._inverse(self.terms.find(term.args[0]), args[0])
            case Ew("mul"):
                return self._product(*args)
            case Ew("add"):
                return self._joined(args, 1.0)
            case Ew(fn) if function(fn).rational:
                raise NotImplementedError(f"the degree of {fn}")
        if _of_exp(term.verb):
            return Degree(1.0, poles={_BY_EXP: 2.0})
        return SYMBOL  # a leaf, or the value of an uninterpreted function

    def _product(self, a: Degree, b: Degree) -> Degree:
        atoms = dict(a.atoms)
        for c, (m, n) in b.atoms.items():
            have = atoms.get(c, (0.0, 0.0))
            atoms[c] = (have[0] + m, min(self._atoms[c][2], have[1] + n))
        filled = {c: mn for c, mn in atoms.items() if not (self._full(c, a.atoms) and self._full(c, b.atoms))}
        degree, height = self._denominator({c: mn for c, mn in filled.items() if self._full(c, atoms)})
        return _capped(Degree(a.num + b.num + degree, a.lo + b.lo, a.hi + b.hi + height, atoms, {**a.poles, **b.poles}))

    def _full(self, atom: int, atoms: Mapping[int, tuple[float, float]]) -> bool:
        """Whether all elements of the atom stand in a product, with the same exponent, or none does."""
        return atom not in atoms or atoms[atom][1] >= self._atoms[atom][2]

    def _joined(self, parts: list[Degree], bits: float) -> Degree:
        """One of several values (no bits), or the sum of two (one bit): all over one denominator."""
        atoms: dict[int, tuple[float, float]] = {}
        for part in parts:
            for c, (m, n) in part.atoms.items():
                have = atoms.get(c, (0.0, 0.0))
                atoms[c] = (max(have[0], m), min(self._atoms[c][2], have[1] + n))
        return self._over(parts, atoms, bits)

    def _over(self, parts: list[Degree], atoms: dict[int, tuple[float, float]], bits: float) -> Degree:
        """The parts brought to the denominator ``atoms``, each multiplied by what it lacks of it (by all, where not known)."""
        num = lo = hi = -math.inf
        poles: dict[tuple[int, ...], float] = {}
        for part in parts:
            lacking = {
                c: (m - part.atoms.get(c, (0.0, 0.0))[0] * self._full(c, part.atoms), n) for c, (m, n) in atoms.items()
            }
            degree, height = self._denominator(lacking)
            num, lo, hi = max(num, part.num + degree), max(lo, -part.lo), max(hi, part.hi + height)
            poles |= part.poles
        return _capped(Degree(num, -lo, hi + bits, atoms, poles))

    def _sum(self, a: Degree, k: int) -> Degree:
        atoms = {c: (m, min(self._atoms[c][2], k * n)) for c, (m, n) in a.atoms.items()}
        return self._over([a], atoms, math.log2(max(k, 1)))

    def _inverse(self, cls: int, a: Degree) -> Degree:
        pole = self._pole(cls)
        if pole is not None:
            return Degree(1.0, poles={pole[0]: pole[1]})
        degree, height = self._denominator(a.atoms)
        self._atoms[cls] = (a.num, a.hi - a.lo, self.terms.size(cls))
        return Degree(degree, -a.lo, height - a.lo, {cls: (1.0, 1.0)}, a.poles)

    def _pole(self, cls: int) -> tuple[tuple[int, ...], float] | None:
        """The steps and scalars of a Moebius function of one uninterpreted value and their bits, if the class is one."""
        scalars: list[int] = []
        bits = 0.0
        while True:
            term = self.terms.terms[cls]
            verb = term.verb
            if _of_exp(verb) and cls not in self.free:
                return (*scalars, *_BY_EXP), bits + 3
            if cls in self.free or isinstance(verb, (Leaf, Rows)):
                return tuple(scalars), bits
            if not isinstance(verb, Ew):
                return None
            if not function(verb.fn).rational:
                return tuple(scalars), bits
            if any(m is not None for m in verb.maps):
                return None
            args = [self.terms.find(a) for a in term.args]
            computed = [a for a in args if a not in self.terms.arrays]
            if len(computed) != 1 or any(self.terms.size(a) != 1 for a in args if a not in computed):
                return None
            scalars.append(_STEPS[verb.fn])
            for a in args:
                if a != computed[0]:
                    scalar = self._known[a]
                    scalars.append(a)
                    bits += max(scalar.hi, 0) - min(scalar.lo, 0) + 1
            cls = computed[0]


def _capped(d: Degree) -> Degree:
    return d if len(d.atoms) <= _MOST_ATOMS else Degree(d.num, 0, math.inf)


def _constant(array: np.ndarray) -> Degree:
    """Bounds on the bits of a constant; exact for small ones."""
    if array.dtype.kind in "iu":
        return Degree(0.0, 0.0, max(int(array.max(initial=0)).bit_length(), int(array.min(initial=0)).bit_length(), 0))
    flat, kept = array.reshape(-1), [np.zeros(0)]
    for at in range(0, flat.size, _PART):
        part = np.abs(flat[at : at + _PART].astype(np.float64))
        part = part[np.isfinite(part) & (part > 0)]
        kept.append(part if part.size <= 1024 else np.repeat([part.min(), part.max()], 1024))
    values = np.concatenate(kept)
    if not values.size:
        return Degree()
    precision = {2: 11, 4: 24}.get(array.dtype.itemsize, 53) if array.dtype.kind == "f" else 53
    hi = math.log2(float(values.max())) + 1e-9
    if values.size > 1024:
        return Degree(0.0, math.frexp(float(values.min()))[1] - precision, hi)
    mantissa, exponent = np.frexp(values)
    whole = (mantissa * 2.0**53).astype(np.int64)
    return Degree(0.0, float((exponent - 53 + np.log2(whole & -whole)).min()), hi)


class Risk:
    """What a run may confuse: fingerprints by size, and arguments by uninterpreted function.

    With a number of ``primes``, ``so_far`` is the bound for them at any time, a little larger than that of :meth:`log2`.
    """

    def __init__(self, degrees: Degrees, primes: int = 0) -> None:
        self.degrees, self.terms, self._primes = degrees, degrees.terms, primes
        self.so_far = 0.0
        self._most: dict[Any, tuple[float, float]] = {}  # of each group the largest chance and the count
        self.worst = Size(0.0, 0.0)
        self._groups: dict[Any, list[tuple[float, float]]] = {}
        self._seen: set[int] = set()

    def compared(self, *classes: int, among: Any = None) -> None:
        """Classes whose fingerprints are compared with those of their size (or of a group of their own)."""
        for cls in classes:
            self._add(("size", self.terms.size(cls)) if among is None else ("pair", among), self.degrees.size(cls), 1)

    def evaluated(self, classes: Iterable[int]) -> None:
        """Classes that are evaluated: arguments of uninterpreted functions are confused at will."""
        for cls in classes:
            if cls in self._seen:
                continue
            self._seen.add(cls)
            name = hashed(self.terms, cls)
            term = self.terms.terms[cls]
            if name is not None and term.args:
                count = 1 if isinstance(term.verb, Opaque) else 2 * max(self.terms.size(a) for a in (cls, *term.args))
                size = self.degrees.size(*term.args)
                if _of_exp(term.verb):  # twice the argument, or the difference of two
                    size = Size(2 * size.degree, 2 * size.height + 2)
                elif isinstance(term.verb, Rows):  # less the mean of the row
                    size = Size(size.degree, size.height + 2 * math.log2(max(term.verb.k, 1)) + 2)
                self._add(name, size, count)  # elements and their negatives, or elements and multisets of rows

    def _add(self, group: Any, size: Size, count: float) -> None:
        self._groups.setdefault(group, []).append((size.chance, count))
        if self._primes:
            largest, before = self._most.get(group, (0.0, 0.0))
            largest = max(largest, size.chance)
            self._most[group] = largest, before + count
            self.so_far += _confused(largest, before, count, self._primes)
        self.worst = Size(max(self.worst.degree, size.degree), max(self.worst.height, size.height))

    def log2(self, primes: int) -> float:
        """log2 of the bound on the probability that anything was confused, modulo so many primes."""
        total = 0.0
        for rows in self._groups.values():
            before = 0.0
            for chance, count in sorted(rows):  # the larger of two brings at least half of a pair's chance
                total += _confused(chance, before, count, primes)
                before += count
        return math.log2(total) if total > 0 else -math.inf

    def primes(self, target: float, most: int) -> int | None:
        """How many primes keep the bound under ``target``; None if more than ``most``."""
        return next((k for k in range(3, most + 1) if self.log2(k) <= math.log2(target)), None)


def _confused(chance: float, before: float, count: float, primes: int) -> float:
    """A bound for ``count`` more values beside those ``before``, none of which brings more than ``chance``."""
    pairs = count * (before + count) if count > 1 else before
    return pairs * (min(2 * chance, 1.0) ** primes + 2.0**-128)


def _of_exp(verb: Verb) -> bool:
    """Whether a function is evaluated as 2 / (1 + Exp) - 1, or as 1 / (1 + Exp)."""
    return (isinstance(verb, Ew) and verb.fn == "tanh") or (isinstance(verb, Rows) and (verb.fn, verb.k) == ("softmax", 2))


def hashed(terms: Terms, cls: int) -> str | None:
    """The uninterpreted function that a term applies, if it does."""
    match terms.terms[cls].verb:
        case verb if _of_exp(verb):
            return "ew exp"
        case Rows(fn):
            return f"rows {fn}"
        case Opaque():
            return "opaque"
        case Ew(fn) if not function(fn).rational:
            return f"ew {fn}"
    return None
