"""How far from the truth each element of a value is taken to be at most, where a first-order bound has to know it.

The assumption: no value errs by more than :data:`NEAR` of the largest number of its tensor (masks aside), or of 1, or of
itself. What sums, products, quotients and functions of such values err by then follows element by element; the smaller
of both is taken. So 1 + Exp(-x) errs by little where it is about 1, however large it is elsewhere in the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphcheck.errors import Undecided
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.masks import masked
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Move, Rows, Sum, Verb
from graphcheck.kernel.values.domain import apply
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.kernel.values.gather import picked

NEAR = 1e-11
MASK = 1e8  # larger numbers are masks: they say nothing of the size of a tensor
DEPTHS = 1, 3, 8  # verbs that are looked through: a quotient, a Sigmoid, Softplus of a sum (five)
_NOTHING = np.zeros(1)
At = Any  # a slice, an array or None: places in a flat value: some in a row, or by their indices; None for all


class Rooms:
    """The rooms of the classes whose ``values`` (raw, flat) are known; ``exact`` ones have none."""

    def __init__(self, terms: Terms, exact: set[int], values: Mapping[int, Any]) -> None:
        self.terms, self.exact, self.values = terms, exact, values
        self._known: dict[tuple[int, int, int], tuple[np.ndarray, At]] = {}  # with the places, whose id is in the key
        self._scales: dict[int, float] = {}
        self._masks: dict[int, np.ndarray] = {}

    def of(self, cls: int, map_: Map | None = None, at: At = None, depth: int = DEPTHS[-1]) -> np.ndarray:
        """One number for each element of a class, seen through a map, or for those ``at`` some places; or one for all. Less
        where more verbs are looked through."""
        return self._seen(cls, depth, map_, at)

    def assumed(self, cls: int, map_: Map | None = None, at: At = None) -> np.ndarray:
        """The same by the assumption alone, which is more, and told sooner."""
        return self._seen(cls, 0, map_, at)

    def _seen(self, cls: int, depth: int, map_: Map | None, at: At) -> np.ndarray:
        room = self._room(cls, depth, at if map_ is None else None)
        if map_ is None or room.size == 1:
            return room
        return np.asarray(room[_places(map_, at)])

    def _room(self, cls: int, depth: int, at: At = None) -> np.ndarray:
        if cls in self.exact:
            return _NOTHING
        if at is not None and (self.terms.size(cls) == 1 or isinstance(self.terms.terms[cls].verb, (Sum, Rows))):
            room = self._room(cls, depth)
            return room if room.size == 1 else room[at]
        if at is not None and not depth:
            return self._assumed(cls, at)
        key = (cls, depth, id(at))
        if key not in self._known:
            found = self._assumed(cls, at)
            if depth:
                follows = self._follows(cls, depth - 1, at)
                found = found if follows is None else np.fmin(found, follows)
            self._known[key] = found, at
        return self._known[key][0]

    def _value(self, cls: int, at: At = None) -> np.ndarray:
        x = np.asarray(self.values[cls])
        return (x if at is None or x.size == 1 else x[at]).astype(np.float64, copy=False)

    def _assumed(self, cls: int, at: At) -> np.ndarray:
        if cls not in self._scales:
            self._scales[cls] = largest(self._value(cls))
        room = np.asarray(NEAR * np.maximum(np.abs(self._value(cls, at)), self._scales[cls]))
        if not self.terms.neginf[cls]:
            return room
        if cls not in self._masks:
            self._masks[cls] = self._masked(cls)
        masked = self._masks[cls]
        return np.where(masked if at is None or masked.size == 1 else masked[at], 0.0, room)

    def _masked(self, cls: int) -> np.ndarray:
        """Where -inf is that of a constant mask, which is exact; the logarithm of a rounded 0 is not."""
        try:
            return masked(self.terms, cls)
        except Undecided:
            return np.zeros(1, bool)

    def _follows(self, cls: int, depth: int, at: At) -> np.ndarray | None:
        """The error bound of a verb on operands that err by their rooms; None where it is not looked into."""
        term = self.terms.terms[cls]
        ids = [self.terms.find(a) for a in term.args]
        known = all(a in self.values for a in ids)
        if not known or not _is_carried(term.verb):
            return None
        if isinstance(term.verb, Move):
            if at is None or len(ids) > 1:
                moved = picked([np.broadcast_to(self._room(a, depth), (self.terms.size(a),)) for a in ids], term.verb.map)
                return moved if at is None else moved[at]
            index = term.verb.map.at(at)
            return np.where(index == 0, 0.0, self._room(ids[0], depth, np.maximum(index, 1) - 1))
        if isinstance(term.verb, (Sum, Rows)):
            room = np.broadcast_to(self._room(ids[0], depth), (self.terms.size(ids[0]),))
            return apply(self.terms, Float64({}), cls, [Real(self._value(ids[0]), room)]).error
        assert isinstance(term.verb, Ew)
        seen = []
        for a, map_ in zip(ids, term.verb.maps, strict=True):
            there = at if map_ is None else _places(map_, at)
            seen += [self._value(a, there), self._seen(a, depth, map_, at)]
        size = term.size if at is None else len(at)
        return np.broadcast_to(function(term.verb.fn).bound(*seen)[1], (size,))


def largest(x: np.ndarray) -> float:
    """The largest of 1 and the magnitudes that are no masks."""
    ends = float(x.max(initial=0)), float(x.min(initial=0))  # which an unsigned integer holds as well
    found = float(np.max([1.0, ends[0], -ends[1]]))
    if found < MASK:
        return found
    size = np.abs(x.astype(np.float64, copy=False))
    bits = size.view(np.int64) * (size < MASK)  # whose order is that of the numbers; without a branch for each
    return max(1.0, float(bits.max(initial=0).view(np.float64)))


def _places(map_: Map, at: At) -> np.ndarray:
    """Where the elements that a map gives, all or those at some places, stand in its source."""
    return map_.index - 1 if at is None else map_.at(np.arange(map_.size)[at]) - 1


def _is_carried(verb: Verb) -> bool:
    return isinstance(verb, (Sum, Move, Ew)) or (isinstance(verb, Rows) and verb.fn in ("max", "min"))
