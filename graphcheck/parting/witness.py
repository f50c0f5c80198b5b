"""A witness: an input on which two models certainly differ, by more than rounding explains; shrunk, saved and replayed."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import GraphcheckError, Oversized
from graphcheck.files import external, kept
from graphcheck.files import model as model_
from graphcheck.interface import inputs as inputs_
from graphcheck.interface.inputs import leaves_of
from graphcheck.interface.ports import Interface
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair, weights
from graphcheck.kernel.values.bounds import UNITS
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.options import Options
from graphcheck.parting import probes
from graphcheck.parting.budget import Budget, work
from graphcheck.parting.cone import Cone
from graphcheck.parting.difference import ONCE, SPREAD_FACTOR, SURE, Deviation, Executed, judge, minus, replayed
from graphcheck.parting.redrawn import ENLARGED, PAIRS
from graphcheck.parting.rooms import NEAR
from graphcheck.parting.trials import SPECS, Drawing, Trial, unlike
from graphcheck.runs.child import RemoteSession, end_idle

SEARCH = 7e8  # work (see budget.py) for which trials go on, one at least
_SHRINK, _QUICK, _RARE = 3e8, 4e7, 2e7  # work to make a witness smaller, if it was found by so much; for more draws
_AROUND, _GROSS = 32, 1e-3  # elements on either side of one; a deviation beside the largest number of an output
_ALIKE = 0.99  # of the largest deviation
_SHARE = 0.75  # of all work that what they are made of may take
_RUN = 3e5  # work that a run in onnxruntime is counted for besides its evaluation
_UNSEEN = 64.0  # without onnxruntime, a deviation must be so many times the spread
_RELEASE = 32  # steps after which mapped weights are given back
_LARGE = 2**27  # bytes of weights above which sessions are not kept
_BOUNDS = {
    "running": "running error bound",
    "first-order": f"first-order error bound, if no value errs by more than {NEAR:g} of its tensor's size",
    "redrawn": f"{SURE:g} times what {2 * PAIRS} draws of roundings enlarged {ENLARGED:g} times move it by, as onnxruntime shows "
    "it too, if float64 rounds as mildly as the draws do",
    "drawn": f"{ONCE:g} times what one draw of roundings enlarged {ENLARGED:g} times moves it by, as onnxruntime shows it "
    "too, if float64 rounds as mildly as the draw does",
    "undefined": "defined on one side alone",
    "none": "none",
}
_DRAWN = dict.fromkeys(("redrawn", "drawn"), "errs, as far as drawn roundings show, by at most")
_ERRS = {"first-order": "errs, to first order, by at most", **_DRAWN}


@dataclasses.dataclass(frozen=True)
class Witness:
    """An input (by pair key) with what it shows; ``path`` is set once it is saved."""

    inputs: Mapping[str, np.ndarray]
    reason: str
    kind: str
    seed: int | None
    deviation: Deviation | None
    replayed: float | None
    id: str | None = None
    path: str | None = None
    replay: str | None = None

    def save(self, models: tuple[ir.Model, ir.Model], options: Options) -> Witness:
        """Write the input to an .npz where the options say (nothing for None) and note the command that replays it."""
        if options.witness is None:
            return self
        digest = hashlib.sha256()
        for name, array in self.inputs.items():
            digest.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
        name, folder = digest.hexdigest()[:12], Path(options.witness)
        path = kept.path(name, folder)
        folder.mkdir(parents=True, exist_ok=True)
        inputs_.save_npz(path, self.inputs)
        known = folder.absolute() == kept.folder().absolute()
        if known:
            kept.forget_old()
        files = [model_.path_of(model) for model in models]
        words_ = ["graphcheck", "compare", *map(str, files), *(("--replay", name) if known else ("--inputs", str(path)))]
        words_ += [word for output in options.ignore_outputs for word in ("--ignore-output", output)]
        words_ += [word for key, value in options.fix.items() for word in ("--fix", f"{key}={value:.17g}")]
        words_ += [] if options.run else ["--no-run"]
        reason = f"{self.reason}; the input is {f'kept as {name}' if known else f'in {path}'}"
        replay = None if None in files else shlex.join(words_)
        return dataclasses.replace(self, id=name if known else None, path=str(path), replay=replay, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """The ``witness`` key of the JSON."""
        d = self.deviation
        return {
            "id": self.id,
            "path": self.path,
            "seed": self.seed,
            "kind": self.kind,
            "replay": self.replay,
            "output": d and d.output,
            "max_abs": d and _finite(d.deviation),
            "bound": d and _finite(d.bound),
            "bound_kind": d and _BOUNDS[d.kind],
            "spread": d and d.spread,
            "values": inputs_.numbers(self.inputs),
            "onnxruntime_max_abs": self.replayed,
            "nonzeros": int(sum(np.count_nonzero(v) for v in self.inputs.values())),
        }


class Search:
    """Looks for a witness at the shapes of ``pair``; ``deviations`` keeps what the most telling input showed."""

    def __init__(
        self,
        sources: tuple[Any, Any],
        models: tuple[ir.Model, ir.Model],
        interface: Interface,
        pair: Pair,
        outputs: list[tuple[str, int, int]],
        seed: int,
        ranges: Mapping[str, tuple[float, float]],
        given: inputs_.Given | None,
        tick: Callable[[], None],
        run: bool,
        budget: Budget | None = None,
        shown: Callable[[Mapping[str, np.ndarray]], Executed | None] = lambda _: None,
    ) -> None:
        self.sources, self.models, self.interface, self.pair = sources, models, interface, pair
        self.outputs, self.seed, self.given, self.execute = outputs, seed, given, run
        self._check, self._ticks = tick, 0
        self.drawing = Drawing(interface, pair, seed=seed, ranges=ranges)
        self.unit = unit_of(pair.a, pair.b)
        self.roots = [(a, b) for _, a, b in outputs]
        order = pair.terms.order([c for row in self.roots for c in row])
        self.work = sum(work(pair.terms.terms[c]) for c in order)
        self.hollow = any(not pair.terms.size(c) for c in order)
        self.budget = budget or Budget(SEARCH)
        self.deviations: list[Deviation] = []
        self._sessions: dict[int, RemoteSession] = {}
        self.large = sum(w.nbytes for m in models for w in weights(m)) > _LARGE
        self.costly = self.large or self.work > _QUICK
        self._shown_before, self._borrowed = shown, False  # what a run that was made shows at an input
        self._seen: Executed | None = None

    def tick(self, work: float = 0.0) -> None:
        """Note work; stop where the time is over; give the weights' pages back now and then."""
        self._check()
        self.budget.take(work)
        self._ticks += 1
        if self.large and self._ticks % _RELEASE == 0:
            model_.release(*self.models)

    def run(self) -> Witness | None:
        """A witness, or None if no trial showed a difference beyond rounding."""
        try:
            return self._search()
        finally:
            for session in self._sessions.values():
                session.close()

    def _search(self) -> Witness | None:
        best: dict[str, np.ndarray] | None = None
        quick = self.budget.until(_QUICK)
        for number, (kind, seed, arrays) in enumerate(unlike(self._trials())):
            self.tick()
            if number and self.budget.over:
                break
            found, best = self._tried(kind, seed, arrays, best, quick)
            if found is not None:
                return found
        if best is None or self.large:
            return None
        fits = self.drawing.fitted
        moved = probes.climb(self.pair.terms, self.roots, best, fits, self.seed, self.budget, self._check)
        return self._tried("enlarged", self.seed, moved, best, quick)[0]

    def _tried(
        self,
        kind: str,
        seed: int | None,
        arrays: dict[str, np.ndarray],
        best: dict[str, np.ndarray] | None,
        quick: Callable[[], bool],
    ) -> tuple[Witness | None, dict[str, np.ndarray] | None]:
        """(the witness that an input is, the input that told most so far)."""
        judged = self._judge(arrays, thorough=best is None, redraw=True)
        if self._borrowed and self._shown(judged, arrays) is None:  # a run without optimizations may tell more
            self._shown_before = lambda _: None
            judged = self._judge(arrays, thorough=best is None, redraw=True)
        deviations = [d for d in judged if math.isfinite(d.deviation) or d.kind == "undefined"]  # known at all
        if max((d.units for d in deviations), default=0) >= max((d.units for d in self.deviations), default=0):
            self.deviations, best = deviations, arrays
        shown = self._shown(deviations, arrays)
        if shown is None or self._overflows(arrays):
            return None, best
        whole = kind == "given" or shown[0].kind in _DRAWN or quick()
        small = arrays if whole else self._shrink(arrays, shown[0].output)
        if small is not arrays:
            judged = self._judge(small, redraw=True)
            again = self._shown(judged, small)
            self.deviations, shown = (judged, again) if again else (self.deviations, shown)
            small = small if again else arrays
        kind = kind if small is arrays else f"{kind}, shrunk"
        return Witness(small, self._reason(kind, *shown), kind, seed, *shown), best

    def _trials(self) -> Iterator[Trial]:
        if self.given is not None:
            yield "given", None, self.given()
        drawn = (self.drawing.drawn(options) for options in SPECS)
        made = (
            (kind, self.seed, {name: self.drawing.fitted(name, value) for name, value in arrays.items()})
            for kind, arrays in probes.probes(self.pair, self.interface, self.roots, self.seed, self.budget, self._check)
        )
        if self.large:
            yield from drawn
            yield from made
            return
        yield from itertools.islice(drawn, 2)
        if self.execute:  # ties are for onnxruntime to show, too
            yield from made
        yield from drawn
        yield from self.drawing.rare(self._parts, self.budget.until(_RARE))

    def _parts(self, arrays: inputs_.Arrays) -> bool:
        self.tick(self.work)
        return probes.apart(self.pair.terms, self.roots, arrays) > self.unit

    def _judge(
        self, arrays: Mapping[str, np.ndarray], thorough: bool = False, redraw: bool = False
    ) -> list[Deviation]:
        leaves = leaves_of(arrays)
        self._seen, asked = None, False

        def executed() -> Executed:
            nonlocal asked
            self._seen = self._execute(arrays) if self.execute and not asked else self._seen
            asked = True
            return self._seen or {}

        parted = redraw and self.work > _QUICK and not self.hollow
        alone = self._alone(leaves, executed()) if parted else []
        known = (self.pair.terms, self.outputs, leaves, self.unit, self.seed)
        return alone or judge(*known, executed=executed, tick=self.tick, thorough=thorough, redraw=redraw)

    def _alone(self, leaves: Mapping[tuple[Any, ...], np.ndarray], shown: Executed) -> list[Deviation]:
        """What the elements around the one that deviates most in onnxruntime show, if that is a difference and what they are
        made of is a part of the expression."""
        terms = self.pair.terms
        for name, a, b in self.outputs:
            x, y = (value.reshape(-1) for value in shown.get(name, (np.zeros(0), np.zeros(0))))
            at = _usual(x, y)
            if at is None:
                continue
            some = range(max(0, at - _AROUND), min(at + _AROUND, x.size))
            try:
                cone = Cone(terms, (a, b), some, _SHARE * self.work)
            except Oversized:
                continue
            ends = cone.ends[terms.find(a)], cone.ends[terms.find(b)]
            here = {name: (x[some.start : some.stop], y[some.start : some.stop])}
            known = (cone, [(name, *ends)], leaves, self.unit, self.seed)
            (found,) = judge(*known, executed=here.copy, tick=self.tick, redraw=True, brief=True)
            if found.gross and found.at is not None:
                return [dataclasses.replace(found, at=found.at + some.start)]
        return []

    def _overflows(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether an integer leaves its type on the way, which float64 does not see and the standard leaves open."""
        traced = (v for t in (self.pair.a, self.pair.b) for v in t.values.values())
        ranges: dict[int, tuple[float, float]] = {}
        for value in traced:
            if isinstance(value, Tensor) and value.dtype.kind in "iu":
                low, high = ranges.get(self.pair.terms.find(value.cls), (-math.inf, math.inf))
                info = np.iinfo(value.dtype)
                ranges[self.pair.terms.find(value.cls)] = (max(low, float(info.min)), min(high, float(info.max)))
        far = False

        def look(cls: int, value: Real) -> None:
            nonlocal far
            low, high = ranges.get(cls, (-math.inf, math.inf))
            far |= cls in ranges and bool(((value.value < low) | (value.value > high)).any())

        if ranges:
            leaves = leaves_of(arrays)
            with np.errstate(all="ignore"):
                evaluate(self.pair.terms, Float64(leaves, bounds=False), list(ranges), visit=look)
        return far

    def _shown(
        self, deviations: list[Deviation], arrays: Mapping[str, np.ndarray]
    ) -> tuple[Deviation, float | None] | None:
        """The output that differs most beyond the spread, if onnxruntime shows it too."""
        gross = sorted((d for d in deviations if d.gross), key=lambda d: -d.units)
        if not gross or not self.execute:  # alone, float64 cannot tell how a runtime folds Exp of a constant
            return (gross[0], None) if gross and gross[0].units > _UNSEEN else None
        for d in gross:
            x, y = (self._seen or {}).get(d.output, (np.zeros(0), np.zeros(0)))
            if d.kind == "undefined":
                return d, None  # looked for in onnxruntime, too, before it was said
            if (moved := replayed(x, y)) > SPREAD_FACTOR * d.spread:
                return d, moved
        return None

    def _execute(self, arrays: Mapping[str, np.ndarray]) -> Executed | None:
        """The outputs of both sides in onnxruntime: of the run that was made, if that tells; else with optimizations
        off; None if it cannot run them."""
        before = self._shown_before(arrays)
        self._borrowed = before is not None
        if before is not None:
            if self.costly:
                end_idle()  # none beside the evaluation that mostly tells
            return before
        results = []
        self.budget.take(_RUN + self.work)
        model_.release(*self.models)
        try:
            for side, feed in enumerate(inputs_.side_inputs(self.interface, arrays)):
                if side not in self._sessions:
                    source = source_of(self.sources[side], self.models[side])
                    self._sessions[side] = RemoteSession(source, optimizations="off")
                results.append(self._sessions[side].run(feed))
                if self.costly:  # one at a time, and none beside the evaluation that mostly tells
                    self._sessions.pop(side).close(keep=not side or bool(self.deviations))
        except GraphcheckError:
            for session in self._sessions.values():  # one of them may have crashed
                session.close()
            self._sessions.clear()
            return None
        return as_executed(self.interface, results)

    def _shrink(self, arrays: dict[str, np.ndarray], output: str) -> dict[str, np.ndarray]:
        """Fewer non-zeros that still show it: parts of the input are set to zero as long as they may."""
        if self.drawing.ranges:
            return arrays
        over, best = self.budget.until(_SHRINK), arrays
        fixed = self.drawing.fixed
        for name in [n for n, v in arrays.items() if v.dtype.kind in "fiub" and v.size > 1 and n not in fixed]:
            pieces = 2
            while pieces <= best[name].size and not over():
                live = np.flatnonzero(best[name])
                shrunk = False
                for part in np.array_split(live, min(pieces, max(live.size, 1))):
                    if over() or part.size in (0, live.size):
                        break
                    trial = best[name].copy()
                    trial.reshape(-1)[part] = 0
                    candidate = {**best, name: trial}
                    shown = self._shown(self._judge(candidate), candidate)
                    if shown is not None and shown[0].output == output:
                        best, shrunk = candidate, True
                        break
                pieces = 2 if shrunk else pieces * 2
        return best

    def _reason(self, kind: str, d: Deviation, replayed: float | None) -> str:
        if d.kind == "undefined":
            a, b = (f"{side:.6g}" for side in d.sides)
            also = "" if self._seen is None else ", and so it is in onnxruntime"
            return f"output {d.output!r} has an element that is {a} in A and {b} in B{also}"
        shown = "not replayed in onnxruntime" if replayed is None else f"{replayed:.3g} in onnxruntime"
        errs = _ERRS.get(d.kind, "errs by at most")
        where = "the given input" if kind == "given" else "the input found"
        return (
            f"output {d.output!r} differs by {d.deviation:.3g} on {where} ({shown}), {d.units:.3g} times what rounding explains, "
            f"and float64 {errs} {d.bound:.1e} there"
        )


def _usual(x: np.ndarray, y: np.ndarray) -> int | None:
    """An element that deviates most, of many a usual one, not a corner; None where none does by much."""
    if not x.size:
        return None
    far = np.abs(minus(x, y))
    alike = np.flatnonzero(far >= _ALIKE * far.max())
    at = int(alike[len(alike) // 2]) if len(alike) else 0
    return at if far[at] > _GROSS * max(float(np.abs(x).max()), float(np.abs(y).max())) else None


def as_executed(interface: Interface, results: Sequence[Mapping[str, np.ndarray]]) -> Executed:
    """Outputs of both sides by their own names, of one shape, as float64, or float32 where they are."""
    both = [port for port in interface.outputs if port.a is not None and port.b is not None]
    a, b = results
    return by_output(interface, ({p.key: a[p.a.name] for p in both}, {p.key: b[p.b.name] for p in both}))  # type: ignore[union-attr]


def by_output(interface: Interface, sides: Sequence[Mapping[str, np.ndarray]]) -> Executed:
    """The same of outputs by the keys of their pairs."""
    found = {}
    for port in interface.outputs:
        if all(port.key in side for side in sides) and sides[0][port.key].dtype.kind not in "OSUT":
            x, y = (v if v.dtype == np.float32 else np.asarray(v, np.float64) for v in (side[port.key] for side in sides))
            if x.shape == y.shape:
                found[port.key] = (x, y)
    return found


def source_of(source: Any, model: ir.Model) -> Any:
    """What onnxruntime loads of a side: its path, or its bytes."""
    return str(source) if isinstance(source, (str, os.PathLike)) else external.serialized(model)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def unit_of(*traces: Trace) -> float:
    """The unit roundoff of the coarsest declared float type of the graphs."""
    names = {v.dtype.name for trace in traces for v in trace.values.values() if isinstance(v, Tensor)}
    return max((UNITS[n] for n in names if n in UNITS), default=UNITS["float64"])  # integers do not round
