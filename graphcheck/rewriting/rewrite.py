"""Rewrites every site of a model to one form; the proof that the result is the same function is handed in."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck import model as model_
from graphcheck.errors import UsageError
from graphcheck.patches.analyze import find
from graphcheck.patches.site import Refusal, Site
from graphcheck.rewriting.apply import apply, sweep
from graphcheck.rewriting.builder import Cannot
from graphcheck.rewriting.checks import Check, structural_checks
from graphcheck.rewriting.forms import FORMS
from graphcheck.verdict import Comparison, Verdict

SCHEMA = "graphcheck/rewrite/1"

Prove = Callable[[ir.Model, ir.Model], Comparison]


@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """One site that was rewritten: as it was, the form it has now, and its tensors before and after."""

    site: Site
    to: str
    before: tuple[dict[str, Any], ...]
    after: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "site": self.site.to_json(),
            "from": self.site.form,
            "to": self.to,
            "before": list(self.before),
            "after": list(self.after),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Rewrite:
    """The result of a rewrite; ``model`` is the rewritten clone, or the original where nothing was applied or held."""

    original: ir.Model
    model: ir.Model
    to: str
    applied: tuple[Applied, ...]
    refusals: tuple[Refusal, ...]
    verdict: Verdict | None
    reason: str
    checks: tuple[Check, ...]
    timings: dict[str, float]

    @property
    def changed(self) -> bool:
        """Whether ``model`` differs from the original and passed everything that was asked of it."""
        return self.model is not self.original

    def to_json(self) -> dict[str, Any]:
        """``graphcheck rewrite`` as plain data (schema graphcheck/rewrite/1); ``output`` is the caller's to fill."""
        return {
            "schema": SCHEMA,
            "model": model_.summary(self.original),
            "to": self.to,
            "sites": [a.to_json() for a in self.applied],
            "refusals": [r.to_json() for r in self.refusals],
            "verdict": None if self.verdict is None else str(self.verdict),
            "reason": self.reason,
            "checks": [c.to_json() for c in self.checks],
            "timings": dict(self.timings),
            "output": None,
        }


def rewrite(model: ir.Model, to: str = "conv", *, check: Prove | None = None, sites: Sequence[str] | None = None) -> Rewrite:
    """Rewrite the patch embeddings of ``model`` (left as it is) to the form ``to``.

    ``sites`` picks them by the name of their contraction, input or output; without it all but ordinary sliding Convs are
    taken. ``check`` proves the result against the original; if its verdict is no proof, or a structural check fails, the
    result's ``model`` is the original. Raises :class:`UsageError` for an unknown form or site.
    """
    if to not in FORMS:
        raise UsageError(f"there is no form {to!r}; the forms are {', '.join(FORMS)}")
    start = time.perf_counter()
    work = model.clone()
    work.meta.pop("graphcheck.path", None)
    analysis = find(work)
    analyzed = time.perf_counter()
    chosen, refusals = choose(analysis.sites, to, sites)
    refusals = [*analysis.refusals, *refusals]
    replaced: dict[ir.Value, ir.Value] = {}
    applied: list[Applied] = []
    for site in chosen:
        before = described(site.region)
        try:
            nodes = apply(work, site, to, replaced)
        except Cannot as error:
            refusals.append(Refusal(str(error), site.name))
            continue
        applied.append(Applied(site, to, before, described(nodes)))
    timings = {"analyze": analyzed - start, "rewrite": time.perf_counter() - analyzed}
    if not applied:
        return Rewrite(model, model, to, (), tuple(refusals), None, "nothing to rewrite", (), timings)
    sweep(work)
    return judge(Rewrite(model, work, to, tuple(applied), tuple(refusals), None, "", (), timings), check)


def choose(found: Sequence[Site], to: str, named: Sequence[str] | None) -> tuple[list[Site], list[Refusal]]:
    """The sites to rewrite, and why others are left alone."""
    if named:
        known = {name for site in found for name in (site.name, site.input.name, site.output.name)}
        unknown = [name for name in named if name not in known]
        if unknown:
            raise UsageError(f"there is no site {unknown[0]!r}; the sites are {', '.join(s.name for s in found) or 'none'}")
    chosen, refusals = [], []
    for site in found:
        if named and not {site.name, site.input.name, site.output.name} & set(named):
            continue
        if site.form == to or (to == "matmul" and site.form == "unfold" and site.sliding):
            continue
        if site.ordinary and not named:
            refusals.append(Refusal("an ordinary sliding Conv is rewritten only when it is named", site.name))
        elif site.blocked is not None:
            refusals.append(Refusal(site.blocked, site.blocker or site.name))
        else:
            chosen.append(site)
    return chosen, refusals


def described(nodes: Sequence[ir.Node]) -> tuple[dict[str, Any], ...]:
    """The tensors that nodes write, with rank and shape as far as they are declared."""
    rows = []
    for node in nodes:
        for value in node.outputs:
            shape = model_.declared_shape(value)
            rank = None if shape is None else len(shape)
            rows.append({"tensor": value.name, "op_type": node.op_type, "rank": rank, "shape": shape})
    return tuple(rows)


def judge(result: Rewrite, check: Prove | None) -> Rewrite:
    """Run the checks; the original takes the model's place where one fails or the proof is missing."""
    start = time.perf_counter()
    checks = structural_checks(result.original, result.model, tuple(a.site for a in result.applied))
    failed = next((c for c in checks if c.ok is False), None)
    timings = {**result.timings, "checks": time.perf_counter() - start}
    result = dataclasses.replace(result, checks=tuple(checks), timings=timings)
    if failed is not None:
        return dataclasses.replace(result, model=result.original, verdict=Verdict.UNDECIDED, reason=failed.detail)
    if check is None:
        return dataclasses.replace(result, reason="not proved: no check was asked for")
    start = time.perf_counter()
    comparison = check(result.original, result.model)
    timings = {**timings, "prove": time.perf_counter() - start}
    held = comparison.verdict.meets(Verdict.PROVED)
    model = result.model if held else result.original
    return dataclasses.replace(
        result, model=model, verdict=comparison.verdict, reason=comparison.reason, timings=timings
    )
