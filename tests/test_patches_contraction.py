"""A contraction is one object, made once; a model is traced once, and so is what it is rewritten to."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import onnx_ir as ir
import pytest
from patch_table import cases

from graphcheck.patches import analyze, contraction, reading, refusals, trace
from graphcheck.patches.analyze import find
from graphcheck.rewriting import rank
from graphcheck.rewriting.fastest import fastest
from graphcheck.rewriting.rewrite import rewrite

CASES = cases()


def test_a_contraction_is_frozen_and_made_once() -> None:
    (one,) = contraction.contractions(trace.trials(CASES["nchw"][0])).values()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.node = None  # type: ignore[misc,assignment]
    assert one.name == "MatMul(p)" and one.whole and [t.source for t in one.traced] == [one.node] * 2
    assert [v.name for v in one.ends] == ["p", "y"]


def test_no_function_is_handed_a_contraction_in_pieces() -> None:
    functions = [f for module in (analyze, refusals, reading) for _, f in inspect.getmembers(module, inspect.isfunction)
                 if f.__module__ == module.__name__]  # fmt: skip
    parts = {"node", "inputs", "runs", "readers", "met"}
    assert [f.__name__ for f in functions if len(parts & {*inspect.signature(f).parameters}) > 1] == []
    assert len(functions) > 20


@pytest.mark.parametrize(("name", "options"), [
    ("nchw", {}),
    ("nchw", {"fold_normalization": True}),
    ("nchw", {"max_rank": 6, "fold_normalization": True}),
    ("gemm, left", {}),
])  # fmt: skip
def test_a_model_is_traced_once_and_its_rewrite_once(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials of the model serve all that looks at it; those of the result are of another model."""
    asked: list[ir.Model] = []

    def trials(model: ir.Model) -> list[trace.Trial]:
        asked.append(model)
        return trace.trials(model)

    for module in (analyze, rank):
        monkeypatch.setattr(module, "trials", trials)
    sites = [site.name for site in find(CASES[name][0]).sites]
    asked.clear()
    assert rewrite(CASES[name][0], "conv", sites=sites, run=False, **options).applied
    assert len(asked) == 2


def test_the_forms_of_a_site_are_measured_on_one_analysis(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ir.Model] = []
    monkeypatch.setattr(analyze, "trials", lambda model: asked.append(model) or trace.trials(model))
    result = fastest(CASES["nchw"][0], lambda models: [[10.0 - at] * 4 for at, _ in enumerate(models)], run=False)
    assert [row["form"] for row in result.measured[0]["forms"]] == ["matmul", "conv", "unfold", "space-to-depth"]
    assert len(asked) == 1 + 3 + 1, "the model, each form, and the result"
