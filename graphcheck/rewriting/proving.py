"""The checks of a rewrite, its proof, and what of it passes both: a site that does not is refused alone."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence

import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.errors import Exhausted
from graphcheck.patches.site import Refusal, Site
from graphcheck.rewriting.checks import ONNXRUNTIME, WINDOWS, structural_checks
from graphcheck.rewriting.folded_proof import parametric
from graphcheck.rewriting.result import Rewrite
from graphcheck.verdict import Comparison, Verdict

Prove = Callable[[ir.Model, ir.Model], Comparison]
NO_KERNEL = "GC312"
Make = Callable[[Collection[str]], Rewrite]  # without the parts of these names


def passing(make: Make, judged: Callable[[Rewrite], Rewrite]) -> Rewrite:
    """The rewrite of all parts, or of as many as pass together what is ``judged``: each of the others is refused alone.

    Parts are halved until those that fail by themselves are found. What is refuted is a mistake of ours, and returned as
    it is; so is a rewrite of which nothing passes, unless onnxruntime's kernels are all that is missing.
    """
    start = time.perf_counter()
    whole = make(())
    first = judged(whole) if whole.changed else whole
    parts = whole.parts
    if first.changed or not parts or first.verdict is Verdict.DIFFERENT:
        return first
    passed: list[Rewrite] = []
    refuted: list[Rewrite] = []
    refused: dict[str, Coded] = {}

    def keep(names: Sequence[str], kept: Collection[str]) -> list[str]:
        """Those of ``names`` that pass beside what is ``kept``; the last rewrite that passed has just these."""
        try:
            result = first if len(names) == len(parts) else judged(make(parts.keys() - {*names, *kept}))
        except Exhausted as error:
            late = Coded(f"{error.reason} before it could be looked at by itself", error.code)
            refused.update(dict.fromkeys(names, late))
            return []
        if result.changed:
            passed.append(result)
            return [*names]
        if result.verdict is Verdict.DIFFERENT:
            refuted.append(result)
        elif len(names) == 1:
            refused.update(dict.fromkeys(names, _why(result)))
        if refuted or len(names) == 1:
            return []
        half = len(names) // 2
        left = keep(names[:half], kept)
        return [*left, *keep(names[half:], [*kept, *left])]

    keep([*parts], [])
    if refuted:
        return refuted[0]
    if not passed and all(reason.code == NO_KERNEL for reason in refused.values()):
        nothing = make(parts.keys())
        passed += [nothing if not nothing.changed else judged(nothing)]
    if not passed or passed[-1].verdict is Verdict.UNDECIDED:
        return first
    result = passed[-1]
    told = [Refusal(reason, parts[name]) for name, reason in refused.items()]
    seconds = time.perf_counter() - start - sum(result.timings.values())
    return dataclasses.replace(
        result, refusals=(*result.refusals, *told), timings={**result.timings, "isolate": seconds}
    )


def _why(result: Rewrite) -> Coded:
    """Why a rewrite does not pass."""
    failed = next((check for check in result.checks if check.ok is False), None)
    if failed is not None and failed.name == ONNXRUNTIME:
        return Coded(failed.detail, NO_KERNEL)
    how = "is not proved" if failed is None else "failed its own check"
    return Coded(f"its rewrite {how}: {result.reason}", "GC216")


def judge(result: Rewrite, check: Prove | None, run: bool = True) -> Rewrite:
    """Run the checks; the original takes the model's place where one fails or the proof is missing.

    Windows may be read in more than one way, so that a proof excuses a result whose own are read in another.
    """
    start = time.perf_counter()
    sites = tuple(a.site for a in result.applied)
    checks = structural_checks(result.original, result.model, sites or result.analysis.everything, run=run)
    failed = next((c for c in checks if c.ok is False), None)
    timings = {**result.timings, "checks": time.perf_counter() - start}
    result = dataclasses.replace(result, checks=tuple(checks), timings=timings)
    unread = failed is not None and failed.name == WINDOWS and check is not None
    if failed is not None and not unread:
        return dataclasses.replace(result, model=result.original, verdict=Verdict.UNDECIDED, reason=failed.detail)
    if check is None:
        return dataclasses.replace(result, reason="not proved: no check was asked for")
    start = time.perf_counter()
    verdict, reason = _proof(result, sites, check)
    timings = {**timings, "prove": time.perf_counter() - start}
    held = verdict in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
    model = result.model if held else result.original
    if held and unread:
        read = f"{failed.detail} as it is read, and is proved"  # type: ignore[union-attr]
        checks = [dataclasses.replace(c, ok=None, detail=read) if c is failed else c for c in checks]
    if held and not run:
        reason += "; neither was run in onnxruntime, as asked"
    elif held and (unknown := next((c for c in checks if c.name == ONNXRUNTIME and c.ok is None), None)) is not None:
        reason += f"; neither was run: {unknown.detail}"
    return dataclasses.replace(result, model=model, verdict=verdict, reason=reason, checks=tuple(checks), timings=timings)


def _proof(result: Rewrite, sites: Sequence[Site], check: Prove) -> tuple[Verdict, str]:
    """The verdict; only a folded normalization and a summed weight may be ``within-rounding``, by a proof of their own.

    A new model may take more sizes than the original, as a Conv does that crops; one that takes fewer is not proved.
    """
    if not any(site.folded or (site.summed and not site.summed.exact) for site in sites):
        what, pair = "", (result.original, result.model)
    else:
        what = "folded normalization" if any(site.folded for site in sites) else "summed weight"
        free = parametric(result.original, result.model, sites)
        if isinstance(free, str):
            return Verdict.UNDECIDED, f"the {what} is not proved: {free}"
        pair = free
    proof = check(*pair)
    if not proof.verdict.meets(Verdict.PROVED):
        return Verdict.UNDECIDED if proof.verdict is Verdict.WITHIN_ROUNDING else proof.verdict, proof.reason
    if fewer := _fewer(proof):
        return Verdict.UNDECIDED, f"the new model does not take {fewer}, which the original takes"
    if what == "summed weight":
        said = "proved with the weight as a free input; each summed weight is the exact one, rounded once"
        return Verdict.WITHIN_ROUNDING, said
    if what:
        return Verdict.WITHIN_ROUNDING, (
            "proved with the weights and the normalization as free inputs; each folded weight and bias is the exact one, "
            "rounded once"
        )
    return proof.verdict, proof.reason


def _fewer(proof: Comparison) -> str:
    """The first size of a free dim that the original alone takes; empty where there is none among those looked at."""
    limits = (proof.evidence.get("proof") or {}).get("limits", {})
    rows = ((name, row) for name, limit in limits.items() for row in limit["taken_by_one"] if row["by"] == "a")
    return next((f"{name} = {row['size']}" for name, row in rows), "")
