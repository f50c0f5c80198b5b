"""Movement in normal form: one map over sources that are no movement themselves."""

from __future__ import annotations

import itertools

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move


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
    leaves: dict[int, int] = {}
    for source, term in zip(sources, inner, strict=True):
        for arg in term.args if isinstance(term.verb, Move) else (source,):
            leaves.setdefault(terms.find(arg), 0)
    order = sorted(leaves)
    offset = 0
    for leaf in order:
        leaves[leaf] = offset
        offset += terms.size(leaf)
    table = [np.zeros(1, np.int64)]
    for source, term in zip(sources, inner, strict=True):
        if not isinstance(term.verb, Move):
            table.append(np.arange(1, term.size + 1) + leaves[source])
            continue
        local = np.zeros(1 + sum(terms.size(a) for a in term.args), np.int64)
        at = 1
        for arg in term.args:
            n = terms.size(arg)
            local[at : at + n] = np.arange(1, n + 1) + leaves[terms.find(arg)]
            at += n
        table.append(local[term.verb.map.index])
    index = np.concatenate(table)[map_.index]
    kept, shift, at = [], np.zeros(offset + 1, np.int64), 0
    used = np.zeros(offset + 1, bool)
    used[index] = True
    for leaf in order:
        n, start = terms.size(leaf), leaves[leaf]
        if used[start + 1 : start + n + 1].any():
            kept.append(leaf)
            shift[start + 1 : start + n + 1] = np.arange(at + 1, at + n + 1)
            at += n
    flat = terms.maps.intern(shift[index])
    again = any(isinstance(terms.terms[k].verb, Move) for k in kept)
    return flatten(terms, tuple(kept), flat) if again else (tuple(kept), flat)


def _in_order(terms: Terms, sources: tuple[int, ...], map_: Map) -> bool:
    """Whether the sources are in order, each there once, and a few places of the map read them all."""
    if not map_.size:
        return False
    ends = np.cumsum([terms.size(s) for s in sources])
    some = map_.at(np.linspace(0, map_.size - 1, 32 * len(sources)).astype(np.int64))
    seen = np.searchsorted(ends, some[some > 0])
    return all(a < b for a, b in itertools.pairwise(sources)) and bool(np.isin(np.arange(len(sources)), seen).all())
