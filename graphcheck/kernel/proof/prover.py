"""Proof windows: where keys stop meeting, evaluate only what differs, on the shared classes as free tensors.

Taking a shared class as free is sound: what holds for every value of it holds for the one it has. It can only fail to prove.
Three tiers, each over the classes that only one side has, in order of contraction depth:

rows     one row of a window that treats all rows alike stands for all of them (an MLP, a GELU, a LayerNorm)
near     whole tensors, on the shared classes as free tensors
inputs   everything, from the graph inputs; one prime first, since inequality modulo one prime is final
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphcheck.errors import Improbable, Late
from graphcheck.kernel.proof.lookalikes import ROW, Lookalikes, Marks, Recent
from graphcheck.kernel.proof.odds import Degrees, Risk, hashed
from graphcheck.kernel.proof.rows import RowReducer
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.renewal import digest
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Ew, Move, Term
from graphcheck.kernel.terms.why import Window, distinct
from graphcheck.kernel.values.domain import apply, by_depth, evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.residues import Residue, Residues, draw_primes


@dataclasses.dataclass
class Tier:
    """What one tier did: its primes, how many fingerprints and merges, and log2 of its error probability."""

    name: str
    primes: list[int]
    fingerprints: int = 0
    hashed: int = 0
    merges: int = 0
    undefined: int = 0
    degree: float = 0
    height: float = 0
    log2_error: float = -math.inf
    seconds: float = 0.0


class Prover:
    """Merges classes of two graphs in one store until their outputs meet or the tiers are used up."""

    def __init__(
        self,
        terms: Terms,
        roots_a: Sequence[int],
        roots_b: Sequence[int],
        rows: Iterable[int],
        *,
        seed: int,
        target: float,
        deadline: float = math.inf,
        budget: float = 4e9,
    ) -> None:
        self.terms, self.target, self.deadline, self.budget = terms, target, deadline, budget
        self._seed = seed
        self.over = False  # whether near windows cost too much
        self.roots = list(zip(roots_a, roots_b, strict=True))
        self.row_counts = sorted({r for r in rows if r > 1}, reverse=True)
        orders = {roots: terms.order(roots) for roots in {tuple(map(terms.find, r)) for r in (roots_a, roots_b)}}
        self.nodes = {side: orders[tuple(map(terms.find, roots))] for side, roots in (("a", roots_a), ("b", roots_b))}
        self.sides: dict[int, int] = {}
        for bit, side in ((1, "a"), (2, "b")):
            for cls in self.nodes[side]:
                self.sides[cls] = self.sides.get(cls, 0) | bit
        self._uses: Counter[int] = Counter()  # how many unmatched terms still need a value
        terms.on_merge = self._merged
        self.tiers: list[Tier] = []

    @functools.cached_property
    def seed(self) -> int:
        """Nobody can know the primes beforehand, and put them into a model; made once something is drawn."""
        return int(np.random.SeedSequence([self._seed, digest(self.terms)]).generate_state(1, np.uint64)[0])

    def _merged(self, kept: int, gone: int) -> None:
        self._uses[kept] += self._uses.pop(gone, 0)
        self.sides[kept] = self.sides.get(kept, 0) | self.sides.get(gone, 0)
        match self.terms.terms[kept]:
            case Term(Move(map_), (arg,), size) if self.terms.maps.inverse(map_) is not None:
                source = self.terms.find(arg)  # who has a rearrangement of all elements has the elements
                if self.terms.size(source) == size:
                    self.sides[source] = self.sides.get(source, 0) | self.sides[kept]

    def shared(self, cls: int) -> bool:
        """Whether both graphs have the class (constants are shared by nature)."""
        rep = self.terms.find(cls)
        return self.sides.get(rep, 0) == 3 or rep in self.terms.arrays

    def log2_error(self) -> float:
        """log2 of the probability that any merge of any tier was false."""
        return math.log2(sum(2.0**t.log2_error for t in self.tiers if t.merges) or 2.0**-1074)

    def open_pairs(self) -> list[int]:
        """Positions of the outputs that have not met."""
        return [i for i, (a, b) in enumerate(self.roots) if self.terms.find(a) != self.terms.find(b)]

    def unmatched(self) -> list[int]:
        """Terms that only one side has, in order of evaluation."""
        todo = {c for side in self.nodes.values() for c in side if not self.shared(c)}
        return by_depth(self.terms, todo)

    def prove(self) -> bool:
        """Whether all outputs met, by congruence, by rows, or in near windows; ``tiers`` then says how."""
        return self.by_rows() or self.by_windows()

    def by_rows(self, sparing: Callable[[], bool] = lambda: False) -> bool:
        """Whether all outputs met by congruence and row windows (the cheap part).

        ``sparing`` is asked, once very many elements stand behind the rows that were looked at, whether to leave the rest alone.
        """
        if self.open_pairs():
            self._rows(sparing, self.row_counts)
        return not self.open_pairs()

    def by_windows(self) -> bool:
        """Whether all outputs met in near windows."""
        self.over = bool(self.open_pairs()) and not self._near()
        return not self.open_pairs()

    def by_parts(self) -> bool:
        """Whether all outputs met once the first of the near windows, where those cost too much, are looked at as rows are."""
        if self.open_pairs() and self.over:
            self._rows(lambda: False, [1], _PART)
        return not self.open_pairs()

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise Late("the time limit was reached before the proof was done")

    # -- rows ----------------------------------------------------------------------------------------------------

    def _rows(self, sparing: Callable[[], bool], counts: Sequence[int], most: float = math.inf) -> None:
        """Rows are looked at in float64 first, on random free tensors: only those that look alike are evaluated exactly."""
        started = time.monotonic()
        tier = Tier("rows", draw_primes(self.seed, min(16, max(8, math.ceil(-math.log2(self.target) / 10) + 4))))
        domain, probe = Residues(tier.primes, self.seed), Float64(_Drawn(self.seed, self._leaf_size), bounds=False)
        first = Residues(tier.primes[:1], self.seed)  # most that look alike are not, which one prime tells
        risk, looked = Risk(Degrees(self.terms), len(tier.primes)), 0
        for count in counts:
            if not self.open_pairs():
                break
            reducer = RowReducer(self.terms, count, self.shared)
            lookalikes = Lookalikes()
            values, one, exact = Recent(self.terms, probe, _KEPT), *(Marks(self.terms, d, _KEPT) for d in (first, domain))
            read: dict[int, list[tuple[int, Map]]] = {}  # a part of rows: who reads it, and how
            for cls in self.unmatched():
                self._check_time()
                row = None if self.shared(cls) else reducer.reduce(cls)
                if row is None and (found := reducer.part(cls)) is not None:
                    read.setdefault(found[0], []).append((cls, found[1]))
                    cls, row = found[0], None if len(read[found[0]]) > 1 else reducer.reduce(found[0])
                if row is None or self.terms.size(row) > ROW:
                    continue
                behind = sum(map(self.terms.size, self.terms.order([row], values.__contains__)))
                if (looked := looked + behind) > _MANY and sparing():
                    break
                if (most := most - behind - _EACH) < 0:
                    break
                with np.errstate(all="ignore"):
                    value = values.made(row).value
                for other, other_row in lookalikes.of(self.terms.size(cls), value, (cls, row), one.of):
                    if self.terms.find(other) == self.terms.find(cls):
                        break
                    pair = [row, other_row]
                    if None not in (seen := {one.of(r) for r in pair}) and len(seen) > 1:
                        continue
                    risk.evaluated(self.terms.order([r for r in pair if r not in exact.known], exact.values.__contains__))
                    marks = [exact.of(r) for r in pair]
                    tier.fingerprints += 2
                    risk.compared(*pair, among=tier.fingerprints)
                    if marks[0] is not None and marks[0] == marks[1] and risk.so_far <= self.target:
                        tier.log2_error = math.log2(risk.so_far)
                        rules = distinct([*reducer.rules(cls), *reducer.rules(other)])
                        why = Window("rows", count, len(tier.primes), tier.log2_error, rules)
                        self.terms.merge(other, cls, why)
                        tier.merges += 1
                        for part, same in ((other, cls), (cls, other)):
                            for whole, map_ in read.get(part, ()):
                                self.terms.merge(self.terms.move((same,), map_), whole, why)
                        break
        self._close(tier, domain, risk, started)

    def _leaf_size(self, key: tuple[Any, ...]) -> int:
        """Elements of a free tensor of a row window (see :class:`RowReducer`)."""
        return self.terms.size(key[1]) // (key[2] if key[0] == "row" else 1)

    def _close(self, tier: Tier, domain: Residues, risk: Risk | None, started: float) -> None:
        tier.hashed, tier.undefined = domain.hashed, domain.undefined
        if risk is not None:
            tier.degree, tier.height = risk.worst.degree, risk.worst.height
        if tier.merges and tier.name != "rows" and risk is not None:
            tier.log2_error = risk.log2(len(tier.primes))
        tier.seconds = time.monotonic() - started
        self.tiers.append(tier)

    # -- near ----------------------------------------------------------------------------------------------------

    def _near(self) -> bool:
        """Whether they were within the budget."""
        started = time.monotonic()
        todo, risk, count = self._affordable(self.unmatched())
        tier = Tier("near", draw_primes(self.seed + 1, count))
        domain = Residues(tier.primes, self.seed + 1)
        cost = sum(_flops(self.terms, c) for c in todo) * count
        fits = cost <= self.budget
        if fits:
            why = Window("near", 0, count, risk.log2(count))
            self._evaluate_near(todo, domain, tier, why)
        else:
            tier.name = "near (skipped: over budget)"
        self._close(tier, domain, risk, started)
        return fits

    def _affordable(self, todo: list[int]) -> tuple[list[int], Risk, int]:
        """The terms whose degrees and heights are low enough for the error probability, the risk that they bring, and how
        many primes keep it under the target."""
        free = {self.terms.find(a) for c in todo for a in self.terms.terms[c].args if self.shared(a)}
        degrees = Degrees(self.terms, free)
        for most in (0.25, 0.02, 0.0):
            kept: list[int] = []
            usable = set(free)
            for cls in todo:
                args = [self.terms.find(a) for a in self.terms.terms[cls].args]
                if usable.issuperset(args) and degrees.size(cls, *args).chance <= most:
                    kept.append(cls)
                    usable.add(cls)
            risk = Risk(degrees)
            risk.evaluated(kept)
            risk.compared(*kept)
            count = risk.primes(self.target, 20)
            if count is not None:
                break
        assert count is not None
        return kept, risk, count

    def _evaluate_near(self, todo: list[int], domain: Residues, tier: Tier, why: Window) -> None:
        values: dict[int, Residue] = {}
        marks: dict[tuple[int, bytes], int] = {}
        self._uses = Counter(self.terms.find(a) for c in todo for a in self.terms.terms[c].args)
        for cls in todo:
            self._check_time()
            if self.shared(cls):
                self._used(cls, values)
                continue
            args = [self._value(a, values, domain) for a in self.terms.terms[cls].args]
            self._used(cls, values)
            if any(a is None for a in args):
                continue
            value = apply(self.terms, domain, cls, [a for a in args if a is not None])
            values[self.terms.find(cls)] = value
            mark = domain.fingerprint(value)
            if mark is None:
                continue
            tier.fingerprints += 1
            other = marks.setdefault((self.terms.size(cls), mark), cls)
            if self.terms.find(other) != self.terms.find(cls):
                kept = self.terms.merge(other, cls, why)
                values[kept] = value
                tier.merges += 1
                if not self.open_pairs():
                    return

    def _used(self, cls: int, values: dict[int, Residue]) -> None:
        """Drop the values that no unmatched term needs any more."""
        for arg in self.terms.terms[cls].args:
            rep = self.terms.find(arg)
            self._uses[rep] -= 1
            if self._uses[rep] <= 0:
                values.pop(rep, None)

    def _value(self, arg: int, values: dict[int, Residue], domain: Residues) -> Residue | None:
        """A computed value, a constant, or a free tensor drawn by class."""
        rep = self.terms.find(arg)
        if rep not in values:
            if rep in self.terms.arrays:
                values[rep] = domain.const(self.terms.arrays[rep])
            elif self.shared(rep):
                values[rep] = domain.free(f"class {rep}", self.terms.size(rep))
        return values.get(rep)

    # -- inputs --------------------------------------------------------------------------------------------------

    def from_inputs(self) -> bool | None:
        """Evaluate the open outputs from the graph inputs: True proved, False not equal modulo a prime, None undefined."""
        started = time.monotonic()
        roots = [self.terms.find(c) for i in self.open_pairs() for c in self.roots[i]]
        first = self._compare(
            roots, draw_primes(self.seed + 2, 1), self.seed + 2, Tier("inputs, one prime", []), started
        )
        if first is False:  # where a zero denominator hid the answer, the other primes may tell
            return False
        risk = Risk(Degrees(self.terms))
        risk.evaluated(self.terms.order(roots))
        for pair in zip(roots[::2], roots[1::2], strict=True):
            risk.compared(*pair, among=pair)
        count = risk.primes(self.target, 24)
        if count is None:
            raise Improbable(
                f"no number of primes keeps the error probability under {self.target:.1g}: the degrees are too high for it, or "
                "hashes of 128 bits too short"
            )
        tier = Tier("inputs", draw_primes(self.seed + 3, count))
        equal = self._compare(roots, tier.primes, self.seed + 3, tier, started, risk)
        if equal:
            for i in self.open_pairs():
                self.terms.merge(*self.roots[i], Window("inputs", 0, count, risk.log2(count)))
        return equal

    def _compare(
        self, roots: list[int], primes: list[int], seed: int, tier: Tier, started: float, risk: Risk | None = None
    ) -> bool | None:
        domain = Residues(primes, seed)
        tier.primes = primes
        values = evaluate(self.terms, domain, roots, visit=lambda *_: self._check_time())
        equal: bool | None = True
        for a, b in zip(roots[::2], roots[1::2], strict=True):
            assert values[a].shape == values[b].shape == (len(primes), self.terms.size(a))
            x, y = domain._canonical(values[a]), domain._canonical(values[b])
            defined = np.isfinite(values[a]) & np.isfinite(values[b])
            if (x != y)[defined].any():
                equal = False
            elif not defined.all() and equal:
                equal = None
        tier.fingerprints, tier.merges = len(roots), len(roots) // 2 if equal and risk is not None else 0
        self._close(tier, domain, risk, started)
        return equal


class _Drawn(dict[tuple[Any, ...], np.ndarray]):
    """Normal values for every free tensor, drawn by seed and key when they are asked for."""

    def __init__(self, seed: int, sizes: Callable[[tuple[Any, ...]], int]) -> None:
        super().__init__()
        self.seed, self.sizes = seed, sizes

    def __missing__(self, key: tuple[Any, ...]) -> np.ndarray:
        digest = hashlib.blake2b(f"{self.seed}:{key!r}".encode(), digest_size=8).digest()
        self[key] = np.random.default_rng(int.from_bytes(digest, "little")).standard_normal(self.sizes(key))
        return self[key]


_MANY = 4e6  # elements behind rows
_PART, _EACH = 1.5e8, 2e3  # elements that are looked at so, a class counting for so many besides
_KEPT = 2**23  # numbers of exact values that are kept for later rows, and of float64 ones


def _flops(terms: Terms, cls: int) -> float:
    term = terms.terms[cls]
    match term.verb:
        case Contract(k=k):
            return 2.0 * term.size * k
        case Ew("recip"):
            return term.size * 60.0
    return term.size * (60.0 if hashed(terms, cls) else 5.0)
