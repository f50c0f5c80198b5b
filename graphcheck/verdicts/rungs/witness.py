"""The rung of the witness: where the graphs part, and an input that shows it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from graphcheck import words
from graphcheck.codes import Coded
from graphcheck.errors import Exhausted, Oversized, Undecided, UsageError
from graphcheck.interface import inputs, ports
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.allowed import Allowed
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.sizes import Attempt
from graphcheck.parting import refusals, samples, witness
from graphcheck.parting.alignment import Alignment, layout_change
from graphcheck.parting.allowance import explained
from graphcheck.parting.broken import broken
from graphcheck.parting.budget import Budget, work
from graphcheck.parting.difference import Deviation
from graphcheck.parting.locating import Locator, located
from graphcheck.parting.trials import Drawing
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged, Parting
from graphcheck.verdicts.rungs.proof import unequal_shapes, why

_HEAVY = 1e8  # work (see budget.py) of evaluating both graphs once, over a second, above which smaller sizes are tried first
_FEW = witness.SEARCH / 4  # work that is spent at the smallest lengths: some faults show at larger ones alone


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``different`` where the open outputs differ: by their layout or shapes, or on an input that shows it.

    ``undecided`` where one side cannot be traced, or the time is up. At several samples of the integer inputs, the first
    that gives a verdict tells where the graphs part, else the first of all.
    """
    evidence.executions.wait()
    first = parting = Parting(evidence.open[0])
    try:
        for attempt in evidence.open:
            parting = dataclasses.replace(parted(case, attempt), deviations=parting.deviations)
            first = parting if attempt is first.attempt else first
            judged, parting = judged_at(case, evidence, parting, Budget(witness.SEARCH))
            if judged is not None:
                return sized(evidence, attempt, judged)
        parting = dataclasses.replace(first, deviations=parting.deviations)
    finally:
        evidence.witness = parting
    return None


def sized(evidence: Evidence, attempt: Attempt, judged: Judged) -> Judged:
    """The same, with the sizes where they are not those at which the graphs are the same."""
    same = next((a for a in evidence.attempts if a.proved and a.shapes != attempt.shapes), None)
    if judged[0] is not Verdict.DIFFERENT or same is None:
        return judged
    at, elsewhere = words.shapes(attempt.shapes), words.shapes(same.shapes)
    return judged[0], f"{judged[1]}; that is at {at}, and at {elsewhere} both are the same function"


def parted(case: Case, attempt: Attempt) -> Parting:
    """Where the graphs part, if they could be traced."""
    if attempt.pair is None or attempt.prover is None:
        concrete = case.sizes.concrete(attempt.shapes, attempt.sample)
        return Parting(attempt, None, broken(case.models, case.interface, attempt.shapes, concrete, case.contents))
    alignment = Alignment(*case.models, attempt.pair)
    return Parting(attempt, alignment, Locator(case.models, attempt.pair).divergence(_opened(case, attempt.prover)))


def _opened(case: Case, prover: Prover) -> list[tuple[int, int]]:
    """Positions of the open outputs in A and B."""
    return [case.sizes.positions[i] for i in prover.open_pairs()]


def beyond_rounding(case: Case, parting: Parting, pair: Pair | None = None, shown: inputs.Arrays | None = None) -> Parting:
    """The same with the first divergence that is more than rounding, if one can be told: at a drawn input, or at the one that
    has ``shown`` a difference at the sizes and integers of ``pair``."""
    attempt = parting.attempt
    if attempt.pair is None or attempt.prover is None:
        return parting
    pair, opened = pair or attempt.pair, _opened(case, attempt.prover)
    _, _, drawn = Drawing(case.interface, pair, seed=case.options.seed, ranges=case.options.ranges).drawn({})
    with contextlib.suppress(Undecided):  # where the time is over, what was found before stands
        for arrays in (drawn, shown):  # one that was made smaller has too many zeros to tell tensors apart
            found = arrays and located(case.models, pair, opened, arrays, case.options.seed, case.check_time)
            if found:
                return dataclasses.replace(parting, divergence=found)
    return parting


