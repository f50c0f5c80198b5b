"""What must hold of a rewritten model before it is written, besides the proof, which is handed in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.errors import ModelError
from graphcheck.files import external
from graphcheck.files import model as model_
from graphcheck.graphs import canonical
from graphcheck.patches.analyze import find
from graphcheck.patches.site import Analysis, Site
from graphcheck.runs.child import why_refused

WINDOWS = "window map"
ONNXRUNTIME = "onnxruntime"
_MANY_BYTES = 2**24  # of weights: the checker reads none of them, so that handing them over is time lost


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: its name, whether it held (None: it could not be made), and a sentence."""

    name: str
    ok: bool | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


def structural_checks(
    original: ir.Model, rewritten: ir.Model, sites: Sequence[Site] | None = None, *, run: bool = True
) -> list[Check]:
    """Names kept, ``onnx.checker`` with full check, loads in onnxruntime, and the same window map.

    ``run=False`` leaves onnxruntime out. ``sites`` are those of ``original`` whose windows the result must have; None:
    all that are found in it.
    """
    loads = [_loads(original, rewritten)] if run else []
    return [_names(original, rewritten), _checker(rewritten), *loads, _windows(original, rewritten, sites)]


def _interface(model: ir.Model) -> tuple[Any, ...]:
    graph = model.graph
    values = [(v.name, str(v.dtype), str(model_.declared_shape(v))) for v in (*canonical.callable_inputs(model), *graph.outputs)]
    return (values, dict(model.metadata_props), model.ir_version)


def _names(original: ir.Model, rewritten: ir.Model) -> Check:
    before = [original.opset_imports, *(f.opset_imports for f in original.functions.values())]
    opsets = original.opset_imports.items() <= rewritten.opset_imports.items() and all(
        any(have.get(domain) == version for have in before) for domain, version in rewritten.opset_imports.items()
    )  # those of a function that was inlined come along
    kept = _interface(original) == _interface(rewritten) and opsets
    detail = "inputs, outputs, opsets and metadata are" + (" kept" if kept else " not what they were")
    return Check("interface", kept, detail)


def _checker(rewritten: ir.Model) -> Check:
    try:
        model_.check_full(external.without_weights(rewritten, _MANY_BYTES))
    except ModelError as error:
        return Check("checker", False, error.cause)
    return Check("checker", True, "onnx.checker accepts it with full check")


def _loads(original: ir.Model, rewritten: ir.Model) -> Check:
    error = why_refused(rewritten)
    if error is None:
        return Check(ONNXRUNTIME, True, "onnxruntime loads it")
    before = why_refused(original)
    if before is None:
        reason = "onnxruntime runs the original and refuses the result, which --no-run would allow"
        return Check(ONNXRUNTIME, False, f"{reason}: {error}")
    return Check(ONNXRUNTIME, None, f"onnxruntime loads neither: {before}")


def _windows(original: ir.Model, rewritten: ir.Model, sites: Sequence[Site] | None) -> Check:
    sites = find(original).everything if sites is None else sites
    before = [site for site in sites if site.geometry()[0] and not site.pointwise]
    after = find(rewritten) if before else Analysis((), ())
    left = [site.geometry() for site in after.everything]
    for site in before:
        padded = any(a.begin > 0 or a.end > 0 for a in site.spatial)
        if site.geometry() not in left and padded and after.refusals:
            return Check(WINDOWS, None, f"it cannot be read back: {after.refusals[0].reason}")
        if site.geometry() not in left:
            return Check(WINDOWS, False, f"the result has not the window of {site.name}")
        left.remove(site.geometry())
    return Check(WINDOWS, True, "the result has the same windows")
