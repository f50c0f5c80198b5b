"""The rungs of the proof: equal expressions, then windows, at every choice of sizes that the verdict names.

Each takes up what the one before left open at some sizes, and goes on from there with all that came before it.
"""

from __future__ import annotations

import math

from graphcheck.codes import OPEN, Coded
from graphcheck.errors import Endless
from graphcheck.kernel.proof.sizes import Attempt
from graphcheck.verdict import Verdict
from graphcheck.verdicts import fitting, record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Attempts, Evidence, Judged

TOOLS = ("congruence", "rows", "windows")


def congruence(case: Case, evidence: Evidence) -> Judged | None:
    """``proved`` where both graphs, traced into one store, give the same expressions."""
    evidence.congruence = case.sizes.prove((), TOOLS[:1], case.say)
    if any(isinstance(attempt.stopped, Endless) for attempt in evidence.congruence):
        evidence.executions.hurry()
    if fitting.usual_sizes(case, evidence.congruence):
        return Verdict.UNDECIDED, Coded("the usual sizes do not fit both models", "GC207")  # and others are looked at instead
    return proved(case, evidence, evidence.congruence)


def rows(case: Case, evidence: Evidence) -> Judged | None:
    """``proved`` where windows that treat all rows alike close what is open: one row stands for all, which is cheap.

    Where the runs are plainly apart, all but a few wait until no witness was found.
    """
    evidence.rows = case.sizes.prove(evidence.attempts, TOOLS[:2], case.say, evidence.executions.plainly_apart)
    return proved(case, evidence, evidence.rows)


def windows(case: Case, evidence: Evidence) -> Judged | None:
    """``proved`` where windows over whole tensors close what is open."""
    evidence.windows = case.sizes.prove(evidence.attempts, TOOLS, case.say)
    return proved(case, evidence, evidence.windows)


def parts(case: Case, evidence: Evidence) -> Judged | None:
    """``proved`` where the first of windows that cost too much close what is open."""
    evidence.parts = case.sizes.prove(evidence.attempts, (*TOOLS, "parts"), case.say)
    return proved(case, evidence, evidence.parts)


def proved(case: Case, evidence: Evidence, attempts: Attempts) -> Judged | None:
    """``proved`` if every attempt is; None where one is open. Equal elements in unequal shapes are a difference."""
    for attempt in attempts:
        for name, x, y in case.sizes.unequal_shapes(attempt) if attempt.proved else ():
            reshape = f"Reshape to {list(x.shape)} would make B equal to A"
            shapes = f"{list(x.shape)} in A and {list(y.shape)} in B"
            found = f"output {name!r} has the same elements in another shape, {shapes}: {reshape}"
            return unequal_shapes(case, evidence, attempt, found)
    if not all(attempt.proved for attempt in attempts):
        return None
    if all(math.prod(x.shape) == 0 for a in attempts if a.pair for x in case.sizes.compared(a.pair)):
        return Verdict.UNDECIDED, Coded("nothing was compared: no output has an element at these shapes", "GC214")
    return Verdict.PROVED, record.proved(attempts, case.sizes)


def why(attempt: Attempt) -> Coded:
    """What stopped the proof of an attempt."""
    return Coded(attempt.why(), OPEN if attempt.stopped is None else attempt.stopped.code)


def unequal_shapes(case: Case, evidence: Evidence, attempt: Attempt, sentence: str) -> Judged:
    """``different``, by what the traces say of shapes; ``undecided`` where onnxruntime says otherwise."""
    names = [name for name, _, _ in case.sizes.unequal_shapes(attempt)]
    if all(evidence.executions.same_shape(name, attempt.shapes) for name in names):
        return Verdict.UNDECIDED, Coded(f"{sentence}; but in onnxruntime the shapes are equal there", "GC212")
    return Verdict.DIFFERENT, sentence


