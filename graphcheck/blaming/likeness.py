"""Which tensor of a dump holds the values of which tensor of a model, where names say nothing.

Values are held against a float64 evaluation in graph order, in which every tensor that is paired already is taken as the
device has it. Hence a wrong op does not carry off what comes behind it, and a tensor far from what was computed is not taken
for another. A pair has to be nearer by ``MARGIN`` than every other tensor of the model is to this one of the dump, and every
other one of the dump to this tensor; tensors that hold the same numbers (a Reshape of one another) are left out of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from graphcheck.blaming.dumps.lazy import Array, head
from graphcheck.blaming.layouts import Laid, Shape, readings
from graphcheck.kernel.terms.verbs import Const, Contract, Leaf
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.precision import walks
from graphcheck.precision.program import Key, Program, Result, Step

MARGIN = 4.0  # so much nearer than any other
FARTHEST = 0.2  # of the magnitude in the mean: beyond, two tensors have nothing to do with each other, or all
FEWEST = 4  # elements: fewer say too little
_SURE = 0.02  # of steps on tensors that are far from what they should be, and of few elements
_MANY = 64  # elements that may be FARTHEST
_SAMPLE = 2048
_TRIALS = 256  # of steps on tensors that are far from what they should be
_MOVING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast"))  # the same numbers


def _places(shape: Shape) -> tuple[np.ndarray, ...]:
    """Where a tensor is looked at: always the same, and everywhere if it is small."""
    count = math.prod(shape)
    flat = np.arange(count) if count <= _SAMPLE else np.random.default_rng(count).integers(0, count, _SAMPLE)
    return np.unravel_index(flat, shape) if shape else (np.zeros(1, np.int64),)


def picked(x: Array, way: Laid) -> np.ndarray:
    """The looked-at elements, in float64."""
    seen = way.of(x)
    if not _is_number(seen):
        return np.full(1, np.nan)
    return np.asarray(seen[_places(way.shape)] if way.shape else seen.reshape(1), np.float64)


def looked(x: Array) -> np.ndarray:
    """The looked-at elements of a tensor of the model."""
    return picked(x, Laid("", x.shape, x.shape))


def _is_number(x: Array) -> bool:
    """Whether an array holds numbers, and not bits of an unknown type."""
    return x.dtype.kind in "fiub" or (x.dtype.kind == "V" and hasattr(ml_dtypes, x.dtype.name))


def apart(x: np.ndarray, y: np.ndarray) -> float:
    """How far x is from y in the mean, each element by at most 1, in units of y's median."""
    if x.shape != y.shape:
        return 1.0
    with np.errstate(all="ignore"):
        finite = np.isfinite(y)
        size = np.abs(y[finite & (y != 0)])
        scale = float(np.median(size)) if size.size else 0.0  # a mask's -10000 is no measure of the rest
        off = np.abs(x - y) / scale if scale else (x != y).astype(np.float64)
        equal = (x == y) | (np.isnan(x) & np.isnan(y))
        off = np.where(finite & np.isfinite(off), np.minimum(off, 1.0), np.where(equal, 0.0, 1.0))
    return float(off.mean())


