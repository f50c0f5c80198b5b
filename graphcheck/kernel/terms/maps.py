"""Integer movement maps: which source element each output element came from (the window map of the design, Idea 1).

A map stands for a flat integer array; entry ``i`` is 1 + the flat source index of output element ``i``, or 0 where the
output is a padding zero. With several sources the indices run over the sources laid end to end. Regular maps are kept as
forms (:mod:`graphcheck.kernel.terms.strided`), or as pieces, each with a form (:mod:`graphcheck.kernel.terms.pieces`), and
the array is made only where a value of it is asked for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from graphcheck import limits
from graphcheck.errors import Oversized
from graphcheck.kernel.terms import pieces, strided
from graphcheck.kernel.terms.pieces import Pieces
from graphcheck.kernel.terms.strided import Strided

_KEPT = 1_000_000  # arrays of at most so many elements are kept beside a form
_INDEXED = 2**62


class Map:
    """An interned movement map; equal maps are the same object, so identity comparison and hashing are exact.

    ``pieces`` are its forms, None for an irregular one, which is an array, or so many ``blocks`` of an array, each the one before
    with a ``step`` added but to padding zeros; ``form`` is the one form of a map in one piece.
    """

    __slots__ = ("_has_zero", "_identity", "_index", "_inverse", "blocks", "form", "key", "pieces", "row_cache", "size", "step")

    def __init__(self, found: Pieces | None, index: np.ndarray | None, key: bytes, step: int = 0, blocks: int = 1) -> None:
        self.pieces, self._index, self.key, self.step, self.blocks = found, index, key, step, blocks
        self.form = found[0] if found is not None and len(found) == 1 else None
        self.row_cache: dict[object, object] = {}
        self._inverse: tuple[Map | None] | None = None  # set once it is asked for
        self._identity: bool | None = None
        self._has_zero: bool | None = None
        self.size = found[0].size if found is not None else int(index.size) * blocks  # type: ignore[union-attr]

    @property
    def has_zero(self) -> bool:
        """Whether an element is a padding zero."""
        if self._has_zero is None:
            if self.pieces is None:
                self._has_zero = bool(self.size) and int(self.once.min()) == 0
            elif self.form is not None:
                self._has_zero = bool(self.form.guards)
            else:
                self._has_zero = pieces.held(self.pieces) < self.size
        return self._has_zero

    @property
    def once(self) -> np.ndarray:
        """The first of the blocks, which is the whole map where it is the only one."""
        return self.index if self._index is None else self._index

    @property
    def index(self) -> np.ndarray:
        """The whole map, flat; of a large form, and of several blocks, it is made anew each time."""
        if self._index is not None:
            return self._index if self.blocks == 1 else _repeated(self._index, self.step, self.blocks)
        assert self.pieces is not None
        limits.current().check_elements(self.size, "a table of movement")
        index = _flat(pieces.index(self.pieces))
        if self.size <= _KEPT:
            self._index = index
        return index

    @property
    def identity(self) -> bool:
        """Whether element i is source element i, for all of them (the source may have more)."""
        if self._identity is None:
            some = _samples(self.size)
            if self.form is not None:
                self._identity = self.form == strided.identity(self.size)
            elif not np.array_equal(self.at(some), some + 1):
                self._identity = False
            else:
                self._identity = bool(np.array_equal(self.index, np.arange(1, self.size + 1)))
        return self._identity

    @property
    def empty(self) -> bool:
        """Whether every element is a padding zero."""
        return not self.size or (self.has_zero and not self.at(_samples(self.size)).any() and not self.index.any())

    def at(self, places: np.ndarray) -> np.ndarray:
        """The entries at flat places, counted from 0."""
        if self._index is not None and self.blocks > 1:
            found = self._index[places % self._index.size].astype(np.int64)
            return np.where(found > 0, found + places // self._index.size * self.step, 0)
        if self._index is not None:
            return np.asarray(self._index[places], np.int64)
        assert self.pieces is not None
        return np.asarray(sum(form.at(places) for form in self.pieces))

    def __repr__(self) -> str:
        return f"Map({self.at(np.arange(min(self.size, 8))).tolist()}{'...' if self.size > 8 else ''})"


class Maps:
    """The table of interned maps, with their compositions remembered."""

    def __init__(self) -> None:
        self._forms: dict[Pieces, Map] = {}
        self._alike: dict[tuple[int, bytes], list[Map]] = {}  # by size and some of the entries
        self._composed: dict[tuple[object, ...], Map] = {}
        self._count = self.nbytes = 0

    def intern(self, index: np.ndarray) -> Map:
        """The map of a flat or shaped array of 1-based source indices."""
        flat = _flat(index.reshape(-1))
        alike = self._alike.setdefault((flat.size, flat[_samples(flat.size)].astype(np.int64).tobytes()), [])
        found = next((m for m in alike if np.array_equal(m.index, flat)), None)
        if found is None:
            form = strided.recognised(flat) if not flat.size or flat.min() > 0 else None
            kept = None if form is not None and flat.size > _KEPT else flat
            found = self._new(Map(None if form is None else (form,), kept, b""))
            alike.append(found)
            if form is not None:
                self._forms[(form,)] = found
        return found

    def repeated(self, once: np.ndarray, step: int, blocks: int) -> Map:
        """The map of blocks, the first as for :meth:`intern`, each next one with a step added but to padding zeros."""
        flat = _flat(once.reshape(-1))
        if blocks == 1 or not flat.size or strided.recognised(flat):  # the whole may have a form as well
            return self.intern(_repeated(flat, step, blocks))
        return self._interned(Map(None, flat, b"", step, blocks))

    def of(self, form: Strided | Pieces | None, make: Callable[[], np.ndarray] = lambda: np.zeros(0, np.int64)) -> Map:
        """The map of a form, or of pieces; of what ``make`` gives where there is none."""
        one = (form,) if isinstance(form, Strided) else form
        if not one:
            return self.intern(make())
        found = self._forms.get(one)
        if found is None:
            if one[0].size >= _INDEXED:
                raise Oversized(f"a tensor of {one[0].size} elements is beyond 64-bit indices")
            found = self._forms[one] = self._interned(Map(one, None, b""))
        return found

    def _interned(self, made: Map) -> Map:
        alike = self._alike.setdefault((made.size, made.at(_samples(made.size)).tobytes()), [])
        found = next((m for m in alike if _same(m, made)), None)
        if found is None:
            alike.append(self._new(made))
        return found or made

    def _new(self, made: Map) -> Map:
        if made._index is not None:
            self.nbytes += made._index.nbytes
            limits.current().check_taken(self.nbytes)
            made._index.setflags(write=False)
        self._count += 1
        made.key = self._count.to_bytes(8, "big")
        return made

    def box(self, box: Sequence[int], strides: Sequence[int]) -> Map:
        """The map that reads the digits of the output index over a box with these strides."""
        return self.of(strided.normal(box, 0, strides))

    def whole(self, size: int) -> Map:
        """Every element as it is."""
        return self.box((size,), (1,))

    def spread(self, size: int) -> Map:
        """The first element at every place."""
        return self.box((size,), (0,))

    def part(self, size: int, begin: int, count: int) -> Map:
        """Of ``size`` elements ``count`` from ``begin`` on, counted from 0; a padding zero for all others."""
        form = strided.normal((size,), -begin, (1,), [((1,), begin, begin + count - 1)])
        return self.of(form, lambda: np.zeros(size, np.int64))

    def picked(self, rows: int, width: int, columns: np.ndarray) -> Map:
        """Of [rows, width] the ``columns``, counted from 0."""
        return self.along(rows, width, 1, columns)

    def picked_rows(self, rows: np.ndarray, width: int) -> Map:
        """Of [..., width] the ``rows``, counted from 0."""
        return self.along(1, 0, width, rows)

    def along(self, outer: int, width: int, inner: int, at: np.ndarray) -> Map:
        """Of [outer, width, inner] the places ``at`` of the second axis, counted from 0."""
        found = pieces.recognised(at + 1)
        forms = found and [
            strided.normal(
                (outer, *form.box, inner), form.start * inner, (width * inner, *(s * inner for s in form.strides), 1),
                [((0, *row, 0), low, high) for row, low, high in form.guards],
            ) for form in found
        ]  # fmt: skip
        whole = pieces.joined(form for form in forms if form is not None) if forms else None
        rows = np.arange(outer)[:, None, None] * width
        return self.of(whole, lambda: (rows + at[:, None]) * inner + np.arange(1, inner + 1))

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
            strides = [0 if n == 1 else w for n, w in zip(trimmed, steps(trimmed), strict=True)]
            found = self._composed[key] = self.box(to, strides)
        return found

    def transpose(self, shape: Sequence[int], perm: Sequence[int]) -> Map:
        """The map of a transposition of a tensor of ``shape``."""
        key = ("transpose", tuple(shape), tuple(perm))
        found = self._composed.get(key)
        if found is None:
            weights = steps(shape)
            found = self._composed[key] = self.box([shape[p] for p in perm], [weights[p] for p in perm])
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
            form = inner.pieces and outer.pieces and pieces.compose(inner.pieces, outer.pieces)
            once = None if form else _once(inner, outer)
            found = self.repeated(*once) if once else self.of(form, lambda: _zero_first(inner.index)[outer.index])
            self._composed[key] = found
        return found

    def inverse(self, map_: Map) -> Map | None:
        """The inverse of a permutation; None if the map is none."""
        if map_._inverse is None:
            map_._inverse = (self._invert(map_),)
        return map_._inverse[0]

    def _invert(self, map_: Map) -> Map | None:
        if map_.has_zero or not map_.size:
            return None
        if map_.form is not None:
            found = strided.inverse(map_.form)
            return None if found is None else self.of(found)
        # of millions of windows, without a copy
        if map_.once.max() + max(0, map_.step * (map_.blocks - 1)) != map_.size or np.bincount(map_.index).max() != 1:
            return None
        index = map_.index.astype(np.int64) - 1
        back = np.empty(map_.size, np.int64)
        back[index] = np.arange(1, map_.size + 1)
        return self.intern(back)


def _once(inner: Map, outer: Map) -> tuple[np.ndarray, int, int] | None:
    """Blocks of ``outer`` seen through ``inner``: the first, the step, how many; None unless that is a step along one digit."""
    if outer.blocks == 1 or inner.form is None or inner.has_zero or int(outer.once.max()) > outer.step:
        return None
    first = np.where(outer.once > 0, inner.at(np.maximum(outer.once, 1) - 1), 0)
    digits = zip(inner.form.box, inner.form.strides, steps(inner.form.box), strict=True)
    return next(((first, stride, outer.blocks) for n, stride, worth in digits if worth == outer.step and n >= outer.blocks), None)


def _same(a: Map, b: Map) -> bool:
    """Whether two maps of one size are one: a form without guards is unique; of others, and of arrays, elements may decide."""
    if a.pieces is not None and b.pieces is not None:
        if a.form is not None and b.form is not None and not a.form.guards and not b.form.guards:
            return a.form == b.form
        if (found := pieces.same(a.pieces, b.pieces)) is not None:
            return found
    alike = a.blocks == b.blocks and a.step == b.step and a.pieces is b.pieces is None
    return bool(np.array_equal(a.once, b.once) if alike else np.array_equal(a.index, b.index))


def _flat(index: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(index, np.int32 if index.max(initial=0) < 2**31 else np.int64)


def _repeated(once: np.ndarray, step: int, blocks: int) -> np.ndarray:
    """Blocks of an array, each with a step added but to padding zeros."""
    most = int(once.max(initial=0)) + max(0, step * (blocks - 1))
    made = np.empty((blocks, once.size), np.int32 if most < 2**31 else np.int64)
    for at, part in enumerate(made):
        part[...] = np.where(once > 0, once.astype(np.int64) + step * at, 0)
    return made.reshape(-1)


def _zero_first(index: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, index.dtype), index])


def steps(shape: Sequence[int]) -> list[int]:
    """What a step along each axis is worth in the flat index."""
    return [math.prod(shape[i + 1 :]) for i in range(len(shape))]


@functools.lru_cache(maxsize=4096)
def _samples(size: int) -> np.ndarray:
    """The places at which maps of a size are compared first: both ends, and some that no stride is likely to share."""
    some = np.arange(1, 64, dtype=np.int64) * 0x9E3779B1 % max(size, 1)
    return np.concatenate([some, [0, size - 1]]) if size else np.zeros(0, np.int64)
