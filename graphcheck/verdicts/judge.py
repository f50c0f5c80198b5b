"""From two models to a comparison: the case is opened, the ladder climbed, and what it found is put on record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphcheck import limits, words
from graphcheck.codes import Coded, of
from graphcheck.errors import Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.terms.verbs import Opaque
from graphcheck.options import Options
from graphcheck.parting import reduction
from graphcheck.parting.alignment import Alignment
from graphcheck.parting.curve import first_curve
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts import branches, contrary, every, fitting, numbers, record
from graphcheck.verdicts.case import Case, opened
from graphcheck.verdicts.evidence import Evidence, Judged
from graphcheck.verdicts.executions import Executions
from graphcheck.verdicts.ladder import climb
from graphcheck.verdicts.steps import steps

if TYPE_CHECKING:
    from graphcheck.verdicts.approximations import Approximation

_AGAIN = 60.0  # seconds for the two small models that ``reduce`` asks for


def judge(
    a: model_.ModelLike,
    b: model_.ModelLike,
    options: Options,
    *,
    named: bool = True,
    usual: Mapping[str, int] | None = None,
) -> Comparison:
    """The verdict with its evidence; ``undecided`` where a limit was reached. ``named``: a known approximation is looked for.

    Where one model, or both, refuse the usual sizes (``usual``: other ones of free dims, in their place), others are looked
    for, and the verdict is that at those.
    """
    with opened(a, b, options, usual) as case:
        evidence = Evidence(Executions(case.sources, case.models, case.interface, case.options, case.given))
        evidence.timings["read"] = case.seconds
        if case.options.every:
            every.asked(case)
        verdict, reason = _judged(case, evidence)
        code = of(reason) if verdict is Verdict.UNDECIDED else None
        nothing = verdict is Verdict.UNDECIDED and fitting.fits_nothing(evidence)
        found, others = [], None
        with _besides():
            others = None if usual else fitting.usual_sizes(case, evidence.attempts)
            found = fitting.fits(case) if nothing and case.options.inputs is None else []
    if others:
        return fitting.fitted(judge(a, b, options, named=named, usual=others), others, evidence.attempts[0].refused)
    if found:
        return fitting.combined(found, [judge(a, b, each) for each in fitting.options(case, found)])
    runs = known = None
    with _besides():
        _complete(case, evidence, verdict)
    with _besides():
        runs = _contrary(case, evidence) if verdict is Verdict.UNDECIDED and not reason.startswith("PROVED") else None
    if runs is not None:
        plain = reason.replace("no input was found that shows", "no input was found that surely shows")
        reason = f"{runs}; {plain}"
    copied = evidence.precision
    within = verdict is Verdict.WITHIN_ROUNDING and copied is not None and copied.holds
    clipped = numbers.clipped(case, evidence, copied) if within and copied is not None else None
    if clipped is not None:
        verdict, reason, code = Verdict.UNDECIDED, f"{reason}; but {clipped}", of(clipped)
    if verdict in (Verdict.UNDECIDED, Verdict.DIFFERENT) and copied is not None and copied.tells and not case.unfit:
        said = [record.precision(copied), reason]
        code = "GC213" if code and copied.asked and clipped is None else code
        if not reason.startswith(said[0]):  # as it does where --every asks for more
            reason = "; ".join(said if verdict is Verdict.UNDECIDED else said[::-1])
    with _besides():
        known = _approximation(case, evidence) if named and verdict in (Verdict.UNDECIDED, Verdict.DIFFERENT) else None
    reason += f"; {known.text()}" if known is not None else ""
    more = {"approximation": known and known.to_json(), "hint": fitting.hint(case) if nothing else None, "branches": None}
    if verdict is Verdict.WITHIN_ROUNDING:
        code = "GC231" if copied is not None and copied.holds else "GC230"
    told = Comparison(verdict, reason, evidence.to_json(case, verdict) | more, code)
    del evidence  # its graphs are held no longer
    with _besides():
        return branches.split(case, told, time.monotonic() - case.started, lambda each: judge(a, b, each))
    return told


@contextlib.contextmanager
def _besides() -> Iterator[None]:
    """What is told beside a verdict: a limit that it meets ends it, and costs no verdict."""
    with contextlib.suppress(Undecided, MemoryError, RecursionError):
        yield


def _judged(case: Case, evidence: Evidence) -> Judged:
    """The verdict, while both models run in onnxruntime beside the proof."""
    if case.can_run:
        evidence.executions.start(case.threads)
    try:
        return every.held(case, evidence, _held_against_runs(case, evidence, climb(case, evidence)))
    except KeyboardInterrupt:
        case.contents.stop()
        evidence.executions.abort()
        raise
    except Undecided as error:
        return Verdict.UNDECIDED, Coded(f"{error}; {evidence.known}" if evidence.known else str(error), error.code)
    except RecursionError:
        return Verdict.UNDECIDED, Coded("an expression of the graphs is nested too deeply for the proof", "GC208")
    except MemoryError:
        evidence.release()
        return Verdict.UNDECIDED, Coded(f"the memory limit of {words.size(limits.current().memory)} was reached", "GC202")


def _held_against_runs(case: Case, evidence: Evidence, judged: Judged) -> Judged:
    """A proof whose runs deviate far beyond rounding is in doubt; that onnxruntime refuses one side is added to it."""
    if not case.unfit:
        evidence.executions.wait()
    if judged[0] is not Verdict.PROVED:
        return judged
    doubt = evidence.executions.contradiction([a.pair for a in evidence.attempts if a.pair is not None])
    return (Verdict.UNDECIDED, Coded(doubt, "GC212")) if doubt else (judged[0], judged[1] + evidence.executions.refused())


def _approximation(case: Case, evidence: Evidence) -> Approximation | None:
    """The known approximation that separates the two models."""
    if case.unfit:
        return None
    with evidence.timed("approximation"):
        from graphcheck.verdicts import approximations  # with the blaming that a proof never asks for

        spent = time.monotonic() - case.started
        return approximations.approximation(case, spent, lambda *each: judge(*each, named=False).verdict)


def _contrary(case: Case, evidence: Evidence) -> str | None:
    """What onnxruntime's outputs say against an open verdict, and why it is open all the same."""
    if case.unfit:
        return None
    parting = evidence.parting
    pair = parting.attempt.pair if parting is not None else None
    roots = [] if pair is None else [c for row in case.sizes.roots(pair) for c in row]
    verbs = [] if pair is None else [pair.terms.terms[c].verb for c in pair.terms.order(roots)]
    unknown = sorted({str(verb.key[0][1]) for verb in verbs if isinstance(verb, Opaque)})
    steps = [] if pair is None else contrary.rounding_steps(pair, roots)
    deviations = parting.deviations if parting is not None else ()
    return contrary.sentence(evidence.executions.rows(), deviations, unknown, steps)


