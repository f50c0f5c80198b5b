"""One row of the rewriter's table: what is recognised in a model, which forms it reaches by which verdict, and back."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.rewrite import Rewrite, rewrite
from graphcheck.verdict import Comparison
from graphcheck.verdicts.compare import compare

# A cell: the verdict of the form against the original; of the way back too, where it is another one.
REACHED = ("identical", "proved", "proved, not run", "there")
NO_WAY_BACK = "no way"
BACK = "; back: "


@dataclasses.dataclass(frozen=True)
class Row:
    """A model's sites in words, form -> cell (``there``: it is so already; ``no``: refused), refusals by reason.

    ``ulp`` is the largest deviation in onnxruntime, in ulps of the output's largest magnitude.
    """

    name: str
    sites: tuple[str, ...]
    forms: dict[str, str]
    refusals: tuple[str, ...]
    ordinary: int
    ulp: float
    seconds: float

    @property
    def wrong(self) -> list[str]:
        """The cells that are none of proved, refused or there already."""
        good = {*REACHED, "no", NO_WAY_BACK}
        cells = self.forms.items()
        return [f"{self.name}: {form}: {cell}" for form, cell in cells if not set(cell.split(BACK)) <= good]


def row(
    name: str, model: ir.Model, *, timeout: float = 120.0, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Row:
    """Recognise, rewrite to each form and back to the original's, prove both against the original, run both."""
    start = time.perf_counter()
    found = prepared(model).analysis
    sites = [site for site in found.sites if not site.ordinary]
    ordinary = len(found.sites) - len(sites)
    sites = sites or list(found.sites[:1])  # an ordinary Conv alone is rewritten too, by name
    forms: dict[str, str] = {}
    refusals = [refusal.reason for refusal in found.refusals]
    attempt = _Attempts(model, timeout, shapes)
    for form in FORMS if sites else ():
        result, said = attempt.form(model, form, [site.name for site in sites])
        new = [r.reason for r in result.refusals[len(found.refusals) :]]
        refusals += new
        if not result.applied:
            forms[form] = "no" if new else "there"
            continue
        forms[form] = said
        back = attempt.back(result, sites[0]) if result.changed else said
        if back != said:
            forms[form] += BACK + back
    words = tuple(dict.fromkeys(map(said_of, sites)))
    return Row(name, words, forms, tuple(refusals), ordinary, attempt.ulp, time.perf_counter() - start)


class _Attempts:
    """Rewrites, each result proved against one model and run beside it."""

    def __init__(self, original: ir.Model, timeout: float, shapes: Mapping[str, tuple[int, ...]] | None) -> None:
        self.original, self.ulp = original, 0.0
        self.options: dict[str, Any] = {"graphs": False, "timeout": timeout, "threads": 1, "shapes": shapes}

    def form(self, model: ir.Model, form: str, sites: Sequence[str]) -> tuple[Rewrite, str]:
        """``model`` in another form, and the verdict against the original in words."""
        result, said = self._rewrite(model, form, sites), ""
        if result.applied and not result.changed and "onnxruntime runs the original and refuses" in result.reason:
            result, said = self._rewrite(model, form, sites, run=False), ", not run"
        if not result.changed or "BUT" in result.reason:
            return result, f"{result.verdict}: {result.reason}"
        return result, f"{result.verdict}{said}"

    def back(self, there: Rewrite, site: Site) -> str:
        """The verdict of the way back to the form that the original has."""
        reason = FORMS[site.form].why_not(site)
        if reason is not None:
            return NO_WAY_BACK
        new = [s.name for s in prepared(there.model).analysis.sites if RULE in s.node.metadata_props]
        if not new:
            return "not recognised"
        result, said = self.form(there.model, site.form, new)
        if not result.applied:  # the one MatMul of unfold and matmul, where windows slide
            return said if result.refusals else "proved"
        return said

    def _rewrite(self, model: ir.Model, form: str, sites: Sequence[str], *, run: bool = True) -> Rewrite:
        def check(_: ir.Model, b: ir.Model) -> Comparison:
            found = compare(self.original, b, run=run, **self.options)
            runs = (found.evidence.get("numeric") or {"runs": []})["runs"]
            self.ulp = max([self.ulp, *(row["scale_ulp"] or 0.0 for run in runs for row in run["outputs"])])
            return found

        return rewrite(model, form, sites=sites, check=check, run=run)


def rewritten(model: ir.Model, to: str) -> ir.Model:
    """The model with all its sites in one form, not proved."""
    found = prepared(model).analysis
    return rewrite(model, to, sites=[s.name for s in found.sites]).model


def said_of(site: Site) -> str:
    """``conv 16x16/16`` with what is unusual: padding, groups, another layout than channels first."""
    kernel, stride = ("x".join(map(str, v)) for v in (site.kernel_shape, [a.stride for a in site.spatial]))
    more = [site.layout] if site.layout not in ("NCHW", "NCL", "NCDHW") else []
    more += ["padded"] if any(a.begin > 0 or a.end > 0 for a in site.spatial) else []
    more += [f"{site.groups} groups"] if site.groups > 1 else []
    more += ["flattened"] if site.flattened else []
    return " ".join([site.form, f"{kernel}/{stride}", *more])
