"""``compare``: the same function, or not, or not known; with everything that was seen on the way to the verdict.

The order is by cost: interface, structure (``identical``), congruence and proof windows (``proved``), one numeric look at
what remains (``different``, with a witness), re-rounded constants (``within-rounding``), the proof from the inputs.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import model as model_
from graphcheck.domains.residues import LOW
from graphcheck.equivalence import classes, inputs, interface, numeric, rounding, structure, witness
from graphcheck.equivalence.alignment import Alignment, Divergence, layout_change
from graphcheck.equivalence.difference import SPREAD_FACTOR, Deviation, judge
from graphcheck.equivalence.interface import Interface
from graphcheck.equivalence.windows import Prover, Tier
from graphcheck.errors import GraphcheckError, Undecided, UsageError
from graphcheck.hashing import Hashes
from graphcheck.ops.algebra import Tensor, Value
from graphcheck.verdict import Comparison, Verdict

_SAMPLES = 4  # of integer inputs that steer a graph: two draws by the seed, all ones, all zeros
_TARGET_SHARE = 24  # the target is shared by up to 4 tiers at up to 6 choices of sizes
_PLAINLY = 2.0**16  # ulps of the output's largest magnitude, above which a difference is looked into before a costly proof
_FAR_BEYOND = 2.0**14  # ulps of the output's largest magnitude, above which a proved pair's runtime is looked into


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of :func:`compare`, resolved."""

    shapes: Mapping[str, tuple[int, ...]]
    ranges: Mapping[str, tuple[float, float]]
    inputs: str | os.PathLike[str] | None
    ignore_outputs: tuple[str, ...]
    seed: int
    run: bool
    numerics: str
    error_probability: float
    timeout: float
    reduce: str | os.PathLike[str] | None
    witness: str | os.PathLike[str] | None
    providers: tuple[str, ...]
    threads: int
    iterations: int
    fail_fast: bool
    full_sizes: bool


@dataclasses.dataclass
class Attempt:
    """The proof at one choice of sizes."""

    shapes: dict[str, tuple[int, ...]]
    sample: int | None = None  # None: integer inputs are free; else which sample of them
    pair: classes.Pair | None = None
    prover: Prover | None = None
    proved: bool = False
    stopped: Undecided | None = None
    refused: str | None = None  # "a" or "b": the side that does not admit these sizes


