"""The first rung: inputs and outputs that do not fit each other leave nothing to compare."""

from __future__ import annotations

import contextlib

from graphcheck.errors import GraphcheckError
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``different`` where the interfaces do not fit; ``undecided`` where only types differ, and both models run."""
    evidence.interface = case.unfit
    if not case.unfit:
        return None
    message = "; ".join(m.message for m in case.unfit)
    if case.can_run:
        case.say("by running both models")
        with contextlib.suppress(GraphcheckError):
            evidence.executions.wait()
        if evidence.executions.rows():
            reason = f"the declared types differ, so the models are compared by deviations only: {message}"
            return Verdict.UNDECIDED, reason
    return Verdict.DIFFERENT, f"the interfaces do not fit: {message}"
