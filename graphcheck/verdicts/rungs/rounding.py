"""The rung of re-rounded constants: those that lie within the roundings of the other side's expression give way to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from graphcheck.kernel.proof import rounding
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.sizes import TARGET_SHARE, Attempt
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged, Substitutions
from graphcheck.verdicts.steps import Met


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``within-rounding`` where the proof goes through at all sizes and samples once constants are replaced."""
    found, settled, proofs, within = Substitutions(), list[Attempt](), list[Met](), False
    try:
        for attempt, pair, each in _substituted(case, evidence):
            if each is None:
                found = Substitutions()
                break
            constants = (*found.constants, *(c for c in each.constants if c not in found.constants))
            found = Substitutions(constants, found.error + each.error)
            if not each.within:
                break
            settled.append(attempt)
            proofs.append((pair, each.stages))
        else:
            within = bool(found.constants) and found.error <= case.options.error_probability
    finally:
        everywhere = slice(None if within else 0)
        evidence.rounding = dataclasses.replace(found, attempts=tuple(settled)[everywhere], proofs=tuple(proofs)[everywhere])
    if not within:
        return None
    return Verdict.WITHIN_ROUNDING, record.within_rounding(evidence.constants, evidence.attempts, case.sizes)


def _substituted(case: Case, evidence: Evidence) -> Iterator[tuple[Attempt, Pair, rounding.Substitution | None]]:
    """The constants that keep the graphs apart, at one choice of sizes and samples after the other.

    Constant factors are gathered in two ways, and the one that found the constants is the first at the next.
    """
    ways = ["push", "pull"]
    for chosen in case.sizes.choices(evidence.attempts):
        order = ways
        first, second = (case.sizes.pairs(chosen, affine=way) for way in order)
        for sample, pair in first:
            found = _substitute(case, pair)
            if found is None:
                pair = next(p for s, p in second if s == sample)
                found = _substitute(case, pair)
                ways = order if found is None else order[::-1]
            yield Attempt(chosen, sample), pair, found


def _substitute(case: Case, pair: Pair) -> rounding.Substitution | None:
    target = case.options.error_probability / TARGET_SHARE
    roots = case.sizes.roots(pair)
    return rounding.substitute(pair, roots, seed=case.options.seed, target=target, deadline=case.deadline)
