"""The walk over a model's steps that holds each dumped tensor against what the device's own inputs to its operator explain.

A tensor that was not dumped is computed from those that were, with its radius, so that what lies between dumped tensors is
judged as a whole. What was dumped, right or wrong, is what the steps behind it read: only the faulty one is named.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.blaming import recurrent
from graphcheck.blaming.arithmetic import Arithmetic
from graphcheck.blaming.device import OWN, Device, Marked, reading, stored
from graphcheck.blaming.dumps.lazy import head
from graphcheck.blaming.exact import Exact, numbers
from graphcheck.blaming.exact import apart as exactly_apart
from graphcheck.blaming.holding import Held, Told, apart, held, quickly, told
from graphcheck.blaming.steps import Cut, Skipped, leaves
from graphcheck.codes import Coded
from graphcheck.errors import Exhausted, Undecided
from graphcheck.kernel.values.bounds import limits
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.precision.program import Key, Result, Step
from graphcheck.precision.walks import largest

_DOUBT = 0.125  # of the bound, from which on float64's own part in it may matter
_MOST = 8  # tensors that are named to be dumped next


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """A dumped tensor, and what is told of it.

    ``steps`` are those of its region, in order, ``reads`` the dumped tensors that the region begins at, ``likely`` whether it is
    within what is likely, ``exact`` whether float64 did not tell; ``got`` is what was dumped where it is told of.
    """

    step: Step
    result: Result
    steps: tuple[Step, ...]
    reads: tuple[str, ...]
    seen: Told
    likely: bool
    got: float
    expected: float
    exact: bool = False

    @property
    def ratio(self) -> float:
        """Above 1: convicted."""
        if not self.seen.deviation:
            return 0.0
        return self.seen.deviation / self.seen.bound if self.seen.bound else np.inf

    def to_json(self) -> dict[str, Any]:
        """An entry of ``convicted`` or ``suspect``."""
        shape = self.result.shape
        return {
            "node": self.step.node,
            "op_type": self.step.op_type,
            "output": self.result.name,
            "deviation": self.seen.deviation,
            "bound": self.seen.bound,
            "ratio": self.ratio,
            "where": [int(i) for i in np.unravel_index(self.seen.where, shape)] if shape else [],
            "got": self.got,
            "expected": self.expected,
            "elements": self.seen.beyond,
            "of": int(np.prod(shape)),
            "scale": self.seen.scale,
            "region": [step.node for step in self.steps],
            "reads": list(self.reads),
        }


@dataclasses.dataclass(frozen=True)
class Drift:
    """A dumped tensor along the depth: how far it is from a float64 run of the whole model and from what its own inputs give, and
    what rounding explains, each in the largest magnitude of the tensor; None: not known."""

    tensor: str
    node: str
    drift: float | None
    local: float | None
    bound: float | None


def halving(steps: Sequence[Step]) -> list[str]:
    """The tensors whose dump would cut a region in two: those that its first half hands to its second."""
    half = len(steps) // 2
    read = {key for step in steps[half:] for key in step.reads}
    return [result.name for step in steps[:half] for result in step.results if result.key in read][-_MOST:]


def _narrowed(steps: Sequence[Step]) -> str:
    """What to do about a region that is too large to be judged."""
    if len(steps) < 2:
        return ""
    return f" over {len(steps)} nodes since the last tensor that was dumped: dump {', '.join(map(repr, halving(steps)))} as well"


class Walk:
    """Judges the steps of a program; ``rows``, ``skipped``, ``curve``: what was found, ``stopped``: the limit that ended it."""

    def __init__(
        self,
        steps: Cut,
        tensors: Mapping[str, np.ndarray],
        arithmetic: Arithmetic,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        program = self.program = steps.program
        self.scaled, self.tensors, self.arithmetic, self.tick = steps.scaled, tensors, arithmetic, tick
        self.rows: list[Judged] = []
        self.skipped: list[Skipped] = []
        self.curve: list[Drift] = []
        self.stopped: str | None = None
        self.makers = {result.key: (step, result) for step in program.steps for result in step.results}
        self.heads = {name: head(tensors, name) for name in tensors}
        self._shapes = {result.name: result.shape for _, result in self.makers.values()}
        self._order = {step: place for place, step in enumerate(program.steps)}
        self._known: dict[Key, Real] = {}
        self._whole: dict[Key, np.ndarray] = {}  # of the float64 run from the model's inputs
        self._last = {key: place for place, step in enumerate(program.steps) for key in step.reads}

    def run(self) -> Walk:
        """Judge every step, or those that the limits leave time and memory for."""
        for key, array in self.program.constants.items():
            self._whole[key] = array.astype(np.float64).reshape(-1)
        for key in self.program.inputs:
            if (found := self._dump(str(key[1]))) is not None:
                self._whole[key] = found
        for place, step in enumerate(self.program.steps):
            try:
                self.tick()
                with np.errstate(all="ignore"):
                    self._step(step)
            except (Exhausted, MemoryError) as error:
                self._stop(place, str(error) if isinstance(error, Exhausted) else "the memory limit was reached")
                break
            for key in (*step.reads, *(r.key for r in step.results)):
                if self._last.get(key, place) <= place:
                    self._known.pop(key, None)
                    self._whole.pop(key, None)
        return self

    def _stop(self, place: int, reason: str) -> None:
        """Leave the steps from one on unjudged."""
        self.stopped = reason
        told = {row.result.name for row in self.rows} | {each.output for each in self.skipped}
        for step in self.program.steps[place:]:
            for result in step.results:
                if result.name in self.heads and result.name not in told:
                    self._skip(step, result, reason)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a dumped tensor as the model has it."""
        return self._shapes.get(name) or self.heads[name][0]

    def earlier(self, step: Step, size: int) -> list[str]:
        """Dumped tensors of a size that steps before one give, the last first."""
        results = [r for each in reversed(self.program.steps[: self._order[step]]) for r in each.results]
        return [r.name for r in results if math.prod(r.shape) == size and self._is_dumped(r.key)]

    # -- one step ----------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        whole = self._drifted(step)
        missing = next((key for key in step.reads if self._real(key) is None), None)
        if missing is None:
            made = self._made(step, self._known, worst=False)
        for result in step.results:
            dumped = self._fitting(step, result)
            if missing is not None:
                if dumped is not None:
                    self._skip(step, result, f"its input {self._name(missing)!r} is neither dumped nor computed", "GC401")
                continue
            real = made[result.key]
            if dumped is None:
                self._known[result.key] = self._settled(result, real)
                continue
            judged = self._judged(step, result, real, dumped)
            self._told(judged, step, result, dumped, whole.get(result.key))
        self._whole |= {key: value for key, value in whole.items() if key in self._last}

    def _told(self, judged: Judged | str, step: Step, result: Result, dumped: np.ndarray, whole: np.ndarray | None) -> None:
        """Keep what a tensor was judged as."""
        if isinstance(judged, str):
            self._skip(step, result, judged)
        else:
            self.rows.append(judged)
        scale = largest(dumped) if isinstance(judged, str) else judged.seen.scale
        drift = None if whole is None or not scale else apart(dumped, whole) / scale
        near = None if isinstance(judged, str) or not scale else (judged.seen.deviation / scale, judged.seen.bound / scale)
        self.curve.append(Drift(result.name, step.node, drift, *(near or (None, None))))

    def _made(self, step: Step, known: Mapping[Key, Real], *, worst: bool, own: float = OWN) -> dict[Key, Real]:
        """What a step gives, by key, with the radius that is likely or at the worst, ``own`` being float64's part in it."""
        fused = any(key in self.makers and not self._is_dumped(key) for key in step.reads)
        fused = fused or not any(self._is_dumped(r.key) for r in step.results)
        numbers = any(r.name in self.scaled for r in step.results)
        tiled = step.op_type in ("Conv", "FusedConv")
        domain = Device(known, self.arithmetic, worst=worst, fused=fused, numbers=numbers, tiled=tiled, own=own)
        roots, first = [r.cls for r in step.results], step.results[0]
        if step.op_type in recurrent.OPS and self._is_dumped(first.key) and (dumped := self._real(first.key)) is not None:
            found = recurrent.stepwise(self.program.terms, domain, roots, dumped)
        else:
            found = evaluate(self.program.terms, domain, roots)
        made = {r.key: found[self.program.terms.find(r.cls)] for r in step.results}
        return {key: self._ended(step, real, known) for key, real in made.items()}

    def _ended(self, step: Step, real: Real, known: Mapping[Key, Real]) -> Real:
        """What an operator rounds that no term tells: the coordinates of a Resize, the roots of unity of a Fourier transform."""
        unit = self.arithmetic.inside.unit
        if step.op_type in ("Resize", "Upsample"):
            sizes = [max(r.shape, default=1) for r in step.results]
            return Real(real.raw, real.error + 8 * unit * max(sizes, default=1) * largest(real.value))
        if step.op_type in ("DFT", "STFT"):
            length = sum(float(np.square(known[key].value).sum()) for key in step.reads) ** 0.5
            return Real(real.raw, real.error + 32 * unit * length)
        return real

    def _drifted(self, step: Step) -> dict[Key, np.ndarray]:
        """What a step gives in a float64 run of the whole model, where its inputs are known."""
        if any(key not in self._whole for key in step.reads):
            return {}
        domain = Float64(self._whole, bounds=False)
        found = evaluate(self.program.terms, domain, [r.cls for r in step.results])
        made = {r.key: (r, found[self.program.terms.find(r.cls)].value) for r in step.results}
        whole = {key for key, (r, _) in made.items() if r.kind is not None and not r.kind.is_float}
        return {key: r.kind.rounded(x) if key in whole and r.kind else x for key, (r, x) in made.items()}

    # -- what is known -----------------------------------------------------------------------------------------------

    def _dump(self, name: str) -> np.ndarray | None:
        """A dumped tensor, flat, in float64."""
        return np.asarray(self.tensors[name]).reshape(-1).astype(np.float64) if name in self.heads else None

    def _fitting(self, step: Step, result: Result) -> np.ndarray | None:
        """What was dumped of a result, where its shape is that of the model."""
        if result.name not in self.heads:
            return None
        held, _ = self.heads[result.name]
        if tuple(d for d in held if d != 1) != tuple(d for d in result.shape if d != 1):
            self._skip(step, result, f"it was dumped as {list(held)}, and the model gives {list(result.shape)}", "GC402")
            return None
        return np.asarray(self.tensors[result.name]).reshape(-1)

    def _real(self, key: Key) -> Real | None:
        """What is known of a tensor that is read: as it was dumped, or computed from what was."""
        if key in self._known:
            return self._known[key]
        if key in self.program.constants:
            value = self.program.constants[key].astype(np.float64).reshape(-1)
            self._known[key] = Real(value, np.broadcast_to(np.zeros(1), value.shape))
            return self._known[key]
        if key in self.makers:
            if not self._is_dumped(key):
                return None
            dtype = self.makers[key][1].dtype
        elif str(key[1]) not in self.heads:
            return None
        else:
            dtype = self.program.inputs.get(key, self.heads[str(key[1])][1])
        found = self.tensors[self._name(key)]
        value = np.asarray(found).reshape(-1).astype(np.float64)
        rounds = dtype.kind != "b" and limits(dtype) is None
        store = self.arithmetic.of(dtype, found.dtype)
        error = reading(value, store) if rounds else np.broadcast_to(np.zeros(1), value.shape)
        self._known[key] = Real(value, error)
        return self._known[key]

    def _name(self, key: Key) -> str:
        return self.makers[key][1].name if key in self.makers else str(key[1])

    def _skip(self, step: Step, result: Result, reason: str, code: str = "GC403") -> None:
        if not any(s.output == result.name for s in self.skipped[-2:]):
            self.skipped.append(Skipped(step.node, step.op_type, result.name, Coded(reason, code)))

    # -- the judgement -----------------------------------------------------------------------------------------------

    def _settled(self, result: Result, real: Real) -> Real:
        """What is known of a result that was not dumped, once it may have been stored."""
        store, kind = self.arithmetic.of(result.dtype), result.kind
        if kind is not None and not kind.is_float:
            over = np.maximum(np.maximum(real.value - kind.high, kind.low - real.value), 0.0)
            return Real(real.raw, real.error + 0.5 + over)
        if result.dtype.kind in "biu":
            return real
        error = stored(real.value, real.error, store)
        error = np.where(real.value + error >= store.over, np.inf, error)
        error = np.where(np.isneginf(real.value), 0.0, error)
        return Marked(real.raw, error, real.mark, real.level) if isinstance(real, Marked) else Real(real.raw, error)

    def _judged(self, step: Step, result: Result, real: Real, dumped: np.ndarray) -> Judged | str:
        """The tensor by what is likely; by the bound where it is beyond that."""
        store = self.arithmetic.of(result.dtype, self.heads[result.name][1])
        steps, reads = self.region(step)
        seen = quickly(result, real, dumped, store)
        likely, exact = seen is not None, False
        if seen is None:
            near = dumped.astype(np.float64)
            found = held(result, real, near, store)
            likely = isinstance(found, tuple) and not found[0].any()
            exact = self._is_far(result, near, real)
            if exact:
                found = self._exactly(steps, step, result, dumped)
            elif not likely:
                found = held(result, self.worst(steps, step, result), near, store)
            if isinstance(found, str):
                return found + _narrowed(steps)
            seen = told(found, real.value)
        if store.unit <= OWN and _DOUBT * seen.bound < seen.deviation <= seen.bound:
            found = self._exactly(steps, step, result, dumped)
            if isinstance(found, tuple) and found[0].any():
                exact, seen = True, told(found, real.value)
        got, expected = float(dumped[seen.where]), float(real.value[seen.where])
        return Judged(step, result, steps, reads, seen, likely, got, expected, exact)

    @staticmethod
    def _is_far(result: Result, dumped: np.ndarray, real: Real) -> bool:
        """Whether there are integers that float64 does not tell apart."""
        return result.dtype.kind in "iu" and bool(max(largest(dumped), largest(real.value)) >= 2.0**53)

    def _exactly(self, steps: Sequence[Step], last: Step, result: Result, dumped: np.ndarray) -> Held | str:
        """A result of a region in rational numbers; the reason where it has none."""
        try:
            stored = self.program.constants
            known = {k: stored[k] if k in stored else np.asarray(self.tensors[self._name(k)]) for k in leaves(steps)}
            for step in steps:
                made = evaluate(self.program.terms, Exact(known), [r.cls for r in step.results])
                known |= {r.key: made[self.program.terms.find(r.cls)] for r in step.results}
            value, got = known[result.key], numbers(dumped)
        except Undecided as error:
            return f"float64 does not tell its numbers apart: {error}"
        radius = np.zeros(1) if self.is_whole(steps) else self.worst(steps, last, result, own=0.0).error
        real = Real(value.astype(np.float64), np.broadcast_to(radius, value.shape))
        store = self.arithmetic.of(result.dtype, dumped.dtype)
        return held(result, real, dumped.astype(np.float64), store, exactly=exactly_apart(got, value, result.dtype))

    def is_whole(self, steps: Sequence[Step]) -> bool:
        """Whether a region reads and makes whole numbers alone, so that nothing in it rounds."""
        stored = self.program.constants
        read = (stored[key].dtype if key in stored else self.heads[self._name(key)][1] for key in leaves(steps))
        return all(t.kind in "biu" for t in itertools.chain((r.dtype for step in steps for r in step.results), read))

    def region(self, step: Step) -> tuple[tuple[Step, ...], tuple[str, ...]]:
        """The steps between dumped tensors and the results of one, it included, in order, and the tensors that they begin at."""
        found: dict[Step, None] = {step: None}
        reads: dict[str, None] = {}
        stack = list(step.reads)
        while stack:
            key = stack.pop()
            if key in self.makers and not self._is_dumped(key):
                inner = self.makers[key][0]
                if inner not in found:
                    found[inner] = None
                    stack += inner.reads
            elif key not in self.program.constants:
                reads[self._name(key)] = None
        return tuple(sorted(found, key=self._order.__getitem__)), tuple(reads)

    def _is_dumped(self, key: Key) -> bool:
        result = self.makers[key][1]
        return result.name in self.heads and math.prod(self.heads[result.name][0]) == math.prod(result.shape)

    def exact(self, name: str, like: Result) -> Real | None:
        """A tensor by the bound, from what was dumped before it; None if it is not computed, or has another size."""
        found = next((pair for pair in self.makers.values() if pair[1].name == name), None)
        if found is None or np.prod(found[1].shape) != np.prod(like.shape):
            return None
        steps, _ = self.region(found[0])
        with np.errstate(all="ignore"):
            return self.worst(steps, *found)

    def worst(self, steps: Sequence[Step], last: Step, result: Result, own: float = OWN) -> Real:
        """A result by the bound, its region computed anew from the dump."""
        known: dict[Key, Real] = {}
        for key in leaves(steps):
            kept = key in self._known
            if (real := self._real(key)) is None:
                raise Undecided(f"{self._name(key)!r} is neither dumped nor computed")
            known[key] = real
            if not kept:
                del self._known[key]
        for step in steps:
            made = self._made(step, known, worst=True, own=own)
            if step is last:
                return made[result.key]
            known |= {r.key: self._settled(r, made[r.key]) for r in step.results}
        raise AssertionError("a region ends with its last step")