def samples(program: Program, feeds: Mapping[str, Array], tick: Callable[[], None]) -> dict[str, np.ndarray]:
    """Name -> the looked-at elements of a float64 evaluation from the inputs."""
    found: dict[str, np.ndarray] = {}

    def settle(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
        if result.name:
            found[result.name] = _look(value, result)
        return value

    walks.walk(program, walks.fed(program, feeds), settle, tick=tick)
    return found


class Search:
    """Pairs by value, in graph order."""

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, Array],
        feeds: Mapping[str, Array],
        pairs: Mapping[str, tuple[str, Laid]],
        lost: list[str],
        tick: Callable[[], None],
    ) -> None:
        self.program, self.tensors, self.tick = program, tensors, tick
        self.pairs, self.lost, self.notes = dict(pairs), lost, list[str]()
        self.known: dict[Key, np.ndarray] = walks.fed(program, feeds)
        self.samples = samples(program, feeds, tick)
        self.results = {r.name: r for step in program.steps for r in step.results if r.name}
        self.group = _groups(program)
        self.heads = {name: head(tensors, name)[0] for name in lost}
        self._read: dict[tuple[str, Shape, str], np.ndarray] = {}
        self.waiting: dict[Key, Result] = {}  # results that no tensor was near to
        self.trials = _TRIALS
        self.plain: set[bytes] = set()  # what is paired as it is

    def run(self) -> dict[str, tuple[str, Laid]]:
        """The model's name -> the dump's, and how it is read: those that were given, and those that were found."""
        last = {key: place for place, step in enumerate(self.program.steps) for key in step.reads}
        for place, step in enumerate(self.program.steps):
            if not self.lost:
                break
            self.tick()
            self._visit(step, self._evaluated(step, {}))
            for key in step.reads:
                if last[key] == place:
                    self.known.pop(key, None)
                    self.waiting.pop(key, None)
        return self.pairs

    def _evaluated(self, step: Step, instead: Mapping[Key, np.ndarray]) -> dict[Key, np.ndarray]:
        known = {key: instead.get(key, self.known.get(key)) for key in step.reads}
        with np.errstate(all="ignore"):
            domain = Float64({key: x for key, x in known.items() if x is not None}, bounds=False)
            found = evaluate(self.program.terms, domain, [r.cls for r in step.results])
        return {r.key: found[self.program.terms.find(r.cls)].value for r in step.results}

    def _visit(self, step: Step, values: Mapping[Key, np.ndarray]) -> None:
        for result in step.results:
            value = values[result.key]
            if result.name in self.pairs:
                self._settle(result)
                continue
            self.known[result.key] = value
            if (near := self._nearest(result, _look(value, result))) is not None:
                self._take(result, *near)
            elif self._candidates(result):
                self.waiting[result.key] = result
        if any(r.key in self.waiting for r in step.results) and any(key in self.waiting for key in step.reads):
            self._tried(step)

    def _settle(self, result: Result) -> None:
        """What the device has is what is read from here on."""
        name, way = self.pairs[result.name]
        x = way.of(self.tensors[name])
        if _is_number(x):
            self.known[result.key] = np.asarray(x, np.float64).reshape(-1)

    def _take(self, result: Result, name: str, way: Laid) -> None:
        self.pairs[result.name] = (name, way)
        if not way.layout:
            self.plain.add(self._flat(name))
        self.lost.remove(name)
        self.waiting.pop(result.key, None)
        self._settle(result)

    def _candidates(self, result: Result) -> list[tuple[str, Laid]]:
        if not result.name:
            return []
        ways = [(name, way) for name in self.lost for way in readings(self.heads[name], result.shape)]
        return [(name, way) for name, way in ways if not way.layout or self._flat(name) not in self.plain]

    def _flat(self, name: str) -> bytes:
        """The looked-at elements as they lie: a Reshape of what is paired as it is, is not another tensor turned."""
        size = (math.prod(self.heads[name]),)
        return self._seen(name, Laid("flat", size, size)).tobytes()

    def _seen(self, name: str, way: Laid) -> np.ndarray:
        key = (name, way.shape, way.layout)
        if key not in self._read:
            self._read[key] = picked(self.tensors[name], way)
        return self._read[key]

    def _nearest(self, result: Result, look: np.ndarray) -> tuple[str, Laid] | None:
        """The tensor of the dump that is this one and no other; None where there is a doubt."""
        ranked = [(apart(self._seen(name, way), look), name, way) for name, way in self._candidates(result)]
        ranked.sort(key=lambda row: (row[0], self.heads[row[1]] != result.shape, bool(row[2].layout)))
        if not ranked or not ranked[0][0] <= (FARTHEST if look.size >= _MANY else _SURE):
            return None
        near = ranked[0][0]
        same = [row for row in ranked if row[0] <= near * (1 + 1e-9)]
        best = min(same, key=lambda row: (self.heads[row[1]] != result.shape, bool(row[2].layout)))
        seen = self._seen(best[1], best[2])
        for d, name, way in ranked:
            other = name != best[1] and not np.array_equal(self._seen(name, way), seen, equal_nan=True)
            if other and d < max(near * MARGIN, 1e-12):
                return None
        return None if self._is_another(result, best[1], near, bool(best[2].layout)) else best[1:]

    def _is_another(self, result: Result, name: str, near: float, moved: bool) -> bool:
        """Whether another tensor of the model may be this one of the dump."""
        for other, look in self.samples.items():
            if other == result.name or other in self.pairs:
                continue
            its = self.results[other]
            ways = list(readings(self.heads[name], its.shape))
            if not ways or (its.shape == result.shape and _same(look, self.samples[result.name])):
                continue
            if self.group.get(other) == self.group.get(result.name) is not None:
                if moved and its.shape == self.heads[name]:
                    return True  # it is that one as it is, and this one only when it is turned
                continue
            if min(apart(self._seen(name, way), look) for way in ways) < max(near * MARGIN, 1e-12):
                return True
        return False

    def _tried(self, step: Step) -> None:
        """A tensor that is near to none is this step's input if the step, on it, gives another one: asked of steps with weights
        of their own alone, since a Relu of one tensor is that of another layer's as well."""
        waiting = [key for key in step.reads if key in self.waiting]
        outcome = [r for r in step.results if r.key in self.waiting]
        if len(waiting) != 1 or len(outcome) != 1 or not _weighs(self.program, outcome[0]):
            return
        before, after = self.waiting[waiting[0]], outcome[0]
        found: list[tuple[float, str, Laid, str, Laid]] = []
        for name, way in self._candidates(before):
            x = np.asarray(way.of(self.tensors[name]))
            if not _is_number(x) or not self.trials or not np.isfinite(x).all():
                continue
            self.trials -= 1
            look = _look(self._evaluated(step, {before.key: x.astype(np.float64).reshape(-1)})[after.key], after)
            found += [
                (apart(self._seen(other, turned), look), name, way, other, turned)
                for other, turned in self._candidates(after)
                if other != name
            ]
        found.sort(key=lambda row: row[0])
        if found and found[0][0] <= _SURE and all(row[0] > found[0][0] * MARGIN for row in found[1:]):
            _, name, way, other, turned = found[0]
            self._take(before, name, way)
            self._take(after, other, turned)
            self.notes.append(
                f"{name!r} is far from what {before.name!r} should be, and what follows was computed from it"
            )


def _weighs(program: Program, result: Result) -> bool:
    """Whether a step multiplies with weights of its own."""
    terms = program.terms
    below = [terms.terms[cls].verb for cls in terms.order([result.cls])]
    sizes = [terms.terms[cls].size for cls in terms.order([result.cls]) if isinstance(terms.terms[cls].verb, Const)]
    own = any(isinstance(verb, Leaf) and verb.key in program.constants for verb in below)
    return any(isinstance(verb, Contract) for verb in below) and (own or max(sizes, default=0) >= FEWEST)


def _look(value: np.ndarray, result: Result) -> np.ndarray:
    return value.reshape(result.shape)[_places(result.shape)] if result.shape else value.reshape(1)


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    return apart(x, y) <= 1e-12


def _groups(program: Program) -> dict[str, str]:
    """Name -> the first name of those that hold the same numbers, perhaps in another order."""
    made: dict[Any, str] = {}
    found: dict[str, str] = {}
    for step in program.steps:
        moves = step.op_type in _MOVING and len(step.reads) == 1 and len(step.results) == 1
        for result in step.results:
            first = made.get(step.reads[0], result.name) if moves else result.name
            made[result.key] = found[result.name] = first
    return found
