"""``within-rounding``: the proof again, after re-rounded constants gave way to the other side's exact expressions (Idea 4).

A constant counts as re-rounded only if it lies within the roundings of the expression that it is to stand for: each operation
of it may err by an ulp, a sum of products by what the orders of summation do (:mod:`graphcheck.kernel.proof.summation`), and
the running error bound of that (Higham, section 3.3) is the room; a stored constant against a stored constant has one ulp.
Only constants that one graph alone has are replaced, so the other graph stays as it is.
Nothing is merged because two computed tensors are close.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.files.contents import release
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.proof.allowed import NOTHING, Allowed, steps
from graphcheck.kernel.proof.facing import Facing, Views, face_to_face, near_each_other, ranges
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.room import Sketches, apart, stored_in, unmoved
from graphcheck.kernel.terms.renewal import anew
from graphcheck.kernel.terms.store import Operand, Terms
from graphcheck.kernel.terms.why import Rounded

_IDLE = 4  # rounds in a row that replace nothing
_MOST = 2000  # constants replaced before it counts as another graph
_PART = 1 << 16  # elements at a time
_MOVES = ("Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze")


@dataclasses.dataclass(frozen=True)
class Substitution:
    """The constants after whose replacement two graphs are the same: name in A and B, elements, ulps, roundings granted;
    the probability that the proof behind it merged anything falsely; and the stores of its rounds, each with what the classes
    of the one before are in it; ``turns``: whether a constant in another format decides a step (:func:`steps`)."""

    constants: list[dict[str, Any]]
    error: float
    stages: tuple[tuple[Terms, dict[int, int]], ...] = ()
    turns: bool = False
    met: bool = True

    @property
    def off(self) -> int:
        """How many of them do not lie within their roundings."""
        return sum(not c["within"] for c in self.constants)

    @property
    def within(self) -> bool:
        """Whether every one of them does."""
        return not self.off


def substitute(
    pair: Pair, roots: Sequence[tuple[int, int]], *, seed: int, target: float, deadline: float = math.inf,
    allowed: Allowed = NOTHING, supposes: bool = False, keeps: bool = False,
) -> Substitution:  # fmt: skip
    """The constants that alone keep two graphs apart, ``met``, or that were replaced before it turned out that there is more to
    it. Those that are roundings which are ``allowed`` count as within theirs, where the same operator sees both.
    Where nothing else is left, it ``supposes`` what a range that ends at 0 is. It ``keeps`` constants that are off, so that
    what is made of them stays apart.

    ``pair`` must stand in an affine store of its own: classes are merged in it on the hypothesis that it tests.
    """
    terms, error, idle, turns, waits, stuck = pair.terms, 0.0, 0, False, supposes, False
    replaced: list[dict[str, Any]] = []
    stages: list[tuple[Terms, dict[int, int]]] = []
    left, right, clips = [a for a, _ in roots], [b for _, b in roots], [*pair.algebra.clips]
    names = [_Names(trace) for trace in (pair.a, pair.b)]
    while True:
        # a store and a prover of its own for every round: what was merged gave the graphs new classes
        try:
            fresh, known = anew(terms, [*left, *right, *clips])
        except KeyError:  # constants met of which one is made of the other: no function has both
            return Substitution(replaced, error, tuple(stages), turns, met=False)
        left, right, clips = ([known[terms.find(root)] for root in side] for side in (left, right, clips))
        terms = fresh
        stages.append((terms, known))
        prover = Prover(terms, left, right, pair.row_counts(), seed=seed, target=target, deadline=deadline)
        proved = prover.prove()
        error += 2.0 ** prover.log2_error()
        if proved:
            return Substitution(replaced, error, tuple(stages), turns)
        sketches, given = Sketches(terms), list[int]()
        found = [] if keeps and stuck else _found(terms, prover, sketches, allowed, clips)
        idle = 0 if found else idle + 1  # merges alone may bring constants face to face in the next store
        over, many = (idle and not terms.joins) or idle > _IDLE, len(replaced) > _MOST
        alone = ranges(terms, prover, clips, alone=True)[:1] if waits and not many else []
        if many or (over and not alone):
            return Substitution(replaced, error, tuple(stages), turns, met=False)
        found, before = alone if over else found, len(terms.joins)
        while found:  # layer after layer: what met brings the next constants face to face
            met = len(terms.joins)
            for facing in found:
                rows = _replace(terms, names, facing, replaced, allowed, waits=keeps or bool(alone))
                given += [facing.joined[0]] if any(row.get("format", "ulps") not in ("", "ulps") for row in rows) else []
            found = _found(terms, prover, sketches, allowed, clips) if len(terms.joins) > met and prover.open_pairs() else []
            found = [f for f in found if terms.find(f.joined[0]) != terms.find(f.joined[1])]
        # a constant that is off may have been met too early, in front of a range
        stuck = (keeps or not idle) and len(terms.joins) == before
        for facing in alone if stuck else ():
            _replace(terms, names, facing, replaced, allowed)
        waits = supposes and not (alone and (over or stuck))  # what a supposition brings face to face is looked at first
        turns = turns or bool(given and steps(terms, given, [*left, *right]))


def _found(terms: Terms, prover: Prover, sketches: Sketches, allowed: Allowed, clips: Sequence[int]) -> list[Facing]:
    """Constants that give way: those near each other first, but the partner of one in another format is known by its place."""
    if allowed.formats:
        by_place = ranges(terms, prover, clips) or face_to_face(terms, prover, sketches, copied=True)
        return by_place or near_each_other(terms, prover, sketches)
    return near_each_other(terms, prover, sketches) or face_to_face(terms, prover, sketches)


def _replace(
    terms: Terms, known: Sequence[_Names], facing: Facing, replaced: list[dict[str, Any]], allowed: Allowed, waits: bool = False
) -> list[dict[str, Any]]:
    """What was replaced; nothing where a constant is off that ``waits``."""
    if terms.find(facing.joined[0]) == terms.find(facing.joined[1]):
        return []
    found = [_described(terms, known, pair, allowed, facing.added) for pair in facing.pairs]
    if waits and not all(each["within"] for each in found):
        return []
    replaced += [each for i, each in enumerate(found) if each not in (*replaced, *found[:i])]
    terms.merge(*facing.joined, Rounded(tuple((each["a"], each["b"]) for each in found)))
    return found


def _described(terms: Terms, known: Sequence[_Names], pair: Views, allowed: Allowed, added: bool) -> dict[str, Any]:
    a, b, size = pair
    roots = [unmoved(terms, terms.find(c)) for c, _ in (a, b)]
    found = [(each, terms.arrays.get(stored_in(terms, root))) for each, root in zip(known, roots, strict=True)]
    names = [None if array is None else each.of(array) for each, array in found]  # an expression of several has none
    one, two = _met(terms, a, b, size)
    row = apart(terms, one, two, allowed=allowed, added=added)
    return {
        "name": names[1] or names[0] or "constant",
        "a": names[0],
        "b": names[1],
        "elements": terms.size(one),
        **row,
        **({"index": _place(known, names, row["values"])} if allowed and row["values"] else {}),
    }


def _place(known: Sequence[_Names], names: Sequence[str | None], values: Sequence[float]) -> list[int] | None:
    """Where the constants have their values, by the one that holds it."""
    found = (each.index(name, value) for each, name, value in list(zip(known, names, values, strict=True))[::-1])
    return next((place for place in found if place is not None), None)


def _met(terms: Terms, a: Operand, b: Operand, size: int) -> tuple[int, int]:
    """The elements of two constants that are seen at the same places, each pair once."""
    if a[1] is b[1] and terms.size(a[0]) == terms.size(b[0]):
        return a[0], b[0]
    left, right = (np.arange(size) % terms.size(c) + 1 if m is None else m.index.astype(np.int64) for c, m in (a, b))
    assert left.size == right.size == size
    places = np.divmod(np.unique(left * (terms.size(b[0]) + 1) + right), terms.size(b[0]) + 1)  # 0 stands for a zero
    one, two = (terms.move((c,), terms.maps.intern(at)) for (c, _), at in zip((a, b), places, strict=True))
    return one, two


class _Names:
    """A graph's names for its constants, found by their elements in any order."""

    def __init__(self, trace: Trace) -> None:
        named = [(str(_origin(v).name), held) for v, held in trace.values.items() if isinstance(held, np.ndarray)]
        self._held = [(name, held) for name, held in named if held.dtype.kind not in "OUSb"]
        self._known: dict[int, dict[tuple[int, int], str]] = {}

    def index(self, name: str | None, value: float) -> list[int] | None:
        """Where a constant has a value first."""
        held = next((held for known, held in self._held if known == name), np.zeros(0))
        for at in range(0, held.size, _PART):
            places = np.flatnonzero(held.reshape(-1)[at : at + _PART].astype(np.float64) == value)
            if places.size:
                release(held.reshape(-1))
                return [int(i) for i in np.unravel_index(at + places[0], held.shape)]
        return None

    def of(self, array: np.ndarray) -> str | None:
        """The first name of the elements, which may be stored as two of four bits in a byte."""
        if array.size not in self._known:
            twice = [(n, h) for n, h in self._held if h.dtype == np.uint8 and 2 * h.size == array.size]
            known = {_mark(np.stack([h & 15, h >> 4])): n for n, h in reversed(twice)}
            self._known[array.size] = known | {_mark(h): n for n, h in reversed(self._held) if h.size == array.size}
        return self._known[array.size].get(_mark(array))


def _origin(value: ir.Value) -> ir.Value:
    """What a value is a rearrangement of."""
    node = value.producer()
    return _origin(node.inputs[0]) if node is not None and node.op_type in _MOVES and node.inputs[0] is not None else value


def _mark(array: np.ndarray) -> tuple[int, int]:
    """The same for the same numbers in any order: sums of two functions of their bits."""
    flat, sums = array.reshape(-1), np.zeros(2, np.uint64)
    for at in range(0, flat.size, _PART):
        bits = (flat[at : at + _PART].astype(np.float64) + 0.0).view(np.uint64)
        sums += np.array([bits.sum(), (bits * (bits ^ bits >> np.uint64(29))).sum()], np.uint64)
    release(flat)
    return int(sums[0]), int(sums[1])