def compare(
    a: model_.ModelLike,
    b: model_.ModelLike,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    inputs: str | os.PathLike[str] | None = None,
    ignore_outputs: Iterable[str] = (),
    seed: int = 0,
    run: bool = True,
    numerics: str = "quick",
    error_probability: float = 1e-9,
    timeout: float = 300.0,
    reduce: str | os.PathLike[str] | None = None,
    witness: str | os.PathLike[str] | None = None,
    providers: Iterable[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    iterations: int = 1,
    fail_fast: bool = False,
    graphs: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Whether two models are the same function; each is a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.

    ``shapes`` fixes input shapes by name, ``ranges`` restricts what is claimed and where a witness may lie, ``inputs`` is an
    .npz of real inputs. ``run=False`` leaves onnxruntime out (the proof alone). ``timeout`` is in seconds. ``reduce`` is a
    folder for the two small models around the first divergence, ``witness`` one for the input that shows a difference.
    Raises :class:`GraphcheckError` for models that cannot be read and options that do not fit them.
    """
    if not 0 < error_probability < 1:
        raise UsageError(f"the error probability must lie between 0 and 1, not {error_probability}")
    options = Options(
        dict(shapes or {}), dict(ranges or {}), inputs, tuple(ignore_outputs), seed, run, numerics, error_probability, timeout,
        reduce, witness, tuple(providers), threads, iterations, fail_fast, True,
    )
    return _Comparer(a, b, options, graphs, progress or (lambda _: None)).run()


class _Comparer:
    """One comparison: gathers the evidence and stops at the first verdict."""

    def __init__(
        self, a: model_.ModelLike, b: model_.ModelLike, options: Options, graphs: bool, progress: Callable[[str], None]
    ) -> None:
        self.options, self.graphs, self.say = options, graphs, progress
        self.started = time.monotonic()
        self.deadline = self.started + options.timeout
        self.timings: dict[str, float] = {}
        with self._timed("read"):
            self.sources = (a, b)
            self.models = (model_.read(a), model_.read(b))
        self.hashes = Hashes()
        self.interface = interface.pair_interfaces(*self.models, options.ignore_outputs)
        self.attempts: list[Attempt] = []
        self.running: concurrent.futures.Future[None] | None = None
        self.numbers: dict[str, Any] | None = None
        self.runs: list[numeric.Run] = []
        self.structure: structure.Structure | None = None
        self.divergence: Divergence | None = None
        self.alignment: Alignment | None = None
        self.found: dict[str, Any] | None = None
        self.deviations: list[Deviation] = []
        self.constants: list[dict[str, Any]] = []
        self.notes: list[str] = []

    # -- the order of things -------------------------------------------------------------------------------------

    def run(self) -> Comparison:
        """The verdict with its evidence."""
        blocking = [m for m in self.interface.mismatches if m.where == "input" or m.kind in ("missing", "dtype")]
        if blocking:
            return self._interface_verdict([m for m in blocking])
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.running = pool.submit(self._numeric) if self.options.run else None
        with self._timed("hashing"):
            self.hashes.ahead([*classes.weights(self.models[0]), *classes.weights(self.models[1])])
            model_.release(*self.models)
        with self._timed("structure"):
            self.structure = structure.compare_structure(*self.models, self.hashes)
        try:
            verdict, reason = self._identical() or self._prove()
            if self.running is not None:
                with self._timed("waiting for onnxruntime"):
                    self.running.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if verdict is None:
            verdict, reason = self._judge(reason)
        elif verdict is Verdict.PROVED:
            verdict, reason = self._cross_check(verdict, reason)
        return self._finish(verdict, reason)

    def _interface_verdict(self, blocking: list[interface.Mismatch]) -> Comparison:
        dtypes = all(m.kind == "dtype" for m in blocking)
        text = "; ".join(m.message for m in blocking)
        if dtypes and self.options.run:
            self.say("running both models")
            try:
                self._numeric()
            except GraphcheckError as error:
                self.notes.append(str(error))
            if self.numbers and any(run["outputs"] for run in self.numbers["runs"]):
                reason = f"the declared types differ, so the models are compared by deviations only: {text}"
                return self._finish(Verdict.UNDECIDED, reason)
        return self._finish(Verdict.DIFFERENT, f"the interfaces do not fit: {text}")

    def _identical(self) -> tuple[Verdict | None, str] | None:
        assert self.structure is not None
        if self.structure.identical and not self.interface.mismatches:
            return Verdict.IDENTICAL, "the same graph up to names, order and storage, with bit-equal constants"
        return None

    def _prove(self) -> tuple[Verdict | None, str]:
        with self._timed("proof"):
            for number, chosen in enumerate(self._sizes()):
                self.say(f"proving at {_text(chosen)}")
                for attempt in self._attempts(chosen):
                    if attempt.refused == "both" and (number or attempt.sample):
                        continue  # not a size of these models
                    self.attempts.append(attempt)
                    if not attempt.proved:
                        return None, self._why(attempt)
                    shape = self._shape_difference(attempt)
                    if shape:
                        return Verdict.DIFFERENT, shape
        return Verdict.PROVED, self._proved_text()

    def _sizes(self) -> Iterator[dict[str, tuple[int, ...]]]:
        """Input shapes to prove at: batches 2, 3 and 1, and for other symbolic dims a usual and a small legal size."""
        if self.options.inputs is not None:
            arrays = inputs.load_npz(self.options.inputs, self.interface)
            yield {name: tuple(array.shape) for name, array in arrays.items()}
            return
        usual = interface.shapes(self.interface, self.options.shapes)
        yield usual
        seen = [usual]
        for symbol, (_, axis) in interface.symbols(self.interface).items():
            for size in (3, 1) if axis == 0 else (16, 28, 32, 48, 64):
                try:
                    chosen = interface.shapes(self.interface, self.options.shapes, {symbol: size})
                except UsageError:
                    break  # --shape fixes this dim
                if chosen in seen:
                    continue
                seen.append(chosen)
                yield chosen
                if axis != 0 and self.attempts and self.attempts[-1].shapes == chosen and self.attempts[-1].proved:
                    break

    def _attempts(self, chosen: dict[str, tuple[int, ...]]) -> Iterator[Attempt]:
        """The proof for all values of the inputs; where integer inputs steer the graph, at several samples of those."""
        first = self._attempt(chosen, None)
        if first.proved or not self._discrete():
            yield first
            return
        given = self.options.inputs is not None
        for sample in range(1 if given else _SAMPLES):
            yield self._attempt(chosen, sample)

    def _attempt(self, chosen: dict[str, tuple[int, ...]], sample: int | None) -> Attempt:
        attempt = Attempt(chosen, sample)
        try:
            attempt.pair = self._build(chosen, sample)
        except Undecided as error:
            attempt.stopped = error
            sides = [self._admits(side, chosen, sample) for side in (0, 1)]
            attempt.refused = {(True, False): "b", (False, True): "a", (False, False): "both"}.get((sides[0], sides[1]))
            return attempt
        pair = attempt.pair
        roots_a = [self._class(pair, v) for v in pair.a.outputs]
        roots_b = [self._class(pair, v) for v in pair.b.outputs]
        order = [self._position(p) for p in self._output_pairs()]
        attempt.prover = Prover(
            pair.terms, [roots_a[i] for i, _ in order], [roots_b[j] for _, j in order], pair.row_counts(),
            seed=self.options.seed, target=self.options.error_probability / _TARGET_SHARE, deadline=self.deadline,
            budget=max(4e9, 0.25 * self._work(pair)),
        )
        try:
            attempt.proved = attempt.prover.by_rows() or (not self._plainly_apart() and attempt.prover.by_windows())
            if attempt.proved and attempt.prover.log2_error() > math.log2(self.options.error_probability):
                raise Undecided(f"the error probability would be 2**{attempt.prover.log2_error():.0f}, above the target")
        except Undecided as error:
            attempt.stopped, attempt.proved = error, False
        return attempt

    def _plainly_apart(self) -> bool:
        """Whether onnxruntime already showed a gross difference: then a witness is looked for and no costly proof is tried."""
        if self.running is None:
            return False
        with self._timed("waiting for onnxruntime"):
            self.running.result()
        rows = [row for run in (self.numbers or {"runs": []})["runs"] for row in run["outputs"]]
        return any((row.get("scale_ulp") or 0) > _PLAINLY for row in rows)

    def _work(self, pair: classes.Pair) -> float:
        total = 0.0
        for term in pair.terms.terms:
            if term.kind == "contract":
                total += 2.0 * term.size * term.params[3]
        return total

    def _build(self, chosen: dict[str, tuple[int, ...]], sample: int | None = None, affine: bool = False) -> classes.Pair:
        partner = {p.key: p.b.name for p in self.interface.inputs if p.b is not None}
        feeds = {key: (partner[key], shape) for key, shape in chosen.items()}
        return classes.build(*self.models, feeds, self._concrete(chosen, sample), affine=affine, hashes=self.hashes)

    def _discrete(self) -> list[interface.Pair]:
        """Integer and boolean inputs."""
        return [p for p in self.interface.inputs if p.a is not None and p.a.numpy_dtype().kind in "iub"]

    def _concrete(self, chosen: dict[str, tuple[int, ...]], sample: int | None) -> dict[str, np.ndarray]:
        """Values for integer and boolean inputs: none (they stay free), given ones, draws by the seed, all ones, all zeros."""
        discrete = self._discrete()
        if sample is None or not discrete:
            return {}
        if self.options.inputs is not None:
            given = inputs.load_npz(self.options.inputs, self.interface)
            return {p.key: given[p.key] for p in discrete}
        ranges = tuple((name, *bounds) for name, bounds in self.options.ranges.items())
        drawn = inputs.generate(self.interface, chosen, inputs.InputSpec(self.options.seed + sample, ranges=ranges))
        uniform = {_SAMPLES - 2: 1, _SAMPLES - 1: 0}.get(sample)
        if uniform is not None and not ranges:
            return {p.key: np.full_like(drawn[p.key], uniform) for p in discrete}
        return {p.key: drawn[p.key] for p in discrete}

    def _admits(self, side: int, chosen: dict[str, tuple[int, ...]], sample: int | None) -> bool:
        """Whether one model alone can be traced at these sizes."""
        names = [(p.a if side == 0 else p.b) for p in self.interface.inputs]
        keys = [p.key for p in self.interface.inputs]
        feeds = {n.name: (n.name, chosen[k]) for n, k in zip(names, keys, strict=True) if n is not None}
        values = self._concrete(chosen, sample)
        concrete = {n.name: v for n, k in zip(names, keys, strict=True) if n and (v := values.get(k)) is not None}
        try:
            classes.build(self.models[side], self.models[side], feeds, concrete, hashes=self.hashes)
        except Undecided:
            return False
        return True

    def _output_pairs(self) -> list[interface.Pair]:
        return [p for p in self.interface.outputs if p.a is not None and p.b is not None]

    def _position(self, pair: interface.Pair) -> tuple[int, int]:
        assert pair.a is not None and pair.b is not None
        names = [[v.name for v in m.graph.outputs] for m in self.models]
        return names[0].index(pair.a.name), names[1].index(pair.b.name)

    @staticmethod
    def _class(pair: classes.Pair, value: Value) -> int:
        if isinstance(value, Tensor):
            return value.cls
        if value is None or isinstance(value, list):
            raise Undecided("an output is a sequence, which is not compared")
        return pair.algebra.lift(value).cls

    def _shape_difference(self, attempt: Attempt) -> str | None:
        """Outputs with the same elements in other shapes are not the same function."""
        pair = attempt.pair
        assert pair is not None
        for port in self._output_pairs():
            i, j = self._position(port)
            x, y = pair.a.outputs[i], pair.b.outputs[j]
            assert x is not None and y is not None
            if tuple(x.shape) != tuple(y.shape):
                return (
                    f"output {port.key!r} has the same elements in another shape, {list(x.shape)} in A and {list(y.shape)} in B: "
                    f"Reshape to {list(x.shape)} would make B equal to A"
                )
        return None

    # -- texts ---------------------------------------------------------------------------------------------------

    def _proved_text(self) -> str:
        shapes = "; ".join(dict.fromkeys(_text(a.shapes) for a in self.attempts))
        sampled = [a.sample for a in self.attempts if a.sample is not None]
        names = ", ".join(repr(p.key) for p in self._discrete())
        if sampled:
            shapes += f", at {len(sampled)} sampled values of the integer inputs {names} alone"
        tiers = {t.name for a in self.attempts if a.prover for t in a.prover.tiers if t.merges}
        how = "by congruence alone" if not tiers else f"with an error probability of at most {self._error_probability():.1e}"
        return f"the same function in exact arithmetic, for every input of shape {shapes}, {how}"

    def _error_probability(self) -> float:
        tiers = [t for a in self.attempts if a.prover for t in a.prover.tiers]
        return float(sum(2.0**t.log2_error for t in tiers if t.merges))

    def _why(self, attempt: Attempt) -> str:
        if attempt.stopped is not None:
            return f"the proof stopped: {attempt.stopped}"
        return "the outputs did not meet in the proof windows"

    # -- numbers -------------------------------------------------------------------------------------------------

    def _numeric(self) -> None:
        o = self.options
        given = None if o.inputs is None else inputs.load_npz(o.inputs, self.interface)
        ranges = tuple((name, *bounds) for name, bounds in o.ranges.items())
        settings = numeric.NumericOptions(
            o.numerics, o.seed, o.iterations, o.shapes, {}, ranges, given, o.providers, o.threads, None, o.fail_fast
        )
        sources = [str(s) if isinstance(s, (str, os.PathLike)) else _bytes(m) for s, m in zip(self.sources, self.models, strict=True)]
        with self._timed("onnxruntime"):
            self.numbers = numeric.numeric(sources[0], sources[1], self.interface, settings, self.runs.append)

    def _judge(self, reason: str) -> tuple[Verdict, str]:
        """What is left when the proof windows did not suffice."""
        attempt = self.attempts[-1]
        if attempt.refused in ("a", "b"):
            found = self._refusal(attempt)
            if found:
                return Verdict.DIFFERENT, found
        if attempt.pair is None or attempt.prover is None:
            return Verdict.UNDECIDED, reason
        self._locate(attempt)
        layout = self._layout(attempt)
        if layout:
            return Verdict.DIFFERENT, layout
        if self._unequal_shapes(attempt):
            found = self._refusal(attempt)
            return (Verdict.DIFFERENT, found) if found else (Verdict.UNDECIDED, "the outputs have different shapes; not run")
        try:
            self.say("looking for an input that shows a difference")
            with self._timed("float64"):
                text = self._different(attempt)
            if text:
                return Verdict.DIFFERENT, text
            self.say("replacing re-rounded constants")
            with self._timed("rounding"):
                within = self._rounded()
            if within:
                worst = max(c["ulps"] for c in self.constants)
                return Verdict.WITHIN_ROUNDING, (
                    f"the same function once {len(self.constants)} constants, each within its roundings (at most {worst:.3g} ulps), "
                    "are replaced by the other side's exact expressions"
                )
            self.say("evaluating both from the inputs")
            with self._timed("proof from inputs"):
                return self._from_inputs(attempt, reason)
        except Undecided as error:
            return Verdict.UNDECIDED, f"{error}; {self._size_text()}".rstrip("; ")

    def _locate(self, attempt: Attempt) -> None:
        assert attempt.pair is not None and attempt.prover is not None
        self.alignment = Alignment(*self.models, attempt.pair)
        pairs = self._output_pairs()
        opened = [self._position(pairs[i]) for i in attempt.prover.open_pairs()]
        same = [i for i, j in opened if i == j]
        self.divergence = self.alignment.divergence(same or [i for i, _ in opened]) if opened else None

    def _layout(self, attempt: Attempt) -> str | None:
        assert attempt.pair is not None and attempt.prover is not None
        pairs = self._output_pairs()
        texts = []
        for position in attempt.prover.open_pairs():
            i, j = self._position(pairs[position])
            x, y = attempt.pair.a.outputs[i], attempt.pair.b.outputs[j]
            change = layout_change(attempt.pair.terms, x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else None
            if change is None or not self._shapes_show(x, y):
                return None
            texts.append(f"output {pairs[position].key!r} differs by its layout alone: {change} would make B equal to A")
        return "; ".join(texts) or None

    @staticmethod
    def _shapes_show(x: Any, y: Any) -> bool:
        return tuple(x.shape) != tuple(y.shape)

    def _unequal_shapes(self, attempt: Attempt) -> bool:
        assert attempt.pair is not None
        both = [(attempt.pair.a.outputs[i], attempt.pair.b.outputs[j]) for i, j in map(self._position, self._output_pairs())]
        return any(x is not None and y is not None and tuple(x.shape) != tuple(y.shape) for x, y in both)

    def _refusal(self, attempt: Attempt) -> str | None:
        """One model runs at these sizes and the other does not: a witness, once onnxruntime shows it."""
        if not self.options.run:
            return None
        found = witness.refusal(self.sources, self.models, self.interface, attempt.shapes, self.options.seed, self.options.witness)
        self.found = found and found.to_json()
        return found and found.reason

    def _different(self, attempt: Attempt) -> str | None:
        assert attempt.pair is not None and attempt.prover is not None
        search = witness.Search(
            self.sources, self.models, self.interface, attempt.pair, self._open(attempt), self.options.seed, self.options.ranges,
            self.options.inputs, lambda: self._check_time(), self.options.run,
        )
        found = search.run()
        self.deviations = search.deviations
        if found is None:
            return None
        saved = found.save(self.options.witness, self._file_names())
        self.found = saved.to_json()
        return saved.reason

    def _file_names(self) -> tuple[str, str]:
        return tuple(model_.path_of(m) or side for m, side in zip(self.models, "AB", strict=True))  # type: ignore[return-value]

    def _open(self, attempt: Attempt) -> list[tuple[str, int, int]]:
        assert attempt.prover is not None
        pairs = self._output_pairs()
        return [(pairs[i].key, *attempt.prover.roots[i]) for i in attempt.prover.open_pairs()]

    def _rounded(self) -> bool:
        """Whether the proof goes through at every size once ``constants`` are replaced, each within its roundings."""
        for chosen in self._sizes():
            pair = self._build(chosen, self.attempts[-1].sample, affine=True)
            order = [self._position(p) for p in self._output_pairs()]
            roots = [(self._class(pair, pair.a.outputs[i]), self._class(pair, pair.b.outputs[j])) for i, j in order]
            found = rounding.substitute(
                self.models, pair, roots, seed=self.options.seed, target=self.options.error_probability, deadline=self.deadline
            )
            if found is None:
                self.constants = []
                return False
            self.constants += [c for c in found.constants if c not in self.constants]
            if not found.within:
                return False
        return bool(self.constants)

    def _from_inputs(self, attempt: Attempt, reason: str) -> tuple[Verdict, str]:
        assert attempt.prover is not None
        equal = attempt.prover.from_inputs()
        if equal:
            if attempt.sample is not None:
                return Verdict.UNDECIDED, "proved from the inputs at one sample of the integer inputs only"
            rest = [c for c in self._sizes() if c not in [a.shapes for a in self.attempts]]
            attempt.proved = True
            for chosen in rest:
                again = self._attempt(chosen, attempt.sample)
                if again.refused == "both":
                    continue
                self.attempts.append(again)
                again.proved = again.proved or (again.prover is not None and bool(again.prover.from_inputs()))
                if not again.proved:
                    return Verdict.UNDECIDED, self._why(again)
            return Verdict.PROVED, self._proved_text()
        what = "a division by zero hid the answer" if equal is None else "the graphs are not the same expression"
        return Verdict.UNDECIDED, f"not proved ({what} modulo a prime), and no input was found that shows a difference; {self._size_text()}"

    def _size_text(self) -> str:
        if self.constants and not all(c["within"] for c in self.constants):
            worst = max(self.constants, key=lambda c: c["ulps"])
            return f"the graphs are the same but for {len(self.constants)} constants, the farthest {worst['name']!r} by {worst['ulps']:.3g} ulps"
        if not self.deviations:
            return ""
        worst = max(self.deviations, key=lambda d: d.units)
        text = f"in float64 they differ by {worst.deviation:.3g} at {worst.output!r}, the spread of rounding being {worst.spread:.3g}"
        return text + (" (certain over the reals, but below the spread)" if worst.certain and not worst.gross else "")

    def _cross_check(self, verdict: Verdict, reason: str) -> tuple[Verdict, str]:
        """A proved pair whose executions differ far beyond rounding is a bug of the runtime or of graphcheck: say so."""
        rows = [row for run in (self.numbers or {"runs": []})["runs"] for row in run["outputs"]]
        far = [r for r in rows if not (r.get("scale_ulp") or 0) <= _FAR_BEYOND]
        if not far:
            return verdict, reason
        attempt = next(a for a in self.attempts if a.pair is not None)
        spread = witness.spread_of(attempt.pair, self.interface, self.runs, self.options.seed)  # type: ignore[arg-type]
        worst = max(far, key=lambda r: r["max_abs"] if r["max_abs"] is not None else math.inf)
        if worst["max_abs"] is not None and worst["max_abs"] <= 4 * SPREAD_FACTOR * spread.get(worst["a"], 0.0):
            return verdict, reason
        return Verdict.UNDECIDED, (
            f"PROVED, BUT onnxruntime's outputs {worst['a']!r} differ by {worst['max_abs']} where rounding explains "
            f"{spread.get(worst['a'], 0.0):.3g}: a bug of the runtime, or of graphcheck's interpreter. Please report it"
        )

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise Undecided(f"the time limit of {self.options.timeout:g} s was reached")

    # -- the record ----------------------------------------------------------------------------------------------

    def _finish(self, verdict: Verdict, reason: str) -> Comparison:
        attempt = next((a for a in reversed(self.attempts) if a.pair is not None), None)
        if self.alignment is None and attempt is not None and attempt.pair is not None and self.graphs:
            self.alignment = Alignment(*self.models, attempt.pair)
        reduced = None
        wanted = self.options.reduce is not None and self.divergence is not None
        if wanted and attempt is not None and attempt.pair is not None and self.alignment is not None:
            from graphcheck.equivalence import reduction

            assert self.divergence is not None and self.options.reduce is not None
            folder = Path(self.options.reduce)
            reduced = reduction.write(self.models, attempt.pair, self.alignment, self.divergence, folder, self.options.seed)
        self._units()
        evidence: dict[str, Any] = {
            "a": model_.summary(self.models[0]) if self.graphs else {"path": model_.path_of(self.models[0])},
            "b": model_.summary(self.models[1]) if self.graphs else {"path": model_.path_of(self.models[1])},
            "interface": self.interface.to_json(),
            "structure": self.structure and self.structure.to_json(),
            "numeric": self.numbers,
            "constants": self.constants,
            "float64": [d.to_json() for d in self.deviations],
            "proof": self._proof(verdict),
            "divergence": self.divergence and self.divergence.to_json(),
            "witness": self.found,
            "reduced": reduced,
            "graphs": {s: structure.graph_json(m) for s, m in zip("ab", self.models, strict=True)} if self.graphs else None,
            "alignment": self.alignment.nodes() if self.alignment is not None and self.graphs else [],
            "notes": self.notes,
            "seed": self.options.seed,
            "versions": versions(),
            "timings": {**self.timings, "total": time.monotonic() - self.started},
        }
        return Comparison(verdict, reason, evidence)

    def _units(self) -> None:
        """onnxruntime's deviations in units of the spread, where it is known."""
        spread = {d.output: d.spread for d in self.deviations if d.spread}
        for run in (self.numbers or {"runs": []})["runs"]:
            for row in run["outputs"]:
                if row["a"] in spread and row["max_abs"] is not None:
                    row["spread_units"] = row["max_abs"] / spread[row["a"]]

    def _proof(self, verdict: Verdict) -> dict[str, Any] | None:
        if verdict not in (Verdict.PROVED, Verdict.WITHIN_ROUNDING):
            return None
        provers = [a.prover for a in self.attempts if a.prover is not None]
        tiers = [t for p in provers for t in p.tiers if t.merges]
        pairs = [a.pair for a in self.attempts if a.pair is not None]
        opaque = sorted({text for p in pairs for trace in (p.a, p.b) for text in trace.opaque})
        assumptions = sorted({text for p in pairs for text in p.assumptions})
        sampled = sorted({a.sample for a in self.attempts if a.sample is not None})
        if sampled:
            names = ", ".join(p.key for p in self._discrete())
            assumptions.append(f"integer inputs {names} took {len(sampled)} sampled values (draws by the seed, ones, zeros), not all")
        elif self._discrete():
            assumptions.append("integer arithmetic of 32 and 64 bits does not overflow")
        if opaque:
            assumptions.append(f"{len(opaque)} nodes are taken as unknown functions of their inputs: {'; '.join(opaque[:5])}")
        return {
            "tier": tiers[-1].name if tiers else "congruence",
            "tiers": [_tier(t) for t in tiers],
            "primes": sorted({p for t in tiers for p in t.primes}),
            "seed": self.options.seed,
            "error_probability": self._error_probability(),
            "rests_on": "Schwartz-Zippel over primes above 2**21 drawn by the seed, and 128-bit hashes taken as random functions"
            if tiers
            else "equal keys in a store of hash-consed expressions; constants by SHA-256",
            "assumptions": [*assumptions, "equality is of real arithmetic over the stored constants, where both sides are defined"],
            "shapes": [{k: list(s) for k, s in a.shapes.items()} for a in self.attempts],
            "counts": {"classes": sum(len(p.terms.terms) for p in pairs), "merges": sum(p.terms.merges for p in pairs)},
            "constants": self.constants,
        }

    def _timed(self, name: str) -> _Timer:
        return _Timer(self.timings, name)


class _Timer:
    def __init__(self, timings: dict[str, float], name: str) -> None:
        self.timings, self.name = timings, name

    def __enter__(self) -> None:
        self.start = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.timings[self.name] = self.timings.get(self.name, 0.0) + time.monotonic() - self.start


def _tier(t: Tier) -> dict[str, Any]:
    row = dataclasses.asdict(t)
    row["error_probability"] = 2.0**t.log2_error
    row["log2_error"] = t.log2_error if math.isfinite(t.log2_error) else None
    row["prime_bits"] = LOW.bit_length()
    return row


def _text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name}={'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()) or "no inputs"


def _bytes(model: ir.Model) -> bytes:
    return bytes(ir.to_proto(model).SerializeToString())


def versions() -> dict[str, str]:
    """Versions of what a verdict rests on."""
    from importlib import metadata

    found = {}
    for name in ("graphcheck", "onnx", "onnx-ir", "onnxruntime", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


__all__ = ["Comparison", "Interface", "Verdict", "compare"]
