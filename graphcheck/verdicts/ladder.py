"""The ladder of evidence: what is looked at, in which order, until it suffices for one of the five verdicts.

Each rung adds what it found to the evidence, under its own name, and gives a verdict, or None to go on with the next.
A new one is an entry of the list and a file in ``rungs/``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

from graphcheck.parting.budget import work
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged
from graphcheck.verdicts.rungs import breakpoints, inputs, interface, precision, proof, rounding, structure, witness

_LARGE = 5e7  # work (see graphcheck/parting/budget.py) of evaluating both graphs once, most of a second


def never(case: Case, evidence: Evidence) -> bool:
    """No reason to leave a rung out."""
    return False


def plainly_apart(case: Case, evidence: Evidence) -> bool:
    """Whether the runs deviate far beyond rounding: a witness is looked for then, before anything costly is tried."""
    return evidence.executions.plainly_apart()


def agree_and_are_large(case: Case, evidence: Evidence) -> bool:
    """Whether the runs agree but for a little rounding, and evaluating both graphs would take long: no witness is likely then,
    and re-rounded constants are told without any evaluation."""
    pair = next((attempt.pair for attempt in evidence.open if attempt.pair is not None), None)
    if pair is None:
        return False
    terms, roots = pair.terms, [cls for both in case.sizes.roots(pair) for cls in both]
    return sum(work(terms.terms[cls]) for cls in terms.order(roots)) > _LARGE and evidence.executions.agree()


@dataclasses.dataclass(frozen=True)
class Rung:
    """``name`` is a field of the evidence and a key of ``timings``; ``words`` say what is being done.

    It is left out where ``unless`` holds, and changes places with the one before it where ``early`` does.
    """

    name: str
    words: str
    look: Callable[[Case, Evidence], Judged | None]
    unless: Callable[[Case, Evidence], bool] = never
    early: Callable[[Case, Evidence], bool] = never


LADDER = (
    Rung("interface", "comparing the interfaces", interface.look),
    Rung("structure", "comparing the graphs", structure.look),
    Rung("congruence", "proving", proof.congruence),
    Rung("precision", "erasing roundings", precision.look, unless=precision.needless),
    Rung("rows", "proving by rows", proof.rows),
    Rung("windows", "proving by windows", proof.windows, unless=plainly_apart),
    Rung("witness", "looking for an input that shows a difference", witness.look),
    Rung("rounding", "replacing re-rounded constants", rounding.look, early=agree_and_are_large),
    Rung("parts", "proving by parts of windows", proof.parts, unless=plainly_apart, early=agree_and_are_large),
    Rung("breakpoints", "looking for a difference where a graph changes", breakpoints.look),
    Rung("inputs", "evaluating both from the inputs", inputs.look),
)


def climb(case: Case, evidence: Evidence, ladder: Sequence[Rung] = LADDER) -> Judged:
    """The first verdict that a rung gives. Raises :class:`graphcheck.errors.Undecided` where a limit is reached."""
    rest = list(ladder)
    while rest:
        if len(rest) > 1 and rest[1].early(case, evidence):
            rest[:2] = rest[1::-1]
        rung = rest.pop(0)
        if rung.unless(case, evidence):
            continue
        case.say(rung.words)
        with evidence.timed(rung.name):
            judged = rung.look(dataclasses.replace(case, say=functools.partial(_tell, case.say, rung.words)), evidence)
        if judged is not None:
            return judged
    return Verdict.UNDECIDED, "no rung of the ladder came to a verdict"


def _tell(say: Callable[[str], None], words: str, text: str) -> None:
    say(f"{words} {text}")
