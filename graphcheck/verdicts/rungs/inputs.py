"""The last rung: both graphs evaluated from their inputs, modulo primes."""

from __future__ import annotations

import dataclasses

from graphcheck.codes import OPEN, Coded
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged
from graphcheck.verdicts.rungs.proof import TOOLS, proved, why


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``proved`` where the outputs are equal modulo every prime at all sizes, else ``undecided``."""
    first = evidence.open[0]
    assert first.prover is not None
    large = evidence.executions.plainly_apart() and first.prover.by_rows()  # the rows that were left for now
    equal = large or first.prover.from_inputs()
    if not equal:
        hidden = "a division by zero hid the answer" if equal is None else "the graphs are not the same expression"
        what = "more than allowed roundings explain" if case.options.allow else "a difference"
        reason = f"not proved ({hidden} modulo a prime), and no input was found that shows {what}"
        code = OPEN if all(c["within"] for c in evidence.constants) else "GC217"
        return Verdict.UNDECIDED, Coded(f"{reason}; {evidence.known}" if evidence.known else reason, code)
    if first.sample is not None:
        return Verdict.UNDECIDED, Coded("proved from the inputs at one sample of the integer inputs only", "GC211")
    known = [dataclasses.replace(a, proved=True) if a is first else a for a in evidence.attempts]
    evidence.inputs = case.sizes.prove(known, (*TOOLS, "inputs"), case.say)
    judged = proved(case, evidence, evidence.inputs)
    if judged is not None:
        return judged
    still = next(a for a in evidence.inputs if not a.proved)
    if still.stopped is not None and still.prover is not None:
        raise still.stopped
    return Verdict.UNDECIDED, why(still)
