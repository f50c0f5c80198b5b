"""The stores in which two graphs met, one after the other, and the merges by which two of their classes became one.

A proof has one: that in which both graphs were traced. ``within-rounding`` takes a store of its own for each round.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence

from graphcheck.kernel.terms.rules.numbers import positive
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Move, Opaque, Term, Verb, ranged
from graphcheck.kernel.terms.why import Congruence, Rounded, Why

Stage = tuple[Terms, Mapping[int, int]]  # a store, and the class there of each class of the stage before


class _Store:
    """The merges of one store, as a forest: between two classes that were merged there is one way."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.ways: dict[int, list[tuple[int, Why]]] = collections.defaultdict(list)
        for a, b, why in terms.joins:
            self.ways[a].append((b, why))
            self.ways[b].append((a, why))

    def source(self, term: Term) -> int | None:
        """What a class is a rearrangement of, all elements kept; None if it is none."""
        if not isinstance(term.verb, Move) or len(term.args) != 1 or self.terms.size(term.args[0]) != term.size:
            return None
        return term.args[0] if self.terms.maps.inverse(term.verb.map) is not None else None

    def traced(self, cls: int) -> int:
        """The class behind rearrangements, merges aside."""
        source = self.source(self.terms.replaced.get(cls, self.terms.terms[cls]))
        while source is not None:
            cls = source
            source = self.source(self.terms.replaced.get(cls, self.terms.terms[cls]))
        return cls

    def root(self, cls: int) -> int:
        """The class behind rearrangements, as it is known in the end."""
        cls = self.terms.find(cls)
        while (source := self.source(self.terms.terms[cls])) is not None:
            cls = self.terms.find(source)
        return cls

    def path(self, a: int, b: int) -> list[Why]:
        """The reasons on the way from one class to another that it was merged with."""
        came: dict[int, tuple[int, Why] | None] = {a: None}
        queue = collections.deque([a])
        while queue and b not in came:
            here = queue.popleft()
            for there, why in self.ways.get(here, ()):
                if there not in came:
                    came[there] = (here, why)
                    queue.append(there)
        found = []
        step = came.get(b)
        while step is not None:
            found.append(step[1])
            step = came[step[0]]
        return found[::-1]

    def between(self, a: int, b: int) -> list[Why] | None:
        """The reasons why two classes have the same elements; None if they have not."""
        if self.terms.find(a) == self.terms.find(b):
            return self.path(a, b)
        for x, left in self._behind(a):
            for y, right in self._behind(b):
                if self.terms.find(x) == self.terms.find(y):
                    return [*left, *right, *self.path(x, y)]
        return None

    def _behind(self, cls: int) -> list[tuple[int, list[Why]]]:
        """The classes that a class is a rearrangement of, one behind the other, with the merges on the way."""
        found: list[tuple[int, list[Why]]] = [(cls, [])]
        while True:
            cls, whys = found[-1]
            source = self.source(self.terms.replaced.get(cls, self.terms.terms[cls]))
            if source is None:
                rep = self.terms.find(cls)
                source = self.source(self.terms.terms[rep])
                if source is None:
                    return found
                whys = [*whys, *self.path(cls, rep)]
            found.append((source, whys))

    def opened(self, whys: Sequence[Why], known: set[int]) -> list[Why]:
        """The reasons with those behind each congruence, but for operands that are ``known`` (by their roots) to be one."""
        found: dict[int, Why] = {}
        stack = list(reversed(whys))
        while stack:
            why = stack.pop()
            if id(why) in found:
                continue
            found[id(why)] = why
            if isinstance(why, Congruence):
                for a, b in why.operands:
                    if self.root(a) not in known:
                        stack += self.path(a, b)
        return list(found.values())


