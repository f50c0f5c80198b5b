"""The error probability of a proof by fingerprints, computed from tracked degrees and coefficient heights.

For two different classes the difference of their values is a nonzero rational function of the free symbols (leaves, and what
uninterpreted functions give). Modulo one random prime and at one random point its numerator vanishes with probability at most

    d / p  +  B / p'

d: its degree (Schwartz-Zippel), p >= 2**21; B: how many primes of the range can divide all its coefficients, at most its height
in bits / 21; p' = 140,336 primes to draw from. k primes multiply. The total is that times the number of pairs that could have
been confused: pairs of fingerprints, and pairs of arguments of uninterpreted functions; plus 2**-128 a pair for the hash.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from graphcheck.domains.residues import LOW, PRIME_COUNT
from graphcheck.domains.terms import Terms

_SYMBOLIC = frozenset({"add", "mul", "recip"})


@dataclasses.dataclass(frozen=True, slots=True)
class Degree:
    """Degrees of numerator and denominator over the free symbols, and the height of the coefficients in bits."""

    num: float
    den: float
    height: float


class Degrees:
    """Degrees of the classes of a store, by class."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self._known: dict[int, Degree] = {}

    def of(self, cls: int, shared: frozenset[int] | set[int] = frozenset()) -> Degree:
        """The degree of a class; classes in ``shared`` are free symbols."""
        for c in self.terms.order([cls], lambda c: c in self._known or c in shared):
            if c not in self._known:
                self._known[c] = Degree(1, 0, 1) if c in shared and c not in self.terms.arrays else self._degree(c)
        return self._known[self.terms.find(cls)]

    def _degree(self, cls: int) -> Degree:
        term = self.terms.terms[cls]
        args = [self._known[self.terms.find(a)] for a in term.args]
        if term.kind == "const":
            return Degree(0, 0, self._height(cls))
        if term.kind == "move":
            return Degree(*(max(getattr(a, f) for a in args) for f in ("num", "den", "height")))
        if term.kind == "sum":
            return _sum(args[0], term.params[1])
        if term.kind == "contract":
            return _sum(_product(args[0], args[1]), term.params[3])
        if term.kind == "ew" and term.params[0] in _SYMBOLIC:
            fn = term.params[0]
            if fn == "recip":
                inner = self._symbol(self.terms.find(term.args[0]))
                return Degree(1, 0, 1) if inner else Degree(args[0].den, args[0].num, args[0].height)
            return _product(*args) if fn == "mul" else _add(*args)
        return Degree(1, 0, 1)  # a leaf, or the value of an uninterpreted function

    def _symbol(self, cls: int) -> bool:
        """Whether a class is a Moebius function of one uninterpreted value: then its inverse serves as the free symbol."""
        while True:
            term = self.terms.terms[cls]
            if term.kind in ("leaf", "rows") or (term.kind == "ew" and term.params[0] not in _SYMBOLIC):
                return True
            if term.kind != "ew" or any(m is not None for m in term.params[1]):
                return False
            computed = [self.terms.find(a) for a in term.args if self.terms.find(a) not in self.terms.arrays]
            if len(computed) != 1:
                return False
            cls = computed[0]

    def _height(self, cls: int) -> float:
        array = self.terms.arrays[cls]
        if array.dtype.kind in "iu":
            return float(np.log2(max(float(np.abs(array.astype(np.float64)).max(initial=1)), 1))) + 1
        values = np.abs(array.astype(np.float64))
        values = values[np.isfinite(values) & (values > 0)]
        if not values.size:
            return 1.0
        precision = {2: 11, 4: 24}.get(array.dtype.itemsize, 53)
        return math.log2(float(values.max())) - math.log2(float(values.min())) + precision + 1


def _product(a: Degree, b: Degree) -> Degree:
    return Degree(a.num + b.num, a.den + b.den, a.height + b.height)


def _add(a: Degree, b: Degree) -> Degree:
    height = (a.height + b.height if a.den or b.den else max(a.height, b.height) + min(a.height, b.height)) + 1
    return Degree(max(a.num + b.den, b.num + a.den), a.den + b.den, height)


def _sum(a: Degree, k: int) -> Degree:
    if not a.den:
        return Degree(a.num, 0, a.height + math.log2(max(k, 1)))
    return Degree(a.num + (k - 1) * a.den, k * a.den, k * a.height + math.log2(max(k, 1)))


def per_prime(degree: Degree) -> float:
    """The probability of a false agreement of two classes of this degree modulo one prime."""
    d = degree.num + degree.den
    return min(1.0, d / LOW + (2 * degree.height / 21) / PRIME_COUNT)


def log_probability(degree: Degree, primes: int, fingerprints: int, hashed: int) -> float:
    """log2 of the bound on the probability that anything at all was falsely merged in a run."""
    pairs = fingerprints * (fingerprints - 1) / 2 + hashed * (hashed - 1) / 2
    if pairs <= 0:
        return -math.inf
    q = primes * math.log2(max(per_prime(degree), 2.0**-60))
    return math.log2(pairs) + max(q, -128.0) + 1


def primes_needed(degree: Degree, fingerprints: int, hashed: int, target: float, most: int = 16) -> int | None:
    """How many primes keep the bound under ``target``; None if more than ``most``."""
    for k in range(3, most + 1):
        if log_probability(degree, k, fingerprints, hashed) <= math.log2(target):
            return k
    return None
