"""One row of the rewriter's table: what is recognised in a model, which forms it reaches by which verdict, and why not."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import onnx_ir as ir

from graphcheck.equivalence.compare import compare
from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Site
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.rewrite import Rewrite, rewrite
from graphcheck.verdict import Comparison

REACHED = ("identical", "proved", "proved, not run", "there")


@dataclasses.dataclass(frozen=True)
class Row:
    """A model's sites in words, form -> verdict (``there``: it is so already; ``no``: refused), refusals by reason."""

    name: str
    sites: tuple[str, ...]
    forms: dict[str, str]
    refusals: tuple[str, ...]
    ordinary: int
    seconds: float


def row(name: str, model: ir.Model, *, timeout: float = 120.0) -> Row:
    """Recognise, rewrite to each form, prove."""
    start = time.perf_counter()
    _, found = prepared(model)
    sites = [site for site in found.sites if not site.ordinary]
    forms: dict[str, str] = {}
    refusals = [refusal.reason for refusal in found.refusals]
    for form in FORMS if sites else ():
        result = _attempt(model, form, sites, timeout)
        where = ""
        if result.applied and not result.changed and "onnxruntime runs the original and refuses" in result.reason:
            result, where = _attempt(model, form, sites, timeout, run=False), ", not run"
        new = [r.reason for r in result.refusals[len(found.refusals) :]]
        refusals += new
        if result.applied:
            forms[form] = f"{result.verdict}{where}" if result.changed else f"{result.verdict}: {result.reason}"
        else:
            forms[form] = "no" if new else "there"
    words = tuple(dict.fromkeys(map(said, sites)))
    ordinary = len(found.sites) - len(sites)
    return Row(name, words, forms, tuple(refusals), ordinary, time.perf_counter() - start)


def _attempt(model: ir.Model, form: str, sites: Sequence[Site], timeout: float, *, run: bool = True) -> Rewrite:
    def check(a: ir.Model, b: ir.Model) -> Comparison:
        return compare(a, b, graphs=False, timeout=timeout, run=run)

    return rewrite(model, form, sites=[site.name for site in sites], check=check, run=run)


def rewritten(model: ir.Model, to: str) -> ir.Model:
    """The model with all its sites in one form, not proved."""
    _, found = prepared(model)
    return rewrite(model, to, sites=[s.name for s in found.sites]).model


def said(site: Site) -> str:
    """``conv 16x16/16`` with what is unusual: padding, groups, another layout than channels first."""
    kernel, stride = ("x".join(map(str, v)) for v in (site.kernel_shape, [a.stride for a in site.spatial]))
    more = [site.layout] if site.layout not in ("NCHW", "NCL", "NCDHW") else []
    more += ["padded"] if any(a.begin > 0 or a.end > 0 for a in site.spatial) else []
    more += [f"{site.groups} groups"] if site.groups > 1 else []
    more += ["flattened"] if site.flattened else []
    return " ".join([site.form, f"{kernel}/{stride}", *more])
