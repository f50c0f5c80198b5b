"""What a comparison found on the way to its verdict: typed, each field set once, and the JSON of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from graphcheck.files import model as model_
from graphcheck.graphs.structure import Structure
from graphcheck.interface.ports import Mismatch
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.sizes import Attempt
from graphcheck.parting.alignment import Alignment, Divergence
from graphcheck.parting.difference import Deviation
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.changed import changed, used
from graphcheck.verdicts.executions import Executions
from graphcheck.verdicts.steps import Met

Judged = tuple[Verdict, str]
Attempts = tuple[Attempt, ...]
# The keys of ``timings`` that are no rungs: ``onnxruntime`` has threads of its own, and ``waiting`` for it may be in a rung.
BESIDES = ("read", "onnxruntime", "waiting", "curve", "numbers", "steps", "reduction", "approximation", "total")


@dataclasses.dataclass(frozen=True, eq=False)
class Parting:
    """Where and by how much the graphs part at one attempt that stayed open.

    Attributes:
        attempt: The attempt.
        alignment: The tensors that both graphs have; None where they could not be traced.
        divergence: The first tensors that have no partner.
        deviations: Of each output in float64, on the input that told most.
        witness: The ``witness`` key of the JSON.
    """

    attempt: Attempt
    alignment: Alignment | None = None
    divergence: Divergence | None = None
    deviations: tuple[Deviation, ...] = ()
    witness: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Substitutions:
    """The proofs with constants replaced by the other side's expressions.

    Attributes:
        constants: Those that were replaced, as the JSON has them.
        error: What the proofs add to the error probability.
        attempts: The sizes and samples at which the graphs are the same once they are replaced; none unless that is
            everywhere, and within the roundings.
        proofs: The graphs at each of them, with the stores in which they met.
        turns: Whether a constant in another format decides a comparison, an index or a whole number.
    """

    constants: tuple[dict[str, Any], ...] = ()
    error: float = 0.0
    attempts: Attempts = ()
    proofs: tuple[Met, ...] = ()
    turns: bool = False

    @property
    def within(self) -> bool:
        """Whether every constant lies within its roundings, or within what is allowed."""
        return all(c["within"] for c in self.constants)


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
    """What is known of a model as a copy of the other one in a narrower format.

    Attributes:
        formats: What was erased.
        ulps: What folded constants may be apart.
        asked: Whether that is allowed; else it was tried, to say what would be.
        found: The constants that are no longer in the way.
        marks: How many casts to each format vanished, at the sizes where there are most.
        step: The node of a step behind one of them.
        kept: Weights of the copy that stayed in float32.
        parts: The first node of the copy (``node``, ``op_type``) that the other graph does not have even so, where the graphs are
            not the same, or are but for constants that are off; ``begins``: the first of the nodes before it that were gathered
            in it, as a Conv in a BatchNormalization, and may be the one as well; ``lost``: the first node of that graph that the
            copy does not have (alone, where the copy has nothing of its own).
        stopped: What ended it.
        ends: Quantizers whose range ends at 0 where the other model goes on: they must cut nothing off at the inputs run.
        clips: Quantizers whose range reaches up to where a Clip of the other model ends: what they cut off is cut off there, too.
        side: Which of the two is the copy, ``a`` or ``b``.
        unnamed: Formats that one of the two alone is in, and that are not among ``formats``.
        relus: Quantizers below whose range a Relu or a Clip of the other model cuts off as well.
    """

    formats: tuple[str, ...]
    ulps: int = 0
    asked: bool = False
    found: Substitutions = Substitutions()
    marks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    step: str = ""
    kept: Sequence[str] = ()
    parts: Mapping[str, Any] | None = None
    stopped: str = ""
    ends: Set[str] = frozenset()
    clips: Set[str] = frozenset()
    relus: Set[str] = frozenset()
    side: str = "b"
    unnamed: tuple[str, ...] = ()

    @property
    def rounded(self) -> list[dict[str, Any]]:
        """The constants that are such roundings."""
        return [c for c in self.found.constants if c["within"] and c["format"]]

    @property
    def same(self) -> bool:
        """Whether the graphs are the same but for roundings, a step and constants that are none."""
        return bool(self.found.attempts) and bool(self.rounded or self.marks or not self.found.within)

    @property
    def holds(self) -> bool:
        """Whether they are the same but for what is allowed."""
        return self.same and self.asked and self.found.within and not self.step

    @property
    def tells(self) -> bool:
        """Whether there is something to say: what is the same but for a format, or where that is allowed, which node is not, or
        that the copy is in another one."""
        return self.same or (self.asked and (self.parts is not None or bool(self.unnamed)))

    def to_json(self) -> dict[str, Any]:
        """The ``precision`` key of the JSON."""
        off = [c for c in self.found.constants if not c["within"]]
        return {
            "formats": list(self.formats),
            "ulps": self.ulps,
            "allowed": self.asked,
            "same": self.same,
            "constants": len(self.rounded),
            "activations": sum(self.marks.values()),
            "cut": sum(c["cut"] for c in self.rounded),
            "lifted": sum(c["lifted"] for c in self.rounded),
            "moved": sum(c["moved"] for c in self.rounded),
            "off": [
                {**{k: c[k] for k in ("a", "b", "elements", "index", "values")}, "by": c["needs"], "reason": c["why"]}
                for c in ({**c, "needs": c["needs"] if math.isfinite(c["needs"]) else None} for c in off)
            ],
            "kept": list(self.kept) if self.rounded else [],
            "step": self.step or None,
            "parts": self.parts,
            "stopped": self.stopped or None,
            "unnamed": list(self.unnamed),
        }


class Evidence:
    """Each field is set once: that of a rung's name by this rung, the others by :mod:`graphcheck.verdicts.judge`.

    Attributes:
        executions: The runs in onnxruntime.
        timings: Seconds by rung, and by what is done besides.
        interface: What leaves nothing to compare.
        structure: What the graphs share as they are written.
        congruence: The attempts at a proof, as far as equal expressions carry them.
        rows: The same once windows are tried that treat all rows alike.
        windows: The same once all windows are tried.
        parts: The same once parts of those windows are tried that cost too much.
        witness: Where the graphs part, and the input that shows it.
        precision: The same with allowed roundings erased besides.
        rounding: The proofs with constants replaced.
        breakpoints: Where the graphs part at a size at which one of them changes, and the input that shows it.
        inputs: The attempts once the graphs are evaluated from their inputs; None unless they agree at the first sizes.
        digests: Of the model files, where the graphs are asked for.
        alignment: The tensors that both graphs have.
        curve: How far the tensors are apart along the graphs: points, and the spread of outputs by A's name.
        numbers: What a narrower format does to the numbers, as keys of ``precision`` in the JSON.
        steps: Why the proof holds; None where there is none, or nobody asked.
        reduced: The ``reduced`` key of the JSON.
    """

    executions: Executions
    timings: dict[str, float]
    interface: tuple[Mismatch, ...] | None = None
    structure: Structure | None = None
    congruence: Attempts | None = None
    rows: Attempts | None = None
    windows: Attempts | None = None
    parts: Attempts | None = None
    witness: Parting | None = None
    precision: Precision | None = None
    rounding: Substitutions | None = None
    breakpoints: Parting | None = None
    inputs: Attempts | None = None
    digests: tuple[concurrent.futures.Future[str | None], ...] = ()
    alignment: Alignment | None = None
    curve: tuple[list[dict[str, Any]], dict[str, float]] | None = None
    numbers: dict[str, Any] | None = None
    steps: list[dict[str, Any]] | None = None
    reduced: dict[str, Any] | None = None

    def __init__(self, executions: Executions) -> None:
        self.executions = executions
        self.timings = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).__annotations__:
            raise AttributeError(f"evidence has no field {name!r}")
        if name in vars(self):
            raise AttributeError(f"{name!r} is known already: each field of the evidence is set once, by one rung")
        super().__setattr__(name, value)

    def release(self) -> None:
        """Forget the attempts, which gives memory back."""
        vars(self).update(dict.fromkeys(("congruence", "rows", "windows", "parts", "inputs"), ()), rounding=None, precision=None)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds inside to ``timings``."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.timings[name] = self.timings.get(name, 0.0) + time.monotonic() - started

    # -- what follows from the fields ----------------------------------------------------------------------------

    @property
    def _traced(self) -> Attempts:
        return next((a for a in (self.parts, self.windows, self.rows, self.congruence) if a is not None), ())

    @property
    def _rounded(self) -> Substitutions | None:
        """The proofs with constants replaced, unless a later rung proves the graphs as they are."""
        if self.precision is not None and self.precision.holds:
            return self.precision.found
        later = self.inputs is not None or (self.parts is not None and all(a.proved for a in self.parts))
        return None if later else self.rounding

    @property
    def open(self) -> Attempts:
        """The attempts, all at one choice of sizes, that neither congruence nor windows proved."""
        return tuple(attempt for attempt in self._traced if not attempt.proved)

    @property
    def attempts(self) -> Attempts:
        """The attempts at all choices of sizes, as the last rung left them."""
        if self.inputs is not None:
            return self.inputs
        known = [(a.shapes, a.sample) for a in self._traced]
        later = self._rounded.attempts if self._rounded is not None else ()
        return (*self._traced, *(a for a in later if (a.shapes, a.sample) not in known))

    @property
    def proofs(self) -> list[Met]:
        """The graphs at all choices of sizes, with the stores in which they met after the first."""
        if self._rounded is not None:
            return list(self._rounded.proofs)
        return [(a.pair, ()) for a in self.attempts if a.proved and a.pair is not None]

    @property
    def constants(self) -> list[dict[str, Any]]:
        """The constants that were replaced; none have a part in a proof from the inputs."""
        return list(self._rounded.constants) if self._rounded is not None else []

    @property
    def parting(self) -> Parting | None:
        """Where the graphs part, at the sizes of which the verdict speaks."""
        return self.breakpoints or self.witness

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Of each output in float64, on the input that told most."""
        return self.parting.deviations if self.parting is not None else ()

    @property
    def divergence(self) -> Divergence | None:
        """Where the graphs part first."""
        return self.parting.divergence if self.parting is not None else None

    @property
    def known(self) -> str:
        """What is known of a difference that was neither proved away nor shown, as a phrase."""
        return record.known(self.constants, self.deviations)

    def to_json(self, case: Case, verdict: Verdict) -> dict[str, Any]:
        """The evidence as ``--json`` writes it."""
        shown = verdict in (Verdict.PROVED, Verdict.WITHIN_ROUNDING)
        error = self._rounded.error if self._rounded is not None else 0.0
        first = next((a.pair for a in self.attempts if a.pair is not None), None)
        now = time.monotonic()
        return {
            "a": self._summary(case, 0, first),
            "b": self._summary(case, 1, first),
            "interface": case.interface.to_json(),
            "structure": self.structure.to_json() if self.structure is not None and case.options.partners else None,
            "numeric": self._numeric(case),
            "constants": self.constants,
            "changed": changed(self.structure) if self.structure is not None else [],
            "used": used(self.structure) if self.structure is not None else None,
            "float64": [d.to_json() for d in self.deviations],
            "proof": record.proof(self.attempts, case.sizes, self.constants, error, self.steps) if shown else None,
            "precision": self._precision(),
            "divergence": self.divergence and self.divergence.to_json(),
            "witness": self.parting and self.parting.witness,
            "reduced": self.reduced,
            "graphs": record.drawn(case.models, first) if case.options.graphs else None,
            "alignment": self.alignment.nodes() if self.alignment is not None and case.options.partners else [],
            "seed": case.options.seed,
            "versions": record.versions(),
            "timings": {
                **self.timings,
                "onnxruntime": self.executions.seconds,
                "waiting": self.executions.waited,
                "total": now - case.started,
            },
            **self.executions.gate(),
        }

    def _summary(self, case: Case, side: int, pair: Pair | None) -> dict[str, Any]:
        model = case.models[side]
        if not case.options.graphs:
            return {"path": model_.path_of(model)}
        rank = None if pair is None else model_.largest_rank((pair.a, pair.b)[side].values.values())
        return model_.summary(model, self.digests[side].result() if self.digests else None, traced=rank)

    def _precision(self) -> dict[str, Any] | None:
        """What is known of a copy, and of its numbers."""
        if self.precision is None:
            return self.numbers
        numbers, relus = self.numbers or {}, self.precision.relus
        cut = [row | {"relu": row["node"] in relus} for row in numbers.get("saturated", ())]
        return self.precision.to_json() | numbers | ({"saturated": cut} if cut else {})

    def _numeric(self, case: Case) -> dict[str, Any] | None:
        numbers = self.executions.numbers
        points, seen = self.curve or ([], {})
        if numbers and self.curve is not None and (case.options.graphs or case.options.top):
            numbers = {**numbers, "curve": points}
        record.in_spreads(numbers, {d.output: d.spread for d in self.deviations if d.spread} or seen)
        return numbers
