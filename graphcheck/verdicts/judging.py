"""How a verdict is reached: the evidence of one comparison is gathered until it suffices for one of the five.

The order is by cost: interface, structure (``identical``), congruence and proof windows (``proved``), one numeric look at
what remains (``different``, with a witness), re-rounded constants (``within-rounding``), the proof from the inputs.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from graphcheck import limits
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.files import model as model_
from graphcheck.files.hashing import Hashes
from graphcheck.interface import inputs
from graphcheck.interface import ports as interface
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof import pair as classes
from graphcheck.kernel.proof import rounding
from graphcheck.kernel.proof.sizes import TARGET_SHARE, Attempt, Trials, text
from graphcheck.options import Options
from graphcheck.parting import reduction, samples, witness
from graphcheck.parting.alignment import Alignment, Divergence, layout_change
from graphcheck.parting.curve import first_curve
from graphcheck.parting.difference import Deviation
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.executions import Executions

if TYPE_CHECKING:
    from graphcheck.graphs.structure import Structure

Judged = tuple[Verdict, str]
_AGAIN = 60.0  # seconds for the two small models that ``reduce`` asks for


class Judging:
    """One comparison: gathers the evidence and stops at the first verdict."""

    def __init__(
        self,
        a: model_.ModelLike,
        b: model_.ModelLike,
        options: Options,
        graphs: bool,
        progress: Callable[[str], None],
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
        inputs.check_ranges(self.interface, options.ranges)
        self.trials = Trials(self.models, self.interface, options, self.deadline, self.hashes)
        self.attempts: list[Attempt] = []
        self.failed: list[Attempt] = []  # the first, or all samples of integer inputs at the first sizes that failed
        self.files: list[concurrent.futures.Future[str | None]] = []  # digests of the model files
        self.executions = Executions(self.sources, self.models, self.interface, options)
        self.structure: Structure | None = None
        self.divergence: Divergence | None = None
        self.alignment: Alignment | None = None
        self.found: dict[str, Any] | None = None
        self.deviations: list[Deviation] = []
        self.constants: list[dict[str, Any]] = []
        self.error = 0.0  # what the substitution of constants adds to the error probability

    def run(self) -> Comparison:
        """The verdict with its evidence; ``undecided`` where a limit was reached."""
        try:
            return self._finish(*self._run())
        except Undecided as error:
            return self._finish(Verdict.UNDECIDED, str(error))
        except MemoryError:
            self.attempts.clear()  # which gives memory back
            reason = f"the memory limit of {limits.size(limits.current().memory)} was reached"
            return self._finish(Verdict.UNDECIDED, reason)

    def _run(self) -> Judged:
        blocking = [m for m in self.interface.mismatches if m.where == "input" or m.kind in ("missing", "dtype")]
        if blocking:
            return self._interface_verdict(blocking)
        pool = concurrent.futures.ThreadPoolExecutor(2)  # onnxruntime is waited for in one of them
        self.executions.start(pool)
        try:
            with self._timed("hashing"):
                for model in self.models:
                    model_.adopt(model, self.hashes)
                weights = [*classes.weights(self.models[0]), *classes.weights(self.models[1])]
                hashing = pool.submit(self.hashes.ahead, weights)
                from graphcheck.graphs import structure  # networkx loads while the weights are hashed

                hashing.result()
                model_.release(*self.models)
            if self.graphs:
                self.files = [pool.submit(_file_digest, m) for m in self.models]
            with self._timed("structure"):
                self.structure = structure.compare_structure(*self.models, self.hashes)
            judged = self._identical() or self._prove()
            with self._timed("waiting for onnxruntime"):
                self.executions.wait()
        except KeyboardInterrupt:
            self.hashes.stop()
            self.executions.abort()
            raise
        finally:
            pool.shutdown(wait=True)
        if judged is None:
            judged = self._judge()
        if judged[0] is Verdict.PROVED:
            doubt = self.executions.contradiction([a.pair for a in self.attempts if a.pair is not None])
            judged = (Verdict.UNDECIDED, doubt) if doubt else (judged[0], judged[1] + self.executions.refused())
        return judged

    # -- proofs --------------------------------------------------------------------------------------------------

    def _interface_verdict(self, blocking: list[interface.Mismatch]) -> Judged:
        message = "; ".join(m.message for m in blocking)
        if self.options.run and all(m.kind == "dtype" for m in blocking):
            self.say("running both models")
            with contextlib.suppress(GraphcheckError):
                self.executions.execute()
            if self.executions.rows():
                reason = f"the declared types differ, so the models are compared by deviations only: {message}"
                return Verdict.UNDECIDED, reason
        return Verdict.DIFFERENT, f"the interfaces do not fit: {message}"

    def _identical(self) -> Judged | None:
        assert self.structure is not None
        if self.structure.identical and not self.interface.mismatches:
            return Verdict.IDENTICAL, "the same graph up to names, order and storage, with bit-equal constants"
        return None

    def _prove(self) -> Judged | None:
        """Congruence and windows at all sizes; None where they do not suffice (``failed`` says why)."""
        with self._timed("proof"):
            for number, chosen in enumerate(self.trials.sizes()):
                self.say(f"proving at {text(chosen)}")
                for attempt in self.trials.attempts(chosen, lambda: not self.executions.plainly_apart()):
                    if attempt.refused == "both" and (number or attempt.sample):
                        continue  # not a size of these models
                    self.attempts.append(attempt)
                    if not attempt.proved or attempt.pair is None:
                        self.failed.append(attempt)
                        continue
                    for name, x, y in self.trials.unequal_shapes(attempt.pair):
                        return self._unequal_shapes(
                            attempt,
                            f"output {name!r} has the same elements in another shape, {list(x.shape)} in A and "
                            f"{list(y.shape)} in B: Reshape to {list(x.shape)} would make B equal to A",
                        )
                if self.failed:
                    return None
        if all(math.prod(x.shape) == 0 for a in self.attempts if a.pair for x in self.trials.compared(a.pair)):
            return Verdict.UNDECIDED, "nothing was compared: no output has an element at these shapes"
        return Verdict.PROVED, record.proved(self.attempts, self.trials)

    def _judge(self) -> Judged:
        """What is left when the proof windows did not suffice."""
        for attempt in self.failed:
            found = self._apart(attempt)
            if found is not None:
                return found
        first = self.failed[0]
        if len(self.failed) > 1:
            self._locate(first)
        try:
            self.say("replacing re-rounded constants")
            with self._timed("rounding"):
                within = self._rounded()
            if within:
                return Verdict.WITHIN_ROUNDING, record.within_rounding(self.constants, self.attempts, self.trials)
            self.say("evaluating both from the inputs")
            with self._timed("proof from inputs"):
                return self._from_inputs(first)
        except Undecided as error:
            known = record.sizes(self.constants, self.deviations)
            return Verdict.UNDECIDED, f"{error}; {known}" if known else str(error)

    def _apart(self, attempt: Attempt) -> Judged | None:
        """The difference at one choice of sizes and samples, or that nothing can be said of it; None to go on."""
        found = self._refusal(attempt) if attempt.refused in ("a", "b") else None
        if found or attempt.pair is None or attempt.prover is None:
            return (Verdict.DIFFERENT, found) if found else (Verdict.UNDECIDED, attempt.why())
        self._locate(attempt)
        layout = self._layout(attempt)
        if layout:
            return self._unequal_shapes(attempt, layout)
        for name, x, y in self.trials.unequal_shapes(attempt.pair):
            traced = (
                f"output {name!r} has shape {list(x.shape)} in A and {list(y.shape)} in B at {text(attempt.shapes)}"
            )
            refused = self._refusal(attempt)
            if refused:
                return Verdict.DIFFERENT, refused
            return self._unequal_shapes(attempt, f"{traced}, by the operators' definitions")
        self.say("looking for an input that shows a difference")
        try:
            with self._timed("float64"):
                shown = self._different(attempt)
        except Undecided as error:
            return Verdict.UNDECIDED, str(error)
        return (Verdict.DIFFERENT, shown) if shown else None

    def _unequal_shapes(self, attempt: Attempt, sentence: str) -> Judged:
        """What the traces say of shapes; onnxruntime may say otherwise."""
        assert attempt.pair is not None
        names = [name for name, _, _ in self.trials.unequal_shapes(attempt.pair)]
        if all(self.executions.same_shape(name, attempt.shapes) for name in names):
            return Verdict.UNDECIDED, f"{sentence}; but in onnxruntime the shapes are equal there"
        return Verdict.DIFFERENT, sentence

    def _from_inputs(self, attempt: Attempt) -> Judged:
        assert attempt.prover is not None
        equal = attempt.prover.from_inputs()
        if not equal:
            hidden = "a division by zero hid the answer" if equal is None else "the graphs are not the same expression"
            known = record.sizes(self.constants, self.deviations)
            reason = f"not proved ({hidden} modulo a prime), and no input was found that shows a difference"
            return Verdict.UNDECIDED, f"{reason}; {known}" if known else reason
        if attempt.sample is not None:
            return Verdict.UNDECIDED, "proved from the inputs at one sample of the integer inputs only"
        attempt.proved = True
        self.constants, self.error = [], 0.0  # what a substitution tried has no part in this proof
        for chosen in self.trials.sizes():
            if chosen in [a.shapes for a in self.attempts]:
                continue
            again = self.trials.attempt(chosen, None, lambda: True)
            if again.refused == "both":
                continue
            self.attempts.append(again)
            again.proved = again.proved or (again.prover is not None and bool(again.prover.from_inputs()))
            if not again.proved:
                return Verdict.UNDECIDED, again.why()
        return Verdict.PROVED, record.proved(self.attempts, self.trials)

    def _rounded(self) -> bool:
        """Whether the proof goes through at all sizes and samples once ``constants`` are replaced, within their roundings."""
        settled: list[Attempt] = []
        for chosen in self.trials.sizes():
            pushed, pulled = (self.trials.pairs(chosen, affine=affine) for affine in ("push", "pull"))
            for sample, pair in pushed:
                found = self._substituted(pair) or self._substituted(next(p for s, p in pulled if s == sample))
                if found is None:
                    self.constants = []
                    return False
                self.constants += [c for c in found.constants if c not in self.constants]
                self.error += found.error
                if not found.within:
                    return False
                settled.append(Attempt(chosen, sample))
        if not self.constants or self.error > self.options.error_probability:
            return False
        # only now: what stands in ``attempts`` counts as settled, and a later proof would not look at it again
        known = [(a.shapes, a.sample) for a in self.attempts]
        self.attempts += [a for a in settled if (a.shapes, a.sample) not in known]
        return True

    def _substituted(self, pair: classes.Pair) -> rounding.Substitution | None:
        target = self.options.error_probability / TARGET_SHARE
        return rounding.substitute(
            pair, self.trials.roots(pair), seed=self.options.seed, target=target, deadline=self.deadline
        )

    # -- differences ---------------------------------------------------------------------------------------------

    def _locate(self, attempt: Attempt) -> None:
        assert attempt.pair is not None and attempt.prover is not None
        self.alignment = Alignment(*self.models, attempt.pair)
        opened = [self.trials.positions[i] for i in attempt.prover.open_pairs()]
        self.divergence = self.alignment.divergence(opened)

    def _layout(self, attempt: Attempt) -> str | None:
        """The layout changes that would make B equal to A, where a layout is all that separates them."""
        assert attempt.pair is not None and attempt.prover is not None
        unequal = {name for name, _, _ in self.trials.unequal_shapes(attempt.pair)}
        texts = []
        for position in attempt.prover.open_pairs():
            i, j = self.trials.positions[position]
            x, y, name = attempt.pair.a.outputs[i], attempt.pair.b.outputs[j], self.trials.outputs[position].key
            change = (
                layout_change(attempt.pair.terms, x, y) if isinstance(x, Tensor) and isinstance(y, Tensor) else None
            )
            if change is None or name not in unequal:
                return None
            texts.append(f"output {name!r} differs by its layout alone: {change} would make B equal to A")
        return "; ".join(texts) or None

    def _refusal(self, attempt: Attempt) -> str | None:
        """One model runs at these sizes and the other does not: a witness, once onnxruntime shows it."""
        if not self.options.run:
            return None
        shown = witness.refusal(
            self.sources,
            self.models,
            self.interface,
            attempt.shapes,
            seed=self.options.seed,
            folder=self.options.witness,
        )
        self.found = None if shown is None else shown.to_json()
        return None if shown is None else shown.reason

    def _different(self, attempt: Attempt) -> str | None:
        """The sentence of a witness, saved; None if none was found."""
        assert attempt.pair is not None and attempt.prover is not None
        opened = attempt.prover.open_pairs()
        o, shapes, sample = self.options, attempt.shapes, attempt.sample
        spec = inputs.InputSpec(o.seed, ranges=o.range_rows())
        given = None if o.inputs is None else inputs.load_npz(o.inputs, self.interface)
        roots = [attempt.prover.roots[i] for i in opened]
        for pair in samples.pairs(
            attempt.pair, self.interface, roots, spec, given, lambda values: self.trials.build(shapes, sample, values)
        ):
            known = attempt.prover.roots if pair is attempt.pair else self.trials.roots(pair)
            found = self._searched(pair, [(self.trials.outputs[i].key, *known[i]) for i in opened])
            if found is not None:
                files = [model_.path_of(m) or side for m, side in zip(self.models, "AB", strict=True)]
                saved = found.save(self.options.witness, (files[0], files[1]))
                self.found = saved.to_json()
                return saved.reason
        return None

    def _searched(self, pair: classes.Pair, outputs: list[tuple[str, int, int]]) -> witness.Witness | None:
        """A witness at the pair's sizes and integers; the most telling deviations are noted."""
        search = witness.Search(
            self.sources,
            self.models,
            self.interface,
            pair,
            outputs,
            seed=self.options.seed,
            ranges=self.options.ranges,
            given=self.options.inputs,
            tick=self._check_time,
            run=self.options.run,
        )
        found = search.run()
        if found or max((d.units for d in search.deviations), default=-1) > max(
            (d.units for d in self.deviations), default=-1
        ):
            self.deviations = search.deviations
        return found

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise Undecided(f"the time limit of {self.options.timeout:g} s was reached")

    # -- the record ----------------------------------------------------------------------------------------------

    def _finish(self, verdict: Verdict, reason: str) -> Comparison:
        attempt = next((a for a in reversed(self.attempts) if a.pair is not None), None)
        if self.alignment is None and attempt is not None and attempt.pair is not None:
            self.alignment = Alignment(*self.models, attempt.pair)
        shown = verdict in (Verdict.PROVED, Verdict.WITHIN_ROUNDING)
        spread = {d.output: d.spread for d in self.deviations if d.spread}
        numbers = self.executions.numbers
        if numbers and self.options.numerics == "full":
            with self._timed("curve"):
                pairs = [a.pair for a in self.attempts if a.pair is not None]
                known = (self.models, self.interface, pairs, self.divergence, self.executions.runs)
                points, seen = first_curve(*known, self.options.seed, shown)
            numbers |= {"curve": points} if self.graphs else {}
            spread = spread or seen
        record.in_spreads(numbers, spread)
        evidence: dict[str, Any] = {
            "a": self._summary(0),
            "b": self._summary(1),
            "interface": self.interface.to_json(),
            "structure": self.structure and self.structure.to_json(),
            "numeric": numbers,
            "constants": self.constants,
            "float64": [d.to_json() for d in self.deviations],
            "proof": record.proof(self.attempts, self.trials, self.constants, self.error) if shown else None,
            "divergence": self.divergence and self.divergence.to_json(),
            "witness": self.found,
            "reduced": self._reduced(attempt),
            "graphs": record.drawn(self.models, self._first_pair()) if self.graphs else None,
            "alignment": self.alignment.nodes() if self.alignment is not None else [],
            "seed": self.options.seed,
            "versions": record.versions(),
            "timings": {
                **self.timings,
                "onnxruntime": self.executions.seconds,
                "total": time.monotonic() - self.started,
            },
            **self.executions.gate(),
        }
        return Comparison(verdict, reason, evidence)

    def _summary(self, side: int) -> dict[str, Any]:
        if not self.graphs:
            return {"path": model_.path_of(self.models[side])}
        return model_.summary(self.models[side], self.files[side].result() if self.files else None)

    def _first_pair(self) -> classes.Pair | None:
        return next((a.pair for a in self.attempts if a.pair is not None), None)

    def _reduced(self, attempt: Attempt | None) -> dict[str, Any] | None:
        if self.options.reduce is None or self.divergence is None or attempt is None or attempt.pair is None:
            return None
        assert self.alignment is not None

        def again(a: str, b: str) -> Comparison:
            with limits.within(None, _AGAIN):
                return Judging(a, b, Options(seed=self.options.seed, timeout=_AGAIN), False, self.say).run()

        folder = Path(self.options.reduce)
        return reduction.write(self.models, attempt.pair, self.alignment, self.divergence, folder, again)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - start


def _file_digest(model: ir.Model) -> str | None:
    path = model_.path_of(model)
    return None if path is None else model_.file_digest(path)
