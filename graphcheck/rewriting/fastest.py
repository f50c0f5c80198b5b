"""Every legal form of every site, measured in the model itself; the fastest is taken where it beats the noise."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Sequence
from time import perf_counter as clock
from typing import Any

import onnx_ir as ir

from graphcheck.options import RewriteOptions
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Analysis, Site
from graphcheck.rewriting.forms import forms_of
from graphcheck.rewriting.proving import Prove, judge, passing
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import choose, written
from graphcheck.rewriting.timing import Timer, Unmeasured

# What people reported, by target: (form, what was said, where).
REPORTED = (
    (
        "CUDA",
        "matmul",
        "Conv3d whose kernel is its stride: about 10 to 50,000 times slower than Linear",
        "transformers#45750",
    ),
    ("Ascend", "conv", "2.50 ms against 6.87 ms as Linear", "vllm-ascend#7017"),
    ("CPU (onnxruntime)", "conv", "1.3 to 1.7 times over the other forms for 768 outputs at batch 8", "benchmarks/rewrite.py"),
    (
        "QNN, CoreML, ncnn, TFLite, Tenstorrent",
        "conv",
        "tensors of more than 4 or 5 dims are refused",
        "onnxruntime#26338",
    ),
    ("Samsung NPU", "matmul", "Conv3d and rank 5 are refused", "TICO#861"),
)


_LEAST_GAIN = 0.01
_UNTIMED = dict.fromkeys(("median", "lower", "upper"))  # of a form that onnxruntime could not run


def explain(analysis: Analysis) -> list[dict[str, str]]:
    """What is reported to be best for each known target, if a patch embedding was found; nothing is measured."""
    if not any(not site.ordinary for site in analysis.sites):
        return []
    return [{"target": t, "form": f, "reported": said, "source": where} for t, f, said, where in REPORTED]


def fastest(
    model: ir.Model, time: Timer, *, check: Prove | None = None, run: bool = True, **options: Any
) -> Rewrite:
    """Measure the original and all legal forms of each site with ``time``, and rewrite each to its fastest form.

    A form is taken only if it :func:`beats` the original; one that onnxruntime cannot run, or that crashes it, is told so in
    the table. ``options`` are as for
    :func:`graphcheck.rewriting.rewrite.rewrite`.
    """
    start, asked = clock(), RewriteOptions(**options)
    seen = prepared(model, pointwise=asked.pointwise, stills=asked.stills).clone()
    seconds = clock() - start
    forms: dict[str, str] = {}
    measured: list[dict[str, Any]] = []
    chosen, refusals = choose(seen.analysis.everything, "", asked, measured=True)
    for site in chosen:
        row = _measure(model, seen, site, forms, time, run)
        measured.append(row)
        if row["chosen"] != site.form:
            forms[site.name] = row["chosen"]
    if not forms:
        reason = "no form beats the original beyond noise" if measured else "nothing to rewrite"
        told = (*seen.analysis.refusals, *refusals)
        return Rewrite(
            model, model, "fastest", (), told, None, reason, (), {}, measured=tuple(measured), analysis=seen.analysis
        )
    result = passing(
        lambda without: _written(model, seen, forms, without), lambda result: judge(result, check, run)
    )
    timings = {"analyze": seconds, **result.timings}
    return dataclasses.replace(result, to="fastest", measured=tuple(measured), timings=timings)


def _written(model: ir.Model, seen: Analyzed, forms: dict[str, str], without: Collection[str] = ()) -> Rewrite:
    """Sites in forms of their own, unproved."""
    return written(model, seen.clone(), forms, RewriteOptions(sites=list(forms)), without)


def _measure(
    model: ir.Model, seen: Analyzed, site: Site, forms: dict[str, str], time: Timer, run: bool
) -> dict[str, Any]:
    """The table of one site, the earlier sites in the forms chosen for them."""

    def unproved(to: dict[str, str]) -> Rewrite:
        result = _written(model, seen, to)
        return judge(result, None, run) if result.changed else result

    names, models = [site.form], [unproved(forms).model if forms else model]
    for form, way in forms_of(site).items():
        if form != site.form and way.why_not(site) is None:
            result = unproved({**forms, site.name: form})
            if any(a.site.name == site.name for a in result.applied) and result.changed:
                names.append(form)
                models.append(result.model)
    runs, untimed = _timed(models, time)
    spreads = {at: _spread(column) for at, column in runs.items()}
    winners = [at for at in runs if at and beats(runs[at], runs[0])]
    best = min(winners, key=lambda at: spreads[at]["median"], default=0)
    rows = [{"form": name, **spreads.get(at, _UNTIMED), "untimed": untimed.get(at)} for at, name in enumerate(names)]
    return {"site": site.name, "forms": rows, "chosen": names[best]}


def _timed(models: Sequence[ir.Model], time: Timer) -> tuple[dict[int, list[float]], dict[int, str]]:
    """The runs of each model by its place, and why others could not be timed; the first, the original, has to be."""
    untimed: dict[int, str] = {}
    while True:
        left = [at for at in range(len(models)) if at not in untimed]
        try:
            return dict(zip(left, time([models[at] for at in left]), strict=True)), untimed
        except Unmeasured as error:
            if error.at == 0:
                raise
            untimed[left[error.at]] = error.cause


def beats(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether ``one`` is faster beyond noise: in three quarters of the rounds, and by a hundredth in the median.

    Both took turns, so that a round's two runs saw the same machine.
    """
    gains = _spread([b - a for a, b in zip(one, other, strict=True)])
    return gains["lower"] > 0 and gains["median"] > _LEAST_GAIN * statistics.median(other)


def _spread(runs: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(runs, n=4) if len(runs) > 1 else (runs[0],) * 3
    return {"median": middle, "lower": low, "upper": high}
