"""The rung of the breakpoints: where nothing is proved at the first sizes, an input may show a difference beyond one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphcheck import words
from graphcheck.kernel.proof.free import breakpoints
from graphcheck.kernel.proof.sizes import Attempt
from graphcheck.parting.budget import Budget
from graphcheck.parting.witness import SEARCH
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged
from graphcheck.verdicts.rungs.proof import TOOLS
from graphcheck.verdicts.rungs.witness import judged_at, parted


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``different`` where the graphs part at a size at which one of them changes; a proof goes there of itself, but one that
    needs constants replaced, or is not found, does not. One budget is for all of them."""
    found, budget, shown = list(evidence.attempts), Budget(SEARCH), None
    try:
        for chosen in case.sizes.edges(found):
            if budget.over or (evidence.witness is not None and evidence.witness.attempt.shapes == chosen):
                continue
            case.say(f"at {words.shapes(chosen)}")
            for attempt in [a for a in found if a.shapes == chosen] or _traced(case, evidence, found, chosen):
                if attempt.pair is None or (attempt.proved and not case.sizes.unequal_shapes(attempt)):
                    continue
                judged, parting = judged_at(case, evidence, parted(case, attempt), budget)
                if judged is not None and judged[0] is Verdict.DIFFERENT:
                    shown = parting
                    return judged[0], f"{judged[1]}; that is at {words.shapes(chosen)}{_why(case, found, chosen)}"
    finally:
        evidence.breakpoints = shown
    return None


def _traced(case: Case, evidence: Evidence, found: list[Attempt], chosen: dict[str, tuple[int, ...]]) -> Iterator[Attempt]:
    """The attempts at these sizes, as far as what is cheap carries them; they join those that are ``found``."""
    for attempt in case.sizes.traced_at(chosen, found):
        for tool in TOOLS[:2]:
            attempt = case.sizes.step(attempt, tool, found, evidence.executions.plainly_apart)
        found.append(attempt)
        yield attempt


def _why(case: Case, found: Sequence[Attempt], chosen: Mapping[str, tuple[int, ...]]) -> str:
    """The node whose way is another at these sizes than beside them."""
    for symbol, ((key, axis), *_) in case.sizes.free.places.items():
        node = breakpoints(symbol, found).get(chosen[key][axis])
        if node:
            return f", where {words.short(node)} changes"
    return ""