def _complete(case: Case, evidence: Evidence, verdict: Verdict) -> None:
    """Add what is told whatever the verdict: the tensors that both graphs have, the curve, why a proof
    holds, the numbers of a copy, the two small models."""
    traced = [a.pair for a in evidence.attempts if a.pair is not None]
    side = numbers.copy_of(case)
    if side is not None:  # first, since a quantized copy is accepted by them as well
        with evidence.timed("numbers"):
            evidence.numbers = numbers.told(case, evidence, side)
    alignment = evidence.parting.alignment if evidence.parting is not None else None
    if alignment is None and traced and case.options.partners:
        alignment = Alignment(*case.models, traced[-1])
    evidence.alignment = alignment
    if evidence.executions.numbers and (case.options.numerics == "full" or (case.options.top and side is None)):
        shown = verdict in (Verdict.PROVED, Verdict.WITHIN_ROUNDING)
        runs, seed = evidence.executions.runs, case.options.seed
        with evidence.timed("curve"):
            known = (case.models, case.interface, traced, evidence.divergence, runs)
            evidence.curve = first_curve(*known, seed, shown)
    if verdict in (Verdict.PROVED, Verdict.WITHIN_ROUNDING) and (case.options.graphs or case.options.explain):
        with evidence.timed("steps"):
            evidence.steps = steps(case.models, case.sizes.positions, evidence.proofs)
    if case.options.reduce is not None:
        with evidence.timed("reduction"):
            evidence.reduced = _reduced(case, evidence, verdict, Path(case.options.reduce))


def _reduced(case: Case, evidence: Evidence, verdict: Verdict, folder: Path) -> dict[str, object]:
    """The two small models around the first divergence, written and compared; or why there are none."""
    parting = evidence.parting
    if verdict in (Verdict.IDENTICAL, Verdict.PROVED):
        return reduction.none("the graphs do not part")
    if parting is None:
        return reduction.none("the comparison ended before it was looked at where the graphs part")
    if parting.attempt.pair is None or parting.alignment is None:
        return reduction.none(f"the graphs could not be evaluated side by side: {parting.attempt.why()}")
    if parting.divergence is None:
        return reduction.none("no tensor was found at which the graphs part")

    def again(a: str, b: str) -> Comparison:
        with limits.within(None, _AGAIN):
            return judge(a, b, Options(seed=case.options.seed, timeout=_AGAIN, graphs=False, partners=False, progress=case.say))

    return reduction.write(case.models, parting.attempt.pair, parting.alignment, parting.divergence, folder, again)
