"""The walk over a model's steps that holds each dumped tensor against what the device's own inputs to its operator explain.

A tensor that was not dumped is computed from those that were, with its radius, so that what lies between dumped tensors is
judged as a whole. What was dumped, right or wrong, is what the steps behind it read: only the faulty one is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from graphcheck.blaming.arithmetic import Arithmetic, Format
from graphcheck.blaming.device import Device, Marked, reading, stored
from graphcheck.blaming.steps import Skipped
from graphcheck.errors import Undecided
from graphcheck.kernel.values.bounds import limits
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.precision.program import Key, Program, Result, Step

_SPREAD = 0.5  # a bound of so much of the largest magnitude, everywhere, judges nothing
_ENDS = 0.99  # of the largest number, where a device saturates in place of an infinity


@dataclasses.dataclass(frozen=True, eq=False)
class Judged:
    """A dumped tensor: its largest deviation beyond the bound and the bound there, or both where their ratio is largest;
    ``scale`` is the largest exact magnitude.

    ``steps`` are those of its region, in order, ``reads`` the dumped tensors that the region begins at; ``elements`` are those
    beyond the bound, of ``size`` of which ``unknown`` have none.
    """

    step: Step
    result: Result
    steps: tuple[Step, ...]
    reads: tuple[str, ...]
    deviation: float
    bound: float
    where: int
    likely: bool
    elements: int
    unknown: int
    scale: float
    got: float
    expected: float

    @property
    def ratio(self) -> float:
        """Above 1: convicted."""
        if not self.deviation:
            return 0.0
        return self.deviation / self.bound if self.bound else np.inf

    def to_json(self) -> dict[str, Any]:
        """An entry of ``convicted`` or ``suspect``."""
        shape = self.result.shape
        return {
            "node": self.step.node,
            "op_type": self.step.op_type,
            "output": self.result.name,
            "deviation": self.deviation,
            "bound": self.bound,
            "ratio": self.ratio,
            "where": [int(i) for i in np.unravel_index(self.where, shape)] if shape else [],
            "got": self.got,
            "expected": self.expected,
            "elements": self.elements,
            "of": int(np.prod(shape)),
            "scale": self.scale,
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


class Walk:
    """Judges the steps of a program; ``rows``, ``skipped`` and ``curve`` are what was found."""

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, np.ndarray],
        arithmetic: Arithmetic,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.program, self.tensors, self.arithmetic, self.tick = program, tensors, arithmetic, tick
        self.rows: list[Judged] = []
        self.skipped: list[Skipped] = []
        self.curve: list[Drift] = []
        self.makers = {result.key: (step, result) for step in program.steps for result in step.results}
        self._shapes = {result.name: result.shape for _, result in self.makers.values()}
        self._known: dict[Key, Real] = {}
        self._whole: dict[Key, np.ndarray] = {}  # of the float64 run from the model's inputs
        self._last = {key: place for place, step in enumerate(program.steps) for key in step.reads}

    def run(self) -> Walk:
        """Judge every step."""
        for key, array in self.program.constants.items():
            self._whole[key] = array.astype(np.float64).reshape(-1)
        for key in self.program.inputs:
            if (found := self._dump(str(key[1]))) is not None:
                self._whole[key] = found
        for place, step in enumerate(self.program.steps):
            self.tick()
            with np.errstate(all="ignore"):
                self._step(step)
            for key in (*step.reads, *(r.key for r in step.results)):
                if self._last.get(key, place) <= place:
                    self._known.pop(key, None)
                    self._whole.pop(key, None)
        return self

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a dumped tensor as the model has it."""
        return self._shapes.get(name, self.tensors[name].shape)

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
                    self._skip(step, result, f"its input {self._name(missing)!r} is neither dumped nor computed")
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
        scale = float(np.abs(dumped[np.isfinite(dumped)]).max(initial=0.0)) if isinstance(judged, str) else judged.scale
        drift = None if whole is None or not scale else _largest(dumped - whole) / scale
        near = None if isinstance(judged, str) or not scale else (judged.deviation / scale, judged.bound / scale)
        self.curve.append(Drift(result.name, step.node, drift, *(near or (None, None))))

    def _made(self, step: Step, known: Mapping[Key, Real], *, worst: bool) -> dict[Key, Real]:
        """What a step gives, by key, with the radius that is likely or at the worst."""
        fused = any(key in self.makers and not self._is_dumped(key) for key in step.reads)
        fused = fused or not any(self._is_dumped(r.key) for r in step.results)
        domain = Device(known, self.arithmetic, worst=worst, fused=fused)
        found = evaluate(self.program.terms, domain, [r.cls for r in step.results])
        made = {r.key: found[self.program.terms.find(r.cls)] for r in step.results}
        return {key: self._ended(step, real) for key, real in made.items()}

    def _ended(self, step: Step, real: Real) -> Real:
        """A Resize takes its coordinates in the format of its sums, each of which is as far off as it is large."""
        if step.op_type not in ("Resize", "Upsample"):
            return real
        sizes = [max(r.shape, default=1) for r in step.results]
        reach = 8 * self.arithmetic.inside.unit * max(sizes, default=1) * float(np.abs(real.value).max(initial=0.0))
        return Real(real.raw, real.error + reach)

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
        found = self.tensors.get(name)
        return None if found is None else np.asarray(found).reshape(-1).astype(np.float64)

    def _fitting(self, step: Step, result: Result) -> np.ndarray | None:
        """What was dumped of a result, where its shape is that of the model."""
        found = self.tensors.get(result.name)
        if found is None:
            return None
        if tuple(d for d in found.shape if d != 1) != tuple(d for d in result.shape if d != 1):
            self._skip(step, result, f"it was dumped as {list(found.shape)}, and the model gives {list(result.shape)}")
            return None
        return self._dump(result.name)

    def _real(self, key: Key) -> Real | None:
        """What is known of a tensor that is read: as it was dumped, or computed from what was."""
        if key in self._known:
            return self._known[key]
        if key in self.program.constants:
            value = self.program.constants[key].astype(np.float64).reshape(-1)
            self._known[key] = Real(value, np.broadcast_to(np.zeros(1), value.shape))
            return self._known[key]
        if key in self.makers:
            _, result = self.makers[key]
            found = self.tensors.get(result.name)
            if found is None or found.size != int(np.prod(result.shape)):
                return None
            dtype = result.dtype
        else:
            found = self.tensors.get(str(key[1]))
            if found is None:
                return None
            dtype = self.program.inputs.get(key, found.dtype)
        value = np.asarray(found).reshape(-1).astype(np.float64)
        rounds = dtype.kind != "b" and limits(dtype) is None
        store = self.arithmetic.of(dtype, found.dtype)
        error = reading(value, store) if rounds else np.broadcast_to(np.zeros(1), value.shape)
        self._known[key] = Real(value, error)
        return self._known[key]

    def _name(self, key: Key) -> str:
        return self.makers[key][1].name if key in self.makers else str(key[1])

    def _skip(self, step: Step, result: Result, reason: str) -> None:
        if not any(s.output == result.name for s in self.skipped[-2:]):
            self.skipped.append(Skipped(step.node, step.op_type, result.name, reason))

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
        store = self.arithmetic.of(result.dtype, self.tensors[result.name].dtype)
        found = held(result, real, dumped, store)
        steps, reads = self.region(step)
        likely = isinstance(found, tuple) and not found[0].any()
        if not likely:
            found = held(result, self.worst(steps, step, result), dumped, store)
        if isinstance(found, str):
            return found
        beyond, deviation, bound, unknown = found
        with np.errstate(all="ignore"):
            ratio = np.where(deviation > 0, deviation / bound, 0.0)
        size = np.where(beyond, deviation, -1.0) if beyond.any() else np.where(unknown, -1.0, ratio)
        at = int(np.argmax(np.where(np.isnan(size), np.inf, size)))
        return Judged(
            step, result, steps, reads, float(deviation[at]), float(bound[at]), at, likely, int(beyond.sum()),
            int(unknown.sum()), _largest(real.value), float(dumped[at]), float(real.value[at]),
        )  # fmt: skip

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
        order = {each: place for place, each in enumerate(self.program.steps)} if len(found) > 1 else {step: 0}
        return tuple(sorted(found, key=order.__getitem__)), tuple(reads)

    def _is_dumped(self, key: Key) -> bool:
        result = self.makers[key][1]
        found = self.tensors.get(result.name)
        return found is not None and found.size == int(np.prod(result.shape))

    def exact(self, name: str, like: Result) -> Real | None:
        """A tensor by the bound, from what was dumped before it; None if it is not computed, or has another size."""
        found = next((pair for pair in self.makers.values() if pair[1].name == name), None)
        if found is None or np.prod(found[1].shape) != np.prod(like.shape):
            return None
        steps, _ = self.region(found[0])
        with np.errstate(all="ignore"):
            return self.worst(steps, *found)

    def worst(self, steps: Iterable[Step], last: Step, result: Result) -> Real:
        """A result by the bound, its region computed anew from the dump."""
        known: dict[Key, Real] = {}
        for step in steps:
            for key in step.reads:
                if key not in known:
                    kept = key in self._known
                    real = self._real(key)
                    if real is None:
                        raise Undecided(f"{self._name(key)!r} is neither dumped nor computed")
                    known[key] = real
                    if not kept:
                        del self._known[key]
            made = self._made(step, known, worst=True)
            if step is last:
                return made[result.key]
            known |= {r.key: self._settled(r, made[r.key]) for r in step.results}
        raise AssertionError("a region ends with its last step")


