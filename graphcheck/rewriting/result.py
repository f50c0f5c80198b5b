"""The result of a rewrite: what was written anew, what was left alone, and what the checks said."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.patches.site import Analysis, Refusal, Site
from graphcheck.rewriting.checks import Check
from graphcheck.verdict import Displayed, Verdict

SCHEMA = "graphcheck/rewrite/1"
STEPS = "steps"  # the form of movement that was split to keep a rank
_CODES = {Verdict.UNDECIDED: "GC216", Verdict.WITHIN_ROUNDING: "GC230"}


@dataclasses.dataclass(frozen=True, eq=False)
class Applied:
    """One site that was rewritten: as it was, the form it has now, and its tensors before and after."""

    site: Site
    to: str
    before: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)
    after: tuple[dict[str, Any], ...] = dataclasses.field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "site": self.site.to_json(),
            "from": self.site.form,
            "to": self.to,
            "before": list(self.before),
            "after": list(self.after),
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Rewrite(Displayed):
    """The result of a rewrite.

    Attributes:
        original: The model that was given, as it was.
        model: The rewritten clone; the original where nothing was applied, or what was did not pass.
        to: The form asked for.
        applied: The sites that were rewritten.
        refusals: The sites that were not, and contractions that are none, each with the reason.
        verdict: That of the check; None where nothing was applied or there was no check.
        reason: One sentence.
        checks: What else was looked at: interface, onnx.checker, onnxruntime, window maps.
        timings: Seconds by stage.
        moved: Movement elsewhere that was split to keep ``max_rank``, or written anew.
        measured: For ``fastest``: milliseconds of each form, by site.
        analysis: What the analyzer found in the model.
    """

    original: ir.Model
    model: ir.Model
    to: str
    applied: tuple[Applied, ...]
    refusals: tuple[Refusal, ...]
    verdict: Verdict | None
    reason: str
    checks: tuple[Check, ...]
    timings: dict[str, float]
    moved: tuple[dict[str, Any], ...] = ()
    measured: tuple[dict[str, Any], ...] = ()
    analysis: Analysis = dataclasses.field(default=Analysis((), ()), repr=False)

    def __repr__(self) -> str:
        verdict = None if self.verdict is None else str(self.verdict)
        shown = {"to": self.to, "changed": self.changed, "verdict": verdict, "reason": self.reason}
        shown |= {"applied": self.applied, "refusals": self.refusals}
        return f"Rewrite({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def changed(self) -> bool:
        """Whether ``model`` differs from the original and passed everything that was asked of it."""
        return self.model is not self.original

    @property
    def parts(self) -> dict[str, str]:
        """What can be left out alone: names of sites, and of tensors where movement ends; with the node of each."""
        made_by = {v.name: model_.node_name(node) for node in self.original.graph for v in node.outputs}
        moved = [row["output"] for row in self.moved if row["to"] != STEPS]
        return {name: made_by.get(name, name) for name in moved} | {one.site.name: one.site.name for one in self.applied}

    def to_json(self) -> dict[str, Any]:
        """``graphcheck rewrite`` as plain data (schema graphcheck/rewrite/1); ``output`` is the caller's to fill."""
        return {
            "schema": SCHEMA,
            "model": model_.summary(self.original, traced=self.analysis.largest_rank),
            "to": self.to,
            "sites": [a.to_json() for a in self.applied],
            "moved": list(self.moved),
            "measured": list(self.measured),
            "refusals": [r.to_json() for r in self.refusals],
            "verdict": None if self.verdict is None else str(self.verdict),
            "reason": self.reason,
            "code": None if self.verdict is None else _CODES.get(self.verdict),
            "checks": [c.to_json() for c in self.checks],
            "timings": dict(self.timings),
            "output": None,
        }
