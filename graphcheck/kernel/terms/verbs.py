"""The eight verbs: all that an operator may use to say what it means, and all that a domain of values has to implement.

What a verb is applied to stands beside it (:class:`Term`), so that the parameters alone tell one verb from another.
"""

from __future__ import annotations

from typing import Any

from graphcheck.kernel.terms.maps import Map
from graphcheck.records import record


@record(frozen=True)
class Const:
    """A constant array, known by the ``key`` of its values."""

    key: tuple[Any, ...]


@record(frozen=True)
class Leaf:
    """A free tensor, known by its ``key`` (a graph input, or a class taken as free by a proof window)."""

    key: tuple[Any, ...]


@record(frozen=True)
class Move:
    """Movement: sources laid end to end, picked by an integer map."""

    map: Map


@record(frozen=True)
class Ew:
    """Elementwise ``fn``, each operand seen through a map (None: as it is; size 1: a scalar)."""

    fn: str
    maps: tuple[Map | None, ...]


@record(frozen=True)
class Contract:
    """[Ba, m, k] x [Bb, n, k] -> [B, m, n], summed over k: ``batches`` are (Ba, Bb), one of them may be 1, and with ``kn`` the
    second operand is [Bb, k, n]."""

    batches: tuple[int, int]
    m: int
    n: int
    k: int
    kn: bool


@record(frozen=True)
class Sum:
    """[rows, k] -> [rows]."""

    rows: int
    k: int


@record(frozen=True)
class Rows:
    """[rows, k] -> [rows, k] or [rows]: softmax, max, min, ... of each row."""

    fn: str
    rows: int
    k: int


@record(frozen=True)
class Opaque:
    """An operator nobody has taught: a function of its operands and its ``key``, nothing else is known."""

    key: tuple[Any, ...]


RANGE = "range"  # of the key of what a quantizer is whose range cuts off what a Clip or a Relu may: known once that is found

Verb = Const | Leaf | Move | Ew | Contract | Sum | Rows | Opaque


@record(frozen=True)
class Term:
    """One application of a verb: the operands' classes, the number of elements of the result."""

    verb: Verb
    args: tuple[int, ...]
    size: int

    @property
    def views(self) -> list[tuple[int, Map | None]]:
        """The operands, each with the map that it is seen through."""
        maps = self.verb.maps if isinstance(self.verb, Ew) else (None,) * len(self.args)
        return list(zip(self.args, maps, strict=True))


def reduces(fn: str) -> bool:
    """Whether a row function gives one value a row (max, min, argmax, argmin) or a row."""
    return fn in ("max", "min") or fn.startswith("arg")


def ranged(key: tuple[Any, ...]) -> bool:
    """Whether an unknown function is a quantizer whose range has to be understood yet (:data:`RANGE`)."""
    return isinstance(key[0], tuple) and key[0][:1] == (RANGE,)
