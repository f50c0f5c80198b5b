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
_DEPTH = 8  # verbs that are looked through; Softplus of a sum is five
_NOTHING = np.zeros(1)


class Rooms:
    """The rooms of the classes whose ``values`` (raw, flat) are known; ``exact`` ones have none."""

    def __init__(self, terms: Terms, exact: set[int], values: Mapping[int, Any]) -> None:
        self.terms, self.exact, self.values = terms, exact, values
        self._known: dict[tuple[int, int], np.ndarray] = {}

    def of(self, cls: int, map_: Map | None = None) -> np.ndarray:
        """One number for each element of a class, seen through a map; or one for all."""
        return _seen(self._room(cls, _DEPTH), map_)

    def assumed(self, cls: int, map_: Map | None = None) -> np.ndarray:
        """The same by the assumption alone, which is more, and told sooner."""
        return _seen(self._room(cls, 0), map_)

    def _room(self, cls: int, depth: int) -> np.ndarray:
        if cls in self.exact:
            return _NOTHING
        found = self._known.get((cls, depth))
        if found is None:
            found = self._assumed(cls)
            if depth:
                follows = self._follows(cls, depth - 1)
                found = found if follows is None else np.fmin(found, follows)
            self._known[cls, depth] = found
        return found

    def _value(self, cls: int) -> np.ndarray:
        return np.asarray(self.values[cls]).astype(np.float64, copy=False)

    def _assumed(self, cls: int) -> np.ndarray:
        x = self._value(cls)
        size = np.abs(x)
        room = np.asarray(NEAR * np.maximum(size, largest(size)))
        return np.where(self._masked(cls), 0.0, room) if self.terms.neginf[cls] else room

    def _masked(self, cls: int) -> np.ndarray:
        """Where -inf is that of a constant mask, which is exact; the logarithm of a rounded 0 is not."""
        try:
            return masked(self.terms, cls)
        except Undecided:
            return np.zeros(1, bool)

    def _follows(self, cls: int, depth: int) -> np.ndarray | None:
        """The error bound of a verb on operands that err by their rooms; None where it is not looked into."""
        term = self.terms.terms[cls]
        ids = [self.terms.find(a) for a in term.args]
        known = all(a in self.values for a in ids)
        if not known or not _is_carried(term.verb):
            return None
        rooms = [np.broadcast_to(self._room(a, depth), (self.terms.size(a),)) for a in ids]
        if isinstance(term.verb, Move):
            return picked(rooms, term.verb.map)
        values = [self._value(a) for a in ids]
        if isinstance(term.verb, (Sum, Rows)):
            return apply(self.terms, Float64({}), cls, [Real(values[0], rooms[0])]).error
        assert isinstance(term.verb, Ew)
        fn, maps = term.verb.fn, term.verb.maps
        seen = [
            (v, r) if m is None else (v[m.index - 1], r[m.index - 1])
            for v, r, m in zip(values, rooms, maps, strict=True)
        ]
        return np.broadcast_to(function(fn).bound(*(part for pair in seen for part in pair))[1], (term.size,))


def largest(size: np.ndarray) -> float:
    """The largest of 1 and the sizes that are no masks."""
    found = float(size.max(initial=1.0))
    return found if found < MASK else float(size.max(initial=1.0, where=size < MASK))  # which is slow


def _seen(room: np.ndarray, map_: Map | None) -> np.ndarray:
    return room if map_ is None or room.size == 1 else room[map_.index - 1]


def _is_carried(verb: Verb) -> bool:
    return isinstance(verb, (Sum, Move, Ew)) or (isinstance(verb, Rows) and verb.fn in ("max", "min"))
