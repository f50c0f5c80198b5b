"""The first rung: inputs and outputs that do not fit each other leave nothing to compare."""

from __future__ import annotations

import contextlib

from graphcheck.codes import Coded
from graphcheck.errors import GraphcheckError
from graphcheck.kernel.proof.allowed import FORMATS
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged
from graphcheck.verdicts.rungs import precision


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``different`` where the interfaces do not fit; ``undecided`` where only types differ, and both models run."""
    evidence.interface = case.unfit
    if not case.unfit:
        return None
    message = "; ".join(m.message for m in case.unfit)
    if all(set(m.dtypes) <= {"float", *FORMATS} and m.dtypes for m in case.unfit) and not precision.needless(case, evidence):
        case.say("but for their formats")
        if (judged := precision.look(case, evidence)) is not None:
            return judged
    if case.can_run:
        case.say("by running both models")
        with contextlib.suppress(GraphcheckError):
            evidence.executions.wait()
        if evidence.executions.rows():
            reason = f"the declared types differ, so the models are compared by deviations only: {message}{_but(evidence)}"
            return Verdict.UNDECIDED, Coded(reason, "GC215")
    if all(m.dtypes and set(m.dtypes) <= {"float", *case.options.formats} for m in case.unfit):
        reason = f"the declared types are allowed, but nothing was shown: {message}{_but(evidence)}"
        return Verdict.UNDECIDED, Coded(reason, "GC215")
    return Verdict.DIFFERENT, f"the interfaces do not fit: {message}"


def _but(evidence: Evidence) -> str:
    """What is the same but for the formats."""
    found = evidence.precision
    return f"; {record.precision(found)}" if found is not None and found.tells else ""
