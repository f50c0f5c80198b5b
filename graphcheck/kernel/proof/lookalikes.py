"""Rows that look alike in float64, and the values that later rows may need again."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import Domain, evaluate
from graphcheck.kernel.values.residues import Residues

ROW = 2_000_000  # elements of a row that is evaluated
_ALIKE = 1e-9  # relative to the sum of magnitudes; a few layers of float64 arithmetic err by far less
_FEW, _MANY = 64, 4096  # elements of a row that are looked at besides its sketch, where it has many
_CROWD = 16  # entries of one sketch that are compared one by one
_WIDER = 4.0  # than what is granted to a sketch, relative to the largest element

_Entry = tuple[int, tuple[int, int], np.ndarray]  # when it came, its class and its row, and a few elements


class Lookalikes:
    """Tensors by a float64 sketch: what lies closer than float64 rounding may explain may be equal. A filter, never a proof."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[list[float], list[_Entry], list[_Entry]]] = {}  # sketches in order
        self._crowds: dict[tuple[int, int, float], dict[bytes | None, list[_Entry]]] = {}
        self._count = itertools.count()

    def of(
        self, size: int, value: np.ndarray, entry: tuple[int, int], mark: Callable[[int], bytes | None] = lambda _: None
    ) -> list[tuple[int, int]]:
        """Earlier entries that look alike; the new one is added. Where many have one sketch (a state that a loop makes smaller
        is 0 in the end), the ``mark`` of a row, or None, tells which of the later ones do."""
        few = value[np.linspace(0, value.size - 1, _FEW if value.size > _MANY else 0).astype(np.int64)]
        with np.errstate(all="ignore"):
            sketch, magnitude = float(np.dot(_weights(value.size.bit_length())[: value.size], value)), np.abs(value)
            scale, room = float(magnitude.sum()), _WIDER * _ALIKE * float(magnitude.max(initial=0.0))
        sketches, entries, untold = self._seen.setdefault((size, value.size), ([], [], []))
        new = next(self._count), entry, few
        if not math.isfinite(sketch):  # nothing can be told: the exact evaluation has to
            found = [*entries, *untold]
            untold.append(new)
        else:
            near, at = _ALIKE * scale, bisect.bisect(sketches, sketch)
            low, high = bisect.bisect_left(sketches, sketch - near), bisect.bisect(sketches, sketch + near)
            found = [*(e for e in entries[low:high] if (np.abs(e[2] - few) <= room).all()), *untold]
            if at - bisect.bisect_left(sketches, sketch) < _CROWD:
                sketches.insert(at, sketch)
                entries.insert(at, new)
            else:
                own, crowd = mark(entry[1]), self._crowds.setdefault((size, value.size, sketch), {})
                found += [e for known in ({own, None} if own else {*crowd}) for e in crowd.get(known, ())]
                crowd.setdefault(own, []).append(new)
        return [e for _, e, _ in sorted(found, key=lambda e: e[0])]


@functools.lru_cache(maxsize=4)
def _weights(bits: int) -> np.ndarray:
    return np.asarray(np.cos(np.arange(1 << bits) * 1.2345 + 0.5))


class Recent(OrderedDict[int, Any]):
    """Values by class that were made or read last, ``most`` numbers of all; a row is evaluated on those of the ones before.

    Windows larger than any row, which one contraction reads, are not kept.
    """

    def __init__(self, terms: Terms, domain: Domain[Any], most: int) -> None:
        super().__init__()
        self.terms, self.domain, self.most, self.held = terms, domain, most, 0

    def made(self, row: int) -> Any:
        """The value of a row."""
        fresh, held = OrderedDict[int, Any](), 0

        def see(cls: int, value: Any) -> None:
            nonlocal held
            if _numbers(value).shape[-1] <= ROW:
                fresh[cls] = value
                held = _trimmed(fresh, held + _numbers(value).size, self.most)

        found = evaluate(self.terms, self.domain, [row], self, see)[self.terms.find(row)]
        for cls, value in fresh.items():
            self.held += 0 if cls in self else _numbers(value).size
            self[cls] = value
            self.move_to_end(cls)
        self.held = _trimmed(self, self.held, self.most)
        return found


def _trimmed(values: OrderedDict[int, Any], held: int, most: int) -> int:
    """How many numbers are left once the first values are gone that are too many."""
    while held > most:
        held -= _numbers(values.popitem(last=False)[1]).size
    return held


class Marks:
    """Fingerprints of rows modulo the primes of a domain."""

    def __init__(self, terms: Terms, domain: Residues, most: int) -> None:
        self.values, self.domain = Recent(terms, domain, most), domain
        self.known: dict[int, bytes | None] = {}

    def of(self, row: int) -> bytes | None:
        """That of a row; None if an element is undefined."""
        if row not in self.known:
            self.known[row] = self.domain.fingerprint(self.values.made(row))
        return self.known[row]


def _numbers(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else value.raw
