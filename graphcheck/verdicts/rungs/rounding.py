"""The rung of re-rounded constants: those that lie within the roundings of the other side's expression give way to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from graphcheck.kernel.proof import rounding
from graphcheck.kernel.proof.allowed import NOTHING, Allowed
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.sizes import TARGET_SHARE, Attempt
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged, Substitutions


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``within-rounding`` where the proof goes through at all sizes and samples once constants are replaced."""
    found, within = Substitutions(), False
    try:
        for so_far, _ in replaced(case, evidence):
            found = so_far
        within = bool(found.constants) and found.within and found.error <= case.options.error_probability
    finally:
        evidence.rounding = found if within else dataclasses.replace(found, attempts=(), proofs=())
    if not within:
        return None
    return Verdict.WITHIN_ROUNDING, record.within_rounding(evidence.constants, evidence.attempts, case.sizes)


def replaced(case: Case, evidence: Evidence, allowed: Allowed = NOTHING) -> Iterator[tuple[Substitutions, Pair]]:
    """What was replaced so far, after one choice of sizes and samples after the other, and the graphs there; it ends with the
    first at which the graphs are not the same even so (``proofs`` has these alone then), or a constant lies beyond its roundings.

    Constant factors are gathered in two ways, and the one that found the constants is the first at the next.
    """
    found, ways = Substitutions(), ["push", "pull"]
    for chosen in case.sizes.choices(evidence.attempts):
        order = ways
        first, second = (case.sizes.pairs(chosen, affine=way, erased=allowed.formats) for way in order)
        for sample, pair in first:
            each = _substitute(case, pair, allowed)
            if not each.met:
                pair = next(p for s, p in second if s == sample)
                each = _substitute(case, pair, allowed)
                ways = order[::-1] if each.met else order
            if not each.met or case.sizes.unequal_shapes(Attempt(chosen, sample, pair)):
                yield Substitutions(proofs=((pair, each.stages),)), pair
                return
            found = Substitutions(
                (*found.constants, *(c for c in each.constants if c not in found.constants)),
                found.error + each.error,
                (*found.attempts, Attempt(chosen, sample, pair if case.unfit else None)),
                (*found.proofs, (pair, each.stages)),
                found.turns or each.turns,
            )
            yield found, pair
            if not each.within:
                return


def _substitute(case: Case, pair: Pair, allowed: Allowed) -> rounding.Substitution:
    target = case.options.error_probability / TARGET_SHARE
    roots = case.sizes.roots(pair)
    return rounding.substitute(
        pair, roots, seed=case.options.seed, target=target, deadline=case.deadline, allowed=allowed
    )