class Stages:
    """The stores of a proof; classes are those of the first, to which both graphs were traced."""

    def __init__(self, first: Terms, later: Sequence[Stage]) -> None:
        self._stores = [_Store(first), *(_Store(terms) for terms, _ in later)]
        self._known = [known for _, known in later]
        self._roots: dict[int, int | None] = {}
        self._traced: dict[int, int] = {}

    def _places(self, cls: int) -> list[int]:
        """The class in each store, as far as it goes."""
        found = [cls]
        for store, known in zip(self._stores, self._known, strict=False):
            there = known.get(store.terms.find(found[-1]))
            if there is None:
                break
            found.append(there)
        return found

    def root(self, cls: int) -> int | None:
        """The class behind rearrangements in the last store; None for a constant, and for what no output needs."""
        if cls not in self._roots:
            self._roots[cls] = self._followed(cls, _Store.root)
        return self._roots[cls]

    def place(self, cls: int) -> int | None:
        """The class in the last store, in its order; None where :meth:`root` is."""
        return self._followed(cls, lambda store, here: store.terms.find(here))

    def rebuilt(self, classes: Iterable[int]) -> list[int]:
        """The classes in the last store, put there where no output needs them; but for those made of themselves, where constants
        met of which one is made of the other."""
        here = {*map(self._stores[0].terms.find, classes)}
        for store, later, known in zip(self._stores, self._stores[1:], self._known, strict=False):
            there = dict(known)
            for cls in store.terms.order(sorted(here)):
                term, array = store.terms.terms[cls], store.terms.arrays.get(cls)
                args = [there[a] for a in map(store.terms.find, term.args) if a in there]
                if cls not in there and len(args) == len(term.args):
                    bits = store.terms.precision.get(cls, 0)
                    there[cls] = later.terms.make(term, args) if array is None else later.terms.const(array, bits)
            here = {later.terms.find(there[cls]) for cls in here if cls in there}
        return sorted(here)

    def _followed(self, cls: int, within: Callable[[_Store, int], int]) -> int | None:
        here: int | None = within(self._stores[0], cls)
        for store, known in zip(self._stores[1:], self._known, strict=True):
            there = None if here is None else known.get(here)
            here = None if there is None else within(store, there)
        return None if here is None or here in self._stores[-1].terms.arrays else here

    def taken(self, cls: int) -> tuple[bool, bool, bool]:
        """What the range of a quantizer was taken for: for nothing although it ends at 0, for a Clip that it reaches up to, for
        what cuts off at the bottom (a Relu, any Clip)."""
        floor = False
        for store, place in zip(self._stores, self._places(cls), strict=False):
            terms = store.terms
            match terms.terms[place]:
                case Term(Opaque(((_, sign, around), *_) as key), (x,)) if ranged(key):
                    floor = sign > 0  # of both graphs, if it stays
                    for chosen in (b for b, why in store.ways.get(place, ()) if why == Rounded(())):
                        same = terms.find(chosen) == terms.find(x) and not (sign > 0 and positive(terms, x))
                        clip = terms.terms[store.root(chosen)]
                        tops = [*map(terms.scalar, clip.args)] if clip.verb == Ew("min", (None, None)) else []
                        clipped = any(reached and high in tops for _, high, reached in around)
                        return bool(sign) and same, clipped, not same and sign >= 0
        return False, False, floor

    def traced(self, cls: int) -> int:
        """The class behind rearrangements, merges aside."""
        if cls not in self._traced:
            self._traced[cls] = self._stores[0].traced(cls)
        return self._traced[cls]

    def verb(self, cls: int) -> Verb:
        """What computes the class, behind rearrangements."""
        places = self._places(cls)
        store = self._stores[len(places) - 1]
        return store.terms.terms[store.root(places[-1])].verb

    def same(self, a: int, b: int) -> bool:
        """Whether two classes are one in the end."""
        x, y = self._places(a), self._places(b)
        return any(s.terms.find(p) == s.terms.find(q) for s, p, q in zip(self._stores, x, y, strict=False))

    def whys(self, a: int, b: int, known: Sequence[int]) -> list[Why]:
        """The merges that made two classes one, back to tensors that are known to be one (their classes)."""
        for number, (store, x, y) in enumerate(zip(self._stores, self._places(a), self._places(b), strict=False)):
            found = store.between(x, y)
            if found is not None:
                places = (self._places(c) for c in known)
                return store.opened(found, {store.root(p[number]) for p in places if number < len(p)})
        return []
