"""What a domain of values has to do, and the one evaluator that runs terms on any of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum

V = TypeVar("V")


class Domain(Protocol[V]):
    """The verbs of :mod:`graphcheck.kernel.terms.verbs` on flat values of one kind."""

    def const(self, array: np.ndarray) -> V:
        """A constant array."""

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> V:
        """A free tensor."""

    def move(self, sources: Sequence[V], map_: Map) -> V:
        """Elements of the sources, laid end to end, by a map."""

    def ew(self, fn: str, values: Sequence[V], maps: Sequence[Map | None], size: int) -> V:
        """Elementwise; each value seen through its map, a value of size 1 as a scalar."""

    def contract(self, a: V, b: V, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> V:
        """[Ba, m, k] x [Bb, n, k] -> [B, m, n]; with ``kn`` the second is [Bb, k, n]."""

    def sum(self, a: V, rows: int, k: int) -> V:
        """[rows, k] -> [rows]."""

    def rows(self, fn: str, a: V, rows: int, k: int, size: int) -> V:
        """A function of each row."""

    def opaque(self, key: tuple[Any, ...], args: Sequence[V], size: int) -> V:
        """An unknown function, known by its key."""


def apply(terms: Terms, domain: Domain[V], cls: int, args: Sequence[V]) -> V:
    """One term of the store on values of its operands."""
    term = terms.terms[cls]
    match term.verb:
        case Const():
            return domain.const(terms.arrays[cls])
        case Leaf(key):
            return domain.leaf(cls, key, term.size)
        case Move(map_):
            return domain.move(args, map_)
        case Ew(fn, maps):
            return domain.ew(fn, args, maps, term.size)
        case Contract(batches, m, n, k, kn):
            return domain.contract(args[0], args[1], batches, m, n, k, kn)
        case Sum(rows, k):
            return domain.sum(args[0], rows, k)
        case Rows(fn, rows, k):
            return domain.rows(fn, args[0], rows, k, term.size)
        case Opaque(key):
            return domain.opaque(key, args, term.size)


def evaluate(
    terms: Terms,
    domain: Domain[V],
    roots: Sequence[int],
    given: dict[int, V] | None = None,
    visit: Callable[[int, V], None] | None = None,
) -> dict[int, V]:
    """Values of the ``roots`` (by representative); a value is dropped at its last use.

    ``given`` holds values that are taken as they are, ``visit`` sees every value once, in order of evaluation.
    """
    given = given or {}
    order = terms.order(roots, given.__contains__)
    wanted = {terms.find(r) for r in roots}
    uses: dict[int, int] = {}
    for cls in order:
        if cls not in given:
            for arg in _args(terms, cls):
                uses[arg] = uses.get(arg, 0) + 1
    values: dict[int, V] = {}
    for cls in order:
        if cls in given:
            values[cls] = given[cls]
        else:
            args = _args(terms, cls)
            values[cls] = apply(terms, domain, cls, [values[a] for a in args])
            for arg in args:
                uses[arg] -= 1
                if not uses[arg] and arg not in wanted:
                    values.pop(arg, None)
        if visit is not None:
            visit(cls, values[cls])
    return {cls: values[cls] for cls in wanted}


def _args(terms: Terms, cls: int) -> tuple[int, ...]:
    return tuple(terms.find(a) for a in terms.terms[cls].args)


def by_depth(terms: Terms, classes: Iterable[int]) -> list[int]:
    """Classes by contraction depth, then height: no side of a comparison runs ahead of the other."""
    heap = [(*terms.depth[c], c) for c in classes]
    heapq.heapify(heap)
    return [heapq.heappop(heap)[-1] for _ in range(len(heap))]