Held = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def held(result: Result, real: Real, dumped: np.ndarray, store: Format) -> Held | str:
    """Which elements are beyond the bound, their deviations and bounds, and which have none; or why none is judged."""
    value, radius, kind = real.value, np.broadcast_to(real.error, real.raw.shape), result.kind
    if kind is not None and not kind.is_float:
        value = np.clip(value, kind.low, kind.high)
        bound = radius + 0.5 * (1 + 2.0**-20)
    elif result.dtype.kind in "biu" or limits(result.dtype) is not None:
        bound = radius
    else:
        bound = stored(value, radius, store)
    unknown = ~np.isfinite(bound) | np.isnan(value) | np.isposinf(value)
    if unknown.all():
        return "nothing bounds its rounding" if not np.isnan(value).all() else "its exact value is not a number, or not known"
    deviation = np.abs(dumped - value)
    masked = np.isneginf(value) & (dumped <= -_ENDS * store.high)
    over = (np.abs(value) + bound >= store.over) & (np.abs(dumped) >= _ENDS * store.high) & (np.sign(dumped) == np.sign(value))
    fine = unknown | masked | over
    deviation = np.where(fine, 0.0, np.where(np.isnan(deviation), np.inf, deviation))
    scale = _largest(value)
    judged = ~fine
    loose = judged.any() and scale and bool((bound[judged] >= _SPREAD * scale).all()) and result.dtype.kind not in "biu"
    if loose and not (deviation > bound).any():
        return "rounding alone may make it anything: its bound is as large as its values"
    return deviation > bound, deviation, np.where(fine, np.inf, bound), unknown


def _largest(values: np.ndarray) -> float:
    size = np.abs(values)
    return float(size.max(initial=0.0, where=np.isfinite(size)))
