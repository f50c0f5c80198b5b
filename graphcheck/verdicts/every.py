"""``--every``: a proof that has to hold at every size of a free dim, and what keeps it from that."""

from __future__ import annotations

from graphcheck import words
from graphcheck.codes import Coded
from graphcheck.errors import UsageError
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged

BATCH, ALL = "batch", "all"


def asked(case: Case) -> list[str]:
    """The free dims that ``--every`` names; ``batch`` is the leading one. Raises :class:`UsageError` for another name."""
    places = case.sizes.free.typed
    found: dict[str, None] = {}
    for name in case.options.every:
        named = [name] if name in places else list(places) if name == ALL else []
        named = named or [symbol for symbol, there in places.items() if name == BATCH and there[0][1] == 0]
        if not named:
            known = ", ".join(map(words.short, places)) or "none"
            raise UsageError(f"--every {words.short(name)}: no input has a free dim of that name; free are: {known}")
        found |= dict.fromkeys(named)
    return list(found)


def held(case: Case, evidence: Evidence, judged: Judged) -> Judged:
    """``undecided`` where a proof does not hold at every size that was asked for; equal graphs do at all."""
    if not case.options.every or judged[0] not in (Verdict.PROVED, Verdict.WITHIN_ROUNDING):
        return judged
    limits = case.sizes.free.limits(evidence.attempts)
    missing = [f"{record.size_of(case.sizes, name)}: {limits[name]['reason']}" for name in asked(case) if name in limits]
    if not missing:
        return judged
    return Verdict.UNDECIDED, Coded(f"{judged[1]}; but not for every {'; '.join(missing)}", "GC211")
