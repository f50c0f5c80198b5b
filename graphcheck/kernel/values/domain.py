"""What a domain of values has to do, and the one evaluator that runs terms on any of them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Contract, Ew, Leaf, Move, Opaque, Rows, Sum
from graphcheck.kernel.values.windows import block, blocks, by_rows, is_large, run

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

    ``given`` holds values that are taken as they are, ``visit`` sees every value once, in order of evaluation. Large windows
    that contractions read row by row are not values of their own.
    """
    given = given or {}
    wanted = {terms.find(r) for r in roots}
    order = terms.order(roots, given.__contains__)
    late = _late(terms, [cls for cls in order if cls not in given], wanted)
    reads: dict[int, tuple[int, ...]] = {}
    uses: dict[int, int] = {}
    for cls in order:
        if cls not in given and cls not in late:
            args = _args(terms, cls)
            reads[cls] = (*_args(terms, args[0]), *args[1:]) if args and args[0] in late else args
            for arg in reads[cls]:
                uses[arg] = uses.get(arg, 0) + 1
    values: dict[int, V] = {}
    for cls in order:
        if cls in late:
            continue
        if cls in given:
            values[cls] = given[cls]
        else:
            args = reads[cls]
            made = [values[a] for a in args]
            whole = args == _args(terms, cls)
            values[cls] = apply(terms, domain, cls, made) if whole else _by_blocks(terms, domain, cls, made)
            for arg in args:
                uses[arg] -= 1
                if not uses[arg] and arg not in wanted:
                    values.pop(arg, None)
        if visit is not None:
            visit(cls, values[cls])
    return {cls: values[cls] for cls in wanted}


def _late(terms: Terms, order: Sequence[int], wanted: set[int]) -> set[int]:
    """The large windows that only contractions read, row by row."""
    late = {cls for cls in order if cls not in wanted and is_large(terms, cls)}
    for cls in order if late else ():
        first, *rest = _args(terms, cls) or (-1,)
        rows = first in late and cls not in late and by_rows(terms.terms[cls].verb, terms.terms[first].verb.map)  # type: ignore[union-attr]
        late.difference_update(rest if rows else (first, *rest))
    return late


def _by_blocks(terms: Terms, domain: Domain[V], cls: int, values: Sequence[V]) -> V:
    """A maximum of windows, or a contraction with the last of the ``values``; the others are what the windows are made of."""
    term = terms.terms[cls]
    verb, moved = term.verb, terms.terms[terms.find(term.args[0])]
    assert isinstance(verb, (Contract, Rows)) and isinstance(moved.verb, Move)
    sources, others = values[: len(moved.args)], values[len(moved.args) :]
    if len(sources) > 1:
        sources = [domain.move(sources, terms.maps.whole(sum(map(terms.size, moved.args))))]
    made = []
    for rows, part in blocks(moved.verb.map, verb.k):
        if isinstance(verb, Rows):
            count = rows.stop - rows.start
            made.append(domain.rows(verb.fn, domain.move(sources, part), count, verb.k, count))
            continue
        (other,), (at, some), size = others, block(verb, rows), verb.n * verb.k
        right = other if verb.batches[1] == 1 else domain.move([other], run(at.start * size, (at.stop - at.start) * size))
        made.append(domain.contract(domain.move(sources, part), right, some.batches, some.m, verb.n, verb.k, verb.kn))
    return domain.move(made, terms.maps.whole(term.size))


def _args(terms: Terms, cls: int) -> tuple[int, ...]:
    return tuple(terms.find(a) for a in terms.terms[cls].args)


def by_depth(terms: Terms, classes: Iterable[int]) -> list[int]:
    """Classes by contraction depth, then height: no side of a comparison runs ahead of the other."""
    heap = [(*terms.depth[c], c) for c in classes]
    heapq.heapify(heap)
    return [heapq.heappop(heap)[-1] for _ in range(len(heap))]
