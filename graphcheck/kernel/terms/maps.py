"""Integer movement maps: which source element each output element came from (the window map of the design, Idea 1).

A map is a flat integer array; entry ``i`` is 1 + the flat source index of output element ``i``, or 0 where the output
is a padding zero. With several sources the indices run over the sources laid end to end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from graphcheck import limits


class Map:
    """An interned movement map; equal maps are the same object, so identity comparison and hashing are exact."""

    __slots__ = ("_inverse", "has_zero", "identity", "index", "key", "row_cache")

    def __init__(self, index: np.ndarray, key: bytes) -> None:
        self.index = index
        self.key = key
        self.has_zero = bool(index.size) and int(index.min()) == 0
        self.identity = bool(np.array_equal(index, np.arange(1, index.size + 1)))
        self.row_cache: dict[object, object] = {}
        self._inverse: tuple[Map | None] | None = None  # set once it is asked for

    @property
    def size(self) -> int:
        """Number of output elements."""
        return int(self.index.size)

    def __repr__(self) -> str:
        return f"Map({self.index[:8].tolist()}{'...' if self.size > 8 else ''})"


class Maps:
    """The table of interned maps, with their compositions remembered."""

    def __init__(self) -> None:
        self._table: dict[bytes, Map] = {}
        self._composed: dict[tuple[object, ...], Map] = {}
        self.nbytes = 0

    def intern(self, index: np.ndarray) -> Map:
        """The map of a flat or shaped array of 1-based source indices."""
        flat = np.ascontiguousarray(index.reshape(-1), np.int32 if index.size < 2**31 else np.int64)
        key = hashlib.sha256(flat.data).digest() + flat.size.to_bytes(8, "little")
        found = self._table.get(key)
        if found is None:
            self.nbytes += flat.nbytes
            limits.current().check_taken(self.nbytes)
            flat.setflags(write=False)
            found = self._table[key] = Map(flat, key)
        return found

    def broadcast(self, shape: Sequence[int], to: Sequence[int]) -> Map | None:
        """The map of numpy broadcasting from ``shape`` to ``to``; None for the identity."""
        shape, to = tuple(shape), tuple(to)
        trimmed = (1,) * (len(to) - len(shape)) + shape
        if trimmed == to:
            return None
        key = ("broadcast", trimmed, to)
        found = self._composed.get(key)
        if found is None:
            limits.current().check_elements(math.prod(to), "a tensor broadcast to a larger shape")
            index = np.arange(1, 1 + int(np.prod(trimmed, dtype=np.int64))).reshape(trimmed)
            found = self._composed[key] = self.intern(np.broadcast_to(index, to))
        return found

    def transpose(self, shape: Sequence[int], perm: Sequence[int]) -> Map:
        """The map of a transposition of a tensor of ``shape``."""
        key = ("transpose", tuple(shape), tuple(perm))
        found = self._composed.get(key)
        if found is None:
            index = np.arange(1, 1 + int(np.prod(shape, dtype=np.int64))).reshape(shape)
            found = self._composed[key] = self.intern(index.transpose(perm))
        return found

    def compose(self, inner: Map | None, outer: Map | None) -> Map | None:
        """First ``inner``, then ``outer``; None stands for a source seen as it is.

        The result may be an identity on the first part of a larger source: whether it is the whole is for the caller to see.
        """
        if inner is None or outer is None:
            return outer if inner is None else inner
        key = (inner.key, outer.key)
        found = self._composed.get(key)
        if found is None:
            padded = np.concatenate([[0], inner.index])
            found = self._composed[key] = self.intern(padded[outer.index])
        return found

    def inverse(self, map_: Map) -> Map | None:
        """The inverse of a permutation; None if the map is none."""
        if map_._inverse is None:
            map_._inverse = (self._invert(map_),)
        return map_._inverse[0]

    def _invert(self, map_: Map) -> Map | None:
        if map_.has_zero or not map_.size:
            return None
        index = map_.index.astype(np.int64) - 1
        if index.max() != map_.size - 1 or np.bincount(index, minlength=map_.size).max() != 1:
            return None
        back = np.empty(map_.size, np.int64)
        back[index] = np.arange(1, map_.size + 1)
        return self.intern(back)
