"""Movement in normal form: one map over sources that are no movement themselves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import cast

import numpy as np

from graphcheck.kernel.terms import pieces
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.pieces import Pieces
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided
from graphcheck.kernel.terms.verbs import Move

Places = Sequence[tuple[int, ...]]  # of the tensors that each source reads, among all that are read

def flatten(terms: Terms, sources: tuple[int, ...], map_: Map) -> tuple[tuple[int, ...], Map]:
    """Compose with the sources' own movement, drop what is not used, order the sources by class."""
    inner = [terms.terms[s] for s in sources]
    if len(sources) == 1:
        if isinstance(inner[0].verb, Move):
            composed = terms.maps.compose(inner[0].verb.map, map_)
            args = tuple(terms.find(a) for a in inner[0].args)
            assert composed is not None
            return (
                flatten(terms, args, composed)
                if len(args) > 1 or isinstance(terms.terms[args[0]].verb, Move)
                else (args, composed)
            )
        return sources, map_
    if not any(isinstance(term.verb, Move) for term in inner) and _in_order(terms, sources, map_):
        return sources, map_
    reads = [term.args if isinstance(term.verb, Move) else (source,) for source, term in zip(sources, inner, strict=True)]
    order = sorted({terms.find(arg) for args in reads for arg in args})
    rank = {leaf: at for at, leaf in enumerate(order)}
    maps = [term.verb.map if isinstance(term.verb, Move) else None for term in inner]
    places = [tuple(rank[terms.find(arg)] for arg in args) for args in reads]
    sizes = [terms.size(leaf) for leaf in order]
    key = ("flat", *((m and m.key, at) for m, at in zip(maps, places, strict=True)), *sizes)
    if key not in map_.row_cache:
        found = _in_pieces(map_.pieces, maps, places, sizes) if map_.pieces is not None else None
        if found is not None:
            map_.row_cache[key] = found[0], terms.maps.of(found[1])
        else:
            some, index = _by_elements(map_.index, maps, places, sizes)
            map_.row_cache[key] = some, terms.maps.intern(index)
    kept, flat = cast(tuple[list[int], Map], map_.row_cache[key])
    seen = tuple(order[at] for at in kept)
    return flatten(terms, seen, flat) if any(isinstance(terms.terms[leaf].verb, Move) for leaf in seen) else (seen, flat)


def _by_elements(
    index: np.ndarray, maps: Sequence[Map | None], places: Places, sizes: Sequence[int]
) -> tuple[list[int], np.ndarray]:
    """Which tensors are read, and the map over them, of tensors of these sizes: each source is a map of those at its places,
    or the one there as it is."""
    starts = [*itertools.accumulate(sizes, initial=1)]
    table = [np.zeros(1, np.int64)]
    for map_, some in zip(maps, places, strict=True):
        local = np.concatenate([table[0], *(np.arange(starts[at], starts[at + 1]) for at in some)])
        table.append(local[1:] if map_ is None else local[map_.index])
    index = np.concatenate(table)[index]
    used = np.zeros(starts[-1], bool)
    used[index] = True
    kept = [at for at in range(len(sizes)) if used[starts[at] : starts[at + 1]].any()]
    shift = np.zeros(starts[-1], np.int64)
    for at, begin in zip(kept, itertools.accumulate((sizes[at] for at in kept), initial=1), strict=False):
        shift[starts[at] : starts[at + 1]] = np.arange(begin, begin + sizes[at])
    return kept, shift[index]


def _in_pieces(
    outer: Pieces, maps: Sequence[Map | None], places: Places, sizes: Sequence[int]
) -> tuple[list[int], Pieces] | None:
    """The same in pieces; None where there are no few."""
    reads: list[list[Strided]] = [[] for _ in sizes]
    whole = [sum(sizes[at] for at in some) if m is None else m.size for m, some in zip(maps, places, strict=True)]
    for map_, some, part in zip(maps, places, pieces.parted(outer, whole), strict=True):
        if part and map_ is not None:
            part = map_.pieces and pieces.compose(map_.pieces, part)
        if part is None:
            return None
        inside = pieces.parted(part, [sizes[at] for at in some]) if len(some) > 1 else [part]
        for at, one in zip(some, inside, strict=True):
            if one is None:
                return None
            reads[at] += one
    kept = [at for at, forms in enumerate(reads) if forms]
    starts = itertools.accumulate((sizes[at] for at in kept), initial=0)
    moved = (dataclasses.replace(form, start=form.start + a) for at, a in zip(kept, starts, strict=False) for form in reads[at])
    seen = pieces.joined(moved)
    return (kept, seen) if seen else None


def _in_order(terms: Terms, sources: tuple[int, ...], map_: Map) -> bool:
    """Whether the sources are in order, each there once, and a few places of the map read them all."""
    if not map_.size or any(a >= b for a, b in itertools.pairwise(sources)):
        return False
    ends = tuple(itertools.accumulate(map(terms.size, sources)))
    key = ("all read", *ends)
    if key not in map_.row_cache:
        some = map_.at(np.linspace(0, map_.size - 1, 32 * len(sources)).astype(np.int64))
        seen = np.searchsorted(ends, some[some > 0])
        map_.row_cache[key] = bool(np.isin(np.arange(len(sources)), seen).all())
    return cast(bool, map_.row_cache[key])
