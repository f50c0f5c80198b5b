"""The rung of re-rounded constants: those that lie within the roundings of the other side's expression give way to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from graphcheck.errors import Undecided
from graphcheck.kernel.ops.erasing import SIGNS
from graphcheck.kernel.proof import rounding
from graphcheck.kernel.proof.allowed import NOTHING, Allowed
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.sizes import TARGET_SHARE, Attempt
from graphcheck.kernel.terms.verbs import Opaque, ranged
from graphcheck.verdict import Verdict
from graphcheck.verdicts import record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged, Substitutions
from graphcheck.verdicts.stages import Stage


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
    first at which the graphs are not the same even so (``proofs`` has these alone then, in each of the ways that were tried, with
    the constants kept apart that are off, if there is something ``allowed``), or a constant lies beyond its roundings.

    Constant factors are gathered in two ways, and stay behind a range that begins at 0 or do not: the way that found the
    constants is the first at the next.
    """
    found, ways = Substitutions(), [("push", False), ("pull", False), ("push", True), ("pull", True)]
    for chosen in case.sizes.choices(evidence.attempts):
        order = ways
        tried = [
            case.sizes.pairs(chosen, affine=way, erased=(*allowed.formats, *([SIGNS] if signs else ()))) for way, signs in order
        ]
        for sample, pair in tried[0]:
            each, pairs = _substitute(case, pair, allowed), [pair]
            partings = [(pair, each)]
            for place, (_, signs) in enumerate(order[1:], 1):
                if each.met or (signs and not order[0][1] and not _begins_at_0(pair)):
                    break
                pair = next(p for s, p in tried[place] if s == sample)
                each, pairs = _substitute(case, pair, allowed), [*pairs, pair]
                partings.append((pair, each))
                ways = [order[place], *order[:place], *order[place + 1 :]] if each.met else order
            for other in (pairs[0], pairs[-1])[: len(pairs)]:
                if (each.met and each.within) or not _begins_at_0(pair):
                    break
                supposed = _substitute(case, other, allowed, supposes=True)
                if supposed.met and (supposed.within or (each.met and supposed.off < each.off)):
                    each, pair = supposed, other
            if not each.met or case.sizes.unequal_shapes(Attempt(chosen, sample, pair)):
                apart = [(p, s.stages if s.within else kept_apart(case, p, allowed)) for p, s in partings if allowed]
                yield Substitutions(proofs=(*apart,)), pair
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


def _begins_at_0(pair: Pair) -> bool:
    """Whether a quantizer has a range that begins at 0, and may be a Relu as far as is known."""
    verbs = (pair.terms.term(cls).verb for _, _, cls in pair.algebra.marks)
    return any(isinstance(verb, Opaque) and ranged(verb.key) and verb.key[0][1] > 0 for verb in verbs)


def kept_apart(case: Case, pair: Pair, allowed: Allowed) -> tuple[Stage, ...]:
    """The stores in which two graphs met, but for what constants that are off keep apart; none where the time is up."""
    try:
        return _substitute(case, pair, allowed, keeps=True).stages
    except Undecided:
        return ()


def _substitute(case: Case, pair: Pair, allowed: Allowed, **how: bool) -> rounding.Substitution:
    target = case.options.error_probability / TARGET_SHARE
    roots = case.sizes.roots(pair)
    return rounding.substitute(
        pair, roots, seed=case.options.seed, target=target, deadline=case.deadline, allowed=allowed, **how
    )
