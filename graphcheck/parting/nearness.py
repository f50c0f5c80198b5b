"""Tensors of two graphs that only rounding separates, found at one input: a folded BatchNormalization, a re-rounded weight.

Both graphs are evaluated side by side in float64, once as they are and once with noise on the scale of the declared type.
Where a tensor of B comes within a few times that noise of one of A's, A's takes its place and the noise begins anew behind
it, so that each tensor is judged by what the few nodes since the last one did: a wrong epsilon does not hide in what twenty
layers have rounded. It serves to say where graphs part, never to prove that they do not.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.errors import Undecided
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Move, Opaque
from graphcheck.kernel.values.domain import apply
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.parting.budget import work
from graphcheck.parting.difference import SPREAD_FACTOR

MAX_WORK = 5e8  # for both evaluations (see budget.py) of tensors that one graph has alone, since the last that met
_HELD = 30_000_000  # elements of A's tensors that wait for a partner
_COLUMNS = 64  # of a sketch: parts of a tensor that are summed with weights
_LOOSE = 1e-2  # how near a sketch must come for the tensors to be compared, relatively
_LEAST = 3.0  # unit roundoffs of the largest element that are always granted


def near(
    terms: Terms,
    roots: Sequence[tuple[int, int]],
    tensors: tuple[Iterable[int], Iterable[int]],
    inputs: Mapping[tuple[Any, ...], np.ndarray],
    unit: float,
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> dict[int, int]:
    """Classes of B that are one of A's but for rounding, with that, as far as the graphs could be evaluated, and are not
    apart for too long.

    ``tensors`` are the classes of each graph's tensors that may have a partner, ``roots`` the outputs, ``inputs`` by leaf key.
    """
    sides = (set(terms.order([a for a, _ in roots])), set(terms.order([b for _, b in roots])))
    order = _order(terms, roots, sides)
    wanted = [{terms.find(c) for c in side} for side in tensors]
    run = _Run(terms, order, sides, inputs, unit, seed)
    try:
        with np.errstate(all="ignore"):
            for cls in order:
                tick()
                if run.spent > MAX_WORK:
                    break
                run.evaluate(cls)
                if cls in sides[0]:
                    if cls in wanted[0] and cls not in sides[1]:
                        run.wait(cls)
                elif cls in wanted[1] and cls not in run.partners:
                    run.meet(cls)
                run.release(cls)
    except (Undecided, KeyError, MemoryError, IndexError):
        pass  # what was found until then stands
    return run.found


def _order(terms: Terms, roots: Sequence[tuple[int, int]], sides: Sequence[set[int]]) -> list[int]:
    """Classes in order of evaluation: contraction by contraction, what A has before what B alone has."""
    depth: dict[int, int] = {}
    found = terms.order([c for row in roots for c in row])
    for cls in found:
        below = max((depth[terms.find(a)] for a in terms.terms[cls].args), default=0)
        depth[cls] = below + isinstance(terms.terms[cls].verb, Contract)
    return sorted(found, key=lambda cls: (depth[cls], cls not in sides[0]))


class _Run:
    """The values of both evaluations, and A's tensors that wait for a partner."""

    def __init__(
        self,
        terms: Terms,
        order: Sequence[int],
        sides: tuple[set[int], set[int]],
        inputs: Mapping[tuple[Any, ...], np.ndarray],
        unit: float,
        seed: int,
    ) -> None:
        self.terms, self.sides, self.unit = terms, sides, unit
        self.plain = Float64(inputs, bounds=False)
        self.noisy = Float64(inputs, bounds=False, unit=unit, seed=seed)
        self.values: dict[int, tuple[Real, Real]] = {}
        self.waiting: dict[int, list[tuple[int, np.ndarray, Real, float]]] = {}  # by size
        self.held = 0
        self.found: dict[int, int] = {}
        self.partners: dict[int, int] = {}  # what was found, and what is computed alike of it
        self.shared = sides[0] & sides[1]  # classes of A that B has, by now
        self.lent: set[int] = set()  # classes of B that are read, and whose values are those of A's
        self.at = {cls: i for i, cls in enumerate(order)}
        self.done = -1
        self.spent = 0.0  # since the last tensor that met
        self.uses: dict[int, int] = {}
        self.readers: dict[int, list[int]] = {}  # of B alone
        for cls in order:
            for arg in self._args(cls):
                self.uses[arg] = self.uses.get(arg, 0) + 1
                if cls not in sides[0]:
                    self.readers.setdefault(arg, []).append(cls)

    def _args(self, cls: int) -> tuple[int, ...]:
        return tuple(self.terms.find(a) for a in self.terms.terms[cls].args)

    def evaluate(self, cls: int) -> None:
        """The values of a class; those of B that A computes alike need none of their own."""
        self.done = self.at[cls]
        if cls in self.partners:
            if cls in self.lent:
                self.values[cls] = self.values[self.partners[cls]]
                self._drop(self.partners[cls])
            return
        term = self.terms.terms[cls]
        if isinstance(term.verb, Opaque):
            self.values[cls] = (self._unknown(term.verb, cls),) * 2
            return
        args = [self.values[a] for a in self._args(cls)]
        exact = apply(self.terms, self.plain, cls, [a[0] for a in args])
        same = not args or (all(x is y for x, y in args) and isinstance(term.verb, Move))
        if cls not in self.shared:
            self.spent += work(term) * (1 if same else 2)
        same |= cls in self.shared  # there the noise is forgotten
        self.values[cls] = exact, exact if same else apply(self.terms, self.noisy, cls, [a[1] for a in args])

    def _unknown(self, verb: Opaque, cls: int) -> Real:
        """An unknown function of equal operands has equal values: numbers drawn by what it is."""
        args = [self.partners.get(a, a) for a in self._args(cls)]
        digest = hashlib.blake2b(repr((verb.key, args)).encode(), digest_size=8).digest()
        rng = np.random.default_rng(int.from_bytes(digest, "little"))
        return Real(rng.standard_normal(self.terms.size(cls)), np.zeros(1))

    def renew(self, cls: int) -> None:
        """Forget the noise."""
        self.values[cls] = (self.values[cls][0],) * 2

    def wait(self, cls: int) -> None:
        """A tensor of A, to be met by one of B."""
        exact, noisy = self.values[cls]
        self.held += exact.value.size
        same = self.waiting.setdefault(exact.value.size, [])
        same.append((cls, _sketch(exact.value), exact, _apart(exact.value, noisy.value)))
        while self.held > _HELD and len(self.waiting) > 1:  # the smallest sizes have the most tensors
            size = max(self.waiting, key=lambda n: n * len(self.waiting[n]))
            self.waiting[size].pop(0)
            self.held -= size
            if not self.waiting[size]:
                del self.waiting[size]

    def meet(self, cls: int) -> None:
        """A tensor of B: the nearest of A's takes its place, if it is near enough."""
        exact, noisy = self.values[cls]
        x = exact.value
        own, sketch = _apart(x, noisy.value), _sketch(x)
        scale = float(np.abs(sketch).max(initial=0.0))
        floor = _LEAST * self.unit * float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
        best: tuple[float, int, Real] | None = None
        for other, seen, value, noise in reversed(self.waiting.get(x.size, [])):
            if not np.abs(seen - sketch).max(initial=0.0) <= _LOOSE * scale:
                continue
            apart = _apart(x, value.value)
            if apart <= SPREAD_FACTOR * max(own, noise, floor) and (best is None or apart < best[0]):
                best = apart, other, value
        if best is None:
            return
        self.found[cls] = best[1]
        self.values[cls] = best[2], best[2]
        if best[1] in self.values:
            self.renew(best[1])
        self.spent = 0.0
        self._follow(cls, best[1])

    def _follow(self, cls: int, partner: int) -> None:
        """What B computes of a tensor of A's is A's, too, where A computes the same of it."""
        self.partners[cls], met = partner, [cls]
        todo = [(self.at[c], c) for c in self.readers.get(cls, ())]
        heapq.heapify(todo)
        while todo:
            _, cls = heapq.heappop(todo)
            args = [self.partners.get(a, a) for a in self._args(cls)]
            if cls in self.partners or not self.sides[0].issuperset(args):
                continue
            same = self.terms.find(self.terms.make(self.terms.terms[cls], args))
            if same in self.values or self.done < self.at.get(same, -1) < self.at[cls]:  # else its values are gone
                self.partners[cls] = same
                self.shared.add(same)
                met.append(cls)
                for c in self.readers.get(cls, ()):
                    heapq.heappush(todo, (self.at[c], c))
        for cls in met[1:]:
            if any(c not in self.partners for c in self.readers.get(cls, ())):
                self.lent.add(cls)
                self.uses[self.partners[cls]] = self.uses.get(self.partners[cls], 0) + 1

    def release(self, cls: int) -> None:
        """Let go of what nobody reads any more."""
        for arg in self._args(cls):
            self._drop(arg)

    def _drop(self, cls: int) -> None:
        self.uses[cls] -= 1
        if not self.uses[cls]:
            self.values.pop(cls, None)


def _sketch(x: np.ndarray) -> np.ndarray:
    """Weighted sums of parts of a tensor."""
    finite = np.where(np.isfinite(x), x, 0.0)
    weights = np.cos(np.arange(math.ceil(finite.size / _COLUMNS)) * 1.2345 + 0.5)
    padded = np.zeros(weights.size * _COLUMNS)
    padded[: finite.size] = finite
    return np.asarray(weights @ padded.reshape(weights.size, _COLUMNS))


def _apart(x: np.ndarray, y: np.ndarray) -> float:
    """max |x - y|; infinite where one of them has no value and the other does."""
    apart = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    largest = float(apart.max(initial=0.0))
    return math.inf if math.isnan(largest) else largest