def judged_at(case: Case, evidence: Evidence, parting: Parting, budget: Budget) -> tuple[Judged | None, Parting]:
    """What one attempt says of a difference, or that nothing can be said of it; None to go on."""
    attempt = parting.attempt
    if attempt.pair is None or attempt.prover is None:
        shown = _refusal(case, parting) if attempt.refused in ("a", "b") else None
        return shown or ((Verdict.UNDECIDED, why(attempt)), parting)
    if layout := _layout(case, attempt.pair, attempt.prover, attempt):
        return unequal_shapes(case, evidence, attempt, layout), parting
    for name, x, y in case.sizes.unequal_shapes(attempt):
        traced = f"output {name!r} has shape {list(x.shape)} in A and {list(y.shape)} in B at {words.shapes(attempt.shapes)}"
        sentence = f"{traced}, by the operators' definitions"
        return _refusal(case, parting) or (unequal_shapes(case, evidence, attempt, sentence), parting)
    return _search(case, evidence, attempt.pair, attempt.prover, parting, budget)


def _layout(case: Case, pair: Pair, prover: Prover, attempt: Attempt) -> str | None:
    """The layout changes that would make B equal to A, where a layout is all that separates them."""
    unequal = {name for name, _, _ in case.sizes.unequal_shapes(attempt)}
    texts = []
    for position in prover.open_pairs():
        i, j = case.sizes.positions[position]
        x, y, name = pair.a.outputs[i], pair.b.outputs[j], case.sizes.outputs[position].key
        change = None
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            change = layout_change(pair.terms, x, y)
        if change is None or name not in unequal:
            return None
        texts.append(f"output {name!r} differs by its layout alone: {change} would make B equal to A")
    return "; ".join(texts) or None


def _refusal(case: Case, parting: Parting) -> tuple[Judged, Parting] | None:
    """One model runs at these sizes and the other does not: a witness, once onnxruntime shows it."""
    if not case.options.run:
        return None
    attempt = parting.attempt
    stated = {"a": 0, "b": 1}.get(attempt.refused or "") if not ports.symbols(case.interface) else None
    side = {"a": "A", "b": "B"}.get(attempt.refused or "")
    undefined = side and f"{side} alone is not defined by its operators' definitions ({attempt.stopped})"
    shown = refusals.refusal(case.sources, case.models, case.interface, attempt.shapes, case.options, stated, undefined)
    if shown is None:
        return None
    defined = "" if stated is None else f"; by the operators' definitions, {attempt.stopped}"
    return (Verdict.DIFFERENT, shown.reason + defined), dataclasses.replace(parting, witness=shown.to_json())


def _search(
    case: Case, evidence: Evidence, pair: Pair, prover: Prover, parting: Parting, budget: Budget
) -> tuple[Judged | None, Parting]:
    """``different`` with a witness, which is saved, ``undecided`` where the time is up; with the most telling deviations.

    Where one evaluation costs as much as a search at smaller sizes that showed nothing, and the runs agree, there is no other.
    """
    options, shapes, sample = case.options, parting.attempt.shapes, parting.attempt.sample
    opened = prover.open_pairs()
    spec = inputs.InputSpec(options.seed, ranges=options.range_rows())
    given = None if case.given is None else case.given()
    spells = pair.algebra.spelling
    try:
        pair = case.sizes.build(shapes, sample, spells=True) if spells else pair
        roots = [case.sizes.roots(pair)[i] for i in opened]
        made = samples.pairs(
            pair, case.interface, roots, spec, given, lambda values: case.sizes.build(shapes, sample, values, spells=spells)
        )
        smaller = _smaller(case, parting.attempt, [prover.roots[i] for i in opened], opened, budget)
        for each, own in itertools.chain(smaller, ((each, budget) for each in made)):
            known = case.sizes.roots(each)
            outputs = [(case.sizes.outputs[i].key, *known[i]) for i in opened]
            search = _searching(case, evidence, each, outputs, own)
            if search.work > _FEW and parting.deviations and not evidence.executions.plainly_apart():
                break
            found = search.run()
            if found or _units(search.deviations) > _units(parting.deviations):
                parting = dataclasses.replace(parting, deviations=tuple(search.deviations))
            if found is not None and not _allowed(case, each, opened, found.inputs):
                if found.kind == "given" and each is not pair:  # in the branch that it chooses
                    divergence = Locator(case.models, each).divergence(_opened(case, prover))
                    parting = dataclasses.replace(parting, divergence=divergence)
                parting = beyond_rounding(case, parting, each, dict(found.inputs))
                saved = found.save(case.models, options)
                return (Verdict.DIFFERENT, saved.reason), dataclasses.replace(parting, witness=saved.to_json())
        parting = beyond_rounding(case, parting)
    except Undecided as error:
        return (Verdict.UNDECIDED, Coded(str(error), error.code)), parting
    return None, parting


