"""Row windows: where a region treats all rows alike, one row of it stands for all (one row of free values is a full proof)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from graphcheck.kernel.terms import pieces, strided
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.pieces import Pieces
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Rows, Sum
from graphcheck.kernel.terms.why import distinct

_FEW, _BLOCK = 64, 2**20  # places of a row that are looked at first, and entries of a map that are looked at at a time


class RowReducer:
    """Rewrites a class of ``count`` rows that are all treated alike into the class of one such row; of one row, as it is."""

    def __init__(self, terms: Terms, count: int, shared: Callable[[int], bool]) -> None:
        self.terms, self.count, self.shared = terms, count, shared
        self._known: dict[int, int | None] = {}
        self._rules: dict[int, tuple[str, ...]] = {}  # applied on the way to the row of a class

    def reduce(self, cls: int) -> int | None:
        """The class of one row, or None where rows differ."""
        rep = self.terms.find(cls)
        for c in self.terms.order([rep], lambda c: c in self._known or self._is_shared(c)):
            if c not in self._known:
                before = len(self.terms.applied)
                self._known[c] = self._reduce(c)
                args = () if self._is_shared(c) else self.terms.terms[c].args
                below = [rule for a in args for rule in self.rules(a)]
                if below or len(self.terms.applied) > before:
                    self._rules[c] = distinct([*below, *self.terms.applied[before:]])
        return self._known[rep]

    def part(self, cls: int) -> tuple[int, Map] | None:
        """The class of the columns that a movement which does not treat rows alike reads, of rows that are alike, and its map of
        them; None where it reads them all. So one product for queries, keys and values is three."""
        term = self.terms.terms[cls]
        if not isinstance(term.verb, Move) or len(term.args) > 1 or term.size > _BLOCK or self.reduce(term.args[0]) is None:
            return None
        map_, source, key = term.verb.map, self.terms.find(term.args[0]), ("part", self.count, self.terms.size(term.args[0]))
        if key not in map_.row_cache:
            rows, columns = np.divmod(map_.index.astype(np.int64) - 1, width := key[2] // self.count)
            some, place = np.unique(columns[rows >= 0], return_inverse=True)
            read = np.zeros(term.size, np.int64)
            read[rows >= 0] = rows[rows >= 0] * some.size + place + 1
            maps = self.terms.maps
            map_.row_cache[key] = (maps.picked(self.count, width, some), maps.intern(read)) if 0 < some.size < width else None
        found = cast(tuple[Map, Map] | None, map_.row_cache[key])
        return None if found is None else (self.terms.move((source,), found[0]), found[1])

    def rules(self, cls: int) -> tuple[str, ...]:
        """Those that made the row of a class."""
        return self._rules.get(self.terms.find(cls), ())

    def _is_shared(self, cls: int) -> bool:
        return self.shared(cls)

    def _row(self, arg: int) -> int | None:
        return self._known.get(self.terms.find(arg))

    def _fixed(self, rep: int) -> bool:
        """Whether a class is a constant, or a number that is computed of some: as a free one, 1/n may be negative."""
        return rep in self.terms.arrays or (self.terms.size(rep) == 1 and self.terms.constant_like(rep))

    def _whole(self, arg: int) -> int | None:
        """A tensor that is the same for all rows, as it is: a constant, or a shared class as a free tensor."""
        rep = self.terms.find(arg)
        if self._fixed(rep):
            return rep
        return self.terms.leaf(("whole", rep), self.terms.size(rep)) if self._is_shared(rep) else None

    def _reduce(self, cls: int) -> int | None:
        term, count, terms = self.terms.terms[cls], self.count, self.terms
        if term.size % count or cls in terms.arrays:
            return None
        if self._is_shared(cls):
            return terms.leaf(("row", cls, count), term.size // count)
        if count == 1:
            parts = [a if self._fixed(terms.find(a)) else self._row(a) for a in term.args]
            made = [part for part in parts if part is not None]
            return terms.make(term, made) if term.args and len(made) == len(parts) else None
        match term.verb:
            case Ew(fn, maps):
                views = [self._view(a, m, term.size) for a, m in zip(term.args, maps, strict=True)]
                known = [v for v in views if v is not None]
                return terms.ew(fn, known, term.size // count) if len(known) == len(views) else None
            case Move(map_) if len(term.args) == 1:
                view = self._view(term.args[0], map_, term.size)
                return None if view is None else terms.move((view[0],), view[1] or self._all(term.size // count))
            case Move(map_):
                return self._joined(term.args, map_)
            case Sum(rows, k) if rows % count == 0:
                row = self._row(term.args[0])
                return None if row is None else terms.sum(row, rows // count, k)
            case Rows(fn, rows, k) if rows % count == 0:
                row = self._row(term.args[0])
                return None if row is None else terms.rows(fn, row, rows // count, k)
            case Contract((ba, bb), m, n, k, kn):
                return self._contract(term.args, ba, bb, (m, n, k, kn))
        return None

    def _all(self, size: int) -> Map:
        return self.terms.maps.whole(size)

    def _contract(self, args: tuple[int, ...], ba: int, bb: int, shape: tuple[int, int, int, bool]) -> int | None:
        (m, n, k, kn), count, row = shape, self.count, self._row(args[0])
        if row is None:
            return None
        if bb == 1 and (ba * m) % count == 0:
            other = self._whole(args[1])
            return None if other is None else self.terms.contract(row, other, (1, 1), ba * m // count, n, k, kn)
        if ba == bb and ba % count == 0:
            both = self._row(args[1])
            return None if both is None else self.terms.contract(row, both, (ba // count, bb // count), m, n, k, kn)
        return None

    def _view(self, arg: int, map_: Map | None, size: int) -> tuple[int, Map | None] | None:
        """One row of an operand: block-diagonal maps read the row of the operand, constant ones read it whole."""
        n = self.terms.size(arg)
        if map_ is None:
            if n == 1:
                whole = self._whole(arg)
                return None if whole is None else (whole, None)
            row = self._row(arg)
            return None if row is None else (row, None)
        key = ("rows", self.count, n)
        if key not in map_.row_cache:
            map_.row_cache[key] = self._split(map_, n)
        kind, first = cast(tuple[str, Map | None], map_.row_cache[key])
        if kind == "block":
            row = self._row(arg)
            return None if row is None else (row, first)
        if kind == "same":
            whole = self._whole(arg)
            return None if whole is None else (whole, first)
        return None

    def _joined(self, args: tuple[int, ...], map_: Map) -> int | None:
        """One row of tensors laid side by side: of each its row, or all of it where every row reads the same."""
        sizes = [self.terms.size(a) for a in args]
        key = ("joined", self.count, *sizes)
        if key not in map_.row_cache:
            map_.row_cache[key] = self._shares(map_, sizes)
        found = cast(tuple[list[bool], list[Pieces] | np.ndarray] | None, map_.row_cache[key])
        if found is None:
            return None
        moves, reads = found
        rows = [self._row(a) if moved else self._whole(a) for a, moved in zip(args, moves, strict=True)]
        known = [row for row in rows if row is not None]
        if len(known) < len(rows):
            return None
        starts = itertools.accumulate((self.terms.size(row) for row in known), initial=0)
        if isinstance(reads, np.ndarray):
            shift = np.array(list(starts)[:-1]) - np.cumsum([0, *sizes])[:-1]
            source = np.searchsorted(np.cumsum(sizes), np.maximum(reads, 1))
            return self.terms.move(known, self.terms.maps.intern(np.where(reads > 0, reads + shift[source], 0)))
        placed = [(form, at) for at, forms in zip(starts, reads, strict=False) for form in forms]
        laid = pieces.joined(dataclasses.replace(form, start=form.start + at) for form, at in placed)
        return self.terms.move(known, self.terms.maps.of(laid)) if laid else None

    def _shares(self, map_: Map, sizes: list[int]) -> tuple[list[bool], list[Pieces] | np.ndarray] | None:
        """(which sources are read a block further in each row, what the first row reads: of each source, or all of them); None
        where rows differ."""
        width = map_.size // self.count
        if not width:
            return None
        some, rows = _some(width), np.array(sorted({0, 1, self.count // 2, self.count - 1}))[:, None]
        seen = map_.at(rows * width + some)
        if (seen != seen[0] + rows * (seen[1] - seen[0])).any():
            return None
        parts = [strided.rows(form, self.count) for form in map_.pieces or ()]
        return self._first_row(parts, sizes) if parts and None not in parts else self._by_elements(map_, width, np.array(sizes))

    def _first_row(self, parts: Sequence[Any], sizes: list[int]) -> tuple[list[bool], list[Pieces]] | None:
        """The same by the forms of the first row and of where the rows start."""
        moves, reads, cut = [], [], [pieces.parted((one,), sizes) for one, _ in parts]
        for n, *here in zip(sizes, *cut, strict=True):
            found = [(some, starts) for some, (_, starts) in zip(here, parts, strict=True)]
            forms = [form for some, _ in found for form in some or ()]
            steps = {starts.strides if starts.box == (self.count,) else None for some, starts in found if some}
            block = n // self.count
            moved = steps == {(block,)} and n % self.count == 0
            if any(some is None for some, _ in found) or not (moved or steps <= {(0,)}):
                return None
            if moved and any(pieces.reach(form) > block and int(form.index().max()) > block for form in forms):
                return None
            moves.append(moved)
            reads.append(tuple(forms))
        return moves, reads

    def _by_elements(self, map_: Map, width: int, sizes: np.ndarray) -> tuple[list[bool], np.ndarray] | None:
        """The same by a look at every row."""
        table, most, ends = map_.index.reshape(self.count, width), max(1, _BLOCK // width), np.cumsum(sizes)
        first, second = table[0].astype(np.int64), table[1]
        source = np.searchsorted(ends, np.maximum(first, 1))
        moves = np.zeros(len(sizes), bool)
        moves[source[first != second]] = True
        blocks = sizes // self.count
        inside = first - (ends - sizes)[source] <= blocks[source]
        if (sizes[moves] % self.count).any() or not inside[moves[source] & (first > 0)].all():
            return None
        step = np.where((first > 0) & moves[source], blocks[source], 0)
        for start in range(1, self.count, most):
            part = table[start : start + most]
            if (part != first + np.arange(start, start + len(part))[:, None] * step).any():
                return None
        return moves.tolist(), first

    def _split(self, map_: Map, n: int) -> tuple[str, Map | None]:
        if not map_.size:
            return "neither", None
        parts = strided.rows(map_.form, self.count) if map_.form is not None else None
        if parts is not None:
            one, starts = parts
            if not any(starts.strides):
                return "same", self.terms.maps.of(one)
            if n % self.count or starts.box != (self.count,) or starts.strides != (n // self.count,):
                return "neither", None
            last = one.start + 1 + sum(max(s, 0) * (c - 1) for s, c in zip(one.strides, one.box, strict=True))
            inside = last <= n // self.count or int(one.index().max()) <= n // self.count
            return ("block", self.terms.maps.of(one)) if inside else ("neither", None)
        width = map_.size // self.count
        rows = np.array(sorted({1, self.count // 2, self.count - 1}))[:, None]
        some = _some(width)
        if self._kind(map_.at(some), map_.at(rows * width + some), rows, n) is None:
            return "neither", None
        table, step, kinds = map_.index.reshape(self.count, width), max(1, _BLOCK // width), set[str | None]()
        for start in range(1, self.count, step):
            part = table[start : start + step]
            kinds.add(self._kind(table[0], part, np.arange(start, start + len(part))[:, None], n))
            if None in kinds or len(kinds) > 1:
                return "neither", None
        return cast(str, kinds.pop()), self.terms.maps.intern(table[0])

    def _kind(self, first: np.ndarray, table: np.ndarray, rows: np.ndarray, n: int) -> str | None:
        """What the entries of some ``rows`` [r, 1] are to those of the first one: the same, or a block further for each."""
        if bool((table == first).all()):
            return "same"
        if n % self.count or int(first.max()) > n // self.count:
            return None
        return "block" if bool((table == np.where(first > 0, first + rows * (n // self.count), 0)).all()) else None


def _some(width: int) -> np.ndarray:
    """A few places of a row: most rows that are not alike differ there."""
    return np.array(sorted({n * 0x9E3779B1 % width for n in range(_FEW)}))  # np.unique would import numpy.ma