def _allowed(case: Case, pair: Pair, opened: Sequence[int], shown: Mapping[str, np.ndarray]) -> bool:
    """Whether what is allowed may explain a difference at an input."""
    options = case.options
    if not options.allow:
        return False
    erased = case.sizes.build(dict(pair.shapes), also=pair.concrete, erased=options.formats)
    roots, allowed = case.sizes.roots(erased), Allowed(options.formats, options.ulps, options.steps)
    known = (erased.terms, [roots[i] for i in opened], inputs.leaves_of(shown), allowed, options.seed)
    return explained(*known, tick=lambda _: case.check_time())


def _smaller(
    case: Case, attempt: Attempt, roots: Sequence[tuple[int, int]], opened: Sequence[int], budget: Budget
) -> Iterator[tuple[Pair, Budget]]:
    """Both graphs at the smallest lengths and a batch of 1, with a budget of their own, then at a batch of 1, where evaluating
    them takes long, nothing steers them, and they differ there, too."""
    if attempt.pair is None or attempt.sample is not None or case.given is not None:
        return
    terms, batches = attempt.pair.terms, [symbol for symbol, (_, axis) in ports.symbols(case.interface).items() if axis == 0]
    if sum(work(terms.terms[cls]) for cls in terms.order([cls for row in roots for cls in row])) <= _HEAVY:
        return
    seen = [attempt.shapes]
    for lengths in (case.sizes.least(None), {}):
        try:
            chosen = ports.shapes(case.interface, case.options.shapes, dict.fromkeys(batches, 1) | lengths)
            if chosen in seen:
                continue
            seen.append(chosen)
            pair = case.sizes.build(chosen, spells=attempt.pair.algebra.spelling)
        except (Exhausted, Oversized):
            raise
        except (Undecided, UsageError):  # the models, or what was asked for, leave no choice
            continue
        both = [case.sizes.roots(pair)[i] for i in opened]
        same_shape = not case.sizes.unequal_shapes(Attempt(chosen, None, pair))
        if same_shape and any(pair.terms.find(a) != pair.terms.find(b) for a, b in both):
            yield pair, Budget(_FEW) if lengths else budget


def _searching(
    case: Case, evidence: Evidence, pair: Pair, outputs: list[tuple[str, int, int]], budget: Budget
) -> witness.Search:
    """The search for a witness at the pair's sizes and integers."""
    return witness.Search(
        case.sources,
        case.models,
        case.interface,
        pair,
        outputs,
        seed=case.options.seed,
        ranges=case.options.ranges,
        given=case.given,
        tick=case.check_time,
        run=case.options.run,
        budget=budget,
        shown=evidence.executions.shown,
    )


def _units(deviations: Sequence[Deviation]) -> float:
    return max((d.units for d in deviations), default=-1.0)
