"""The Python names: lazy, documented, and the same verdicts as on the command line."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphcheck
from tests.test_cli import CONV, MOVED, WEIGHT


def model(text: str, weight: np.ndarray[Any, Any]) -> onnx.ModelProto:
    made = onnx.parser.parse_model(text)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weight), "w"))
    return made


A, B = model(CONV, WEIGHT), model(MOVED, WEIGHT.reshape(3, 8).T)
WRONG = model(CONV, -WEIGHT)


def test_the_names_are_thirteen_at_most_and_all_there() -> None:
    assert len(graphcheck.__all__) <= 13 and set(graphcheck.__all__) == set(graphcheck._PUBLIC)
    for name in graphcheck.__all__:
        assert getattr(graphcheck, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        graphcheck.nothing  # noqa: B018


def test_every_parameter_and_field_is_documented() -> None:
    from graphcheck.patches.site import Analysis, Refusal, SiteAxis
    from graphcheck.rewriting.result import Rewrite
    from graphcheck.verdicts.compare import compare

    public = [getattr(graphcheck, name) for name in graphcheck.__all__]
    functions = [compare, *(each for each in public if inspect.isfunction(each))]
    records = [Analysis, Refusal, Rewrite, SiteAxis, *(each for each in public if dataclasses.is_dataclass(each))]
    named = [(each, list(inspect.signature(each).parameters)) for each in functions]
    named += [(each, [field.name for field in dataclasses.fields(each)]) for each in records]
    missing = [
        (each, name) for each, names in named for name in names if f"\n    {name}: " not in (inspect.getdoc(each) or "")
    ]
    assert missing == [] and len(named) >= 10
    assert all("Raises:" in (each.__doc__ or "") for each in functions)


def test_a_name_is_loaded_when_it_is_asked_for() -> None:
    code = "import sys, graphcheck; graphcheck.compare, graphcheck.Verdict; print('onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("side", [B, ir.from_proto(B)], ids=["proto", "ir"])
def test_compare_takes_models_in_memory(side: Any) -> None:
    assert graphcheck.compare(A, side).verdict is graphcheck.Verdict.PROVED


def test_a_comparison_is_one_line_to_look_at() -> None:
    result = graphcheck.compare(A, B)
    assert str(result) == f"proved: {result.reason}" and len(repr(result)) < 400
    assert {"proof", "structure", "numeric"} <= set(result.evidence)


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(
        graphcheck.UsageError, match=r"a model is a path, an onnx.ModelProto or an onnx_ir.Model, not int"
    ):
        graphcheck.compare(A, 3)


def test_assert_equivalent_returns_the_comparison() -> None:
    assert graphcheck.assert_equivalent(A, B, require="proved").exit_code() == 0


def test_assert_equivalent_fails_with_the_first_divergence() -> None:
    with pytest.raises(AssertionError, match=r"(?s)different: .*first divergence: Conv node .* of B"):
        graphcheck.assert_equivalent(A, WRONG)
    with pytest.raises(AssertionError, match=r"proved: .*required: identical"):
        graphcheck.assert_equivalent(A, B, require="identical")
    with pytest.raises(graphcheck.UsageError, match="identical, proved, within-rounding"):
        graphcheck.assert_equivalent(A, B, require="equal")


def test_analyze_and_rewrite() -> None:
    (site,) = graphcheck.analyze(B).sites
    assert isinstance(site, graphcheck.Site) and site.kernel_shape == (2, 2)
    result = graphcheck.rewrite(B, to="conv")
    assert result.changed and result.verdict is graphcheck.Verdict.PROVED
    assert [node.op_type for node in result.model.graph if node.op_type in ("Conv", "MatMul")] == ["Conv"]


def test_a_rewrite_that_its_check_refuses_gives_the_original() -> None:
    refused = graphcheck.Comparison(graphcheck.Verdict.DIFFERENT, "because", {})
    result = graphcheck.rewrite(B, to="conv", check=lambda *_: refused)
    assert not result.changed and result.reason == "because"


def test_args_need_a_module() -> None:
    with pytest.raises(graphcheck.UsageError, match=r"neither side is one"):
        graphcheck.compare(A, B, args=(1,))


@pytest.mark.torch
@pytest.mark.slow
def test_a_torch_module_is_a_side(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    modules = [torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2, 2), torch.nn.Dropout(0.5)) for _ in range(2)]
    pixels = torch.randn(2, 3, 8, 8)
    path = tmp_path / "model.onnx"
    modules[0].eval()
    torch.onnx.export(modules[0], (pixels,), path, dynamo=False)
    modules[0].train()
    result = graphcheck.compare(modules[0], path, args=(pixels,))
    assert result.verdict.meets(graphcheck.Verdict.PROVED) and "fresh export" in result.reason
    assert modules[0].training and modules[0][1].training
    assert result.evidence["torch"]["outputs"][0]["scale_ulp"] < 100
    assert graphcheck.compare(path, modules[1], args=(pixels,)).verdict is graphcheck.Verdict.DIFFERENT
    with pytest.raises(graphcheck.UsageError, match=r"args hold 2 tensors, the model takes 1"):
        graphcheck.compare(modules[0], path, args=(pixels, pixels))
    with pytest.raises(graphcheck.UsageError, match=r"on args"):
        graphcheck.compare(modules[0], path)


@pytest.mark.torch
@pytest.mark.slow
def test_a_pass_rewrites_an_export_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    class Patches(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.projection = torch.nn.Linear(12, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            tiles = x.reshape(1, 3, 4, 2, 4, 2).permute(0, 2, 4, 3, 5, 1)
            return self.projection(tiles.reshape(1, 16, 12))  # type: ignore[no-any-return]

    monkeypatch.chdir(tmp_path)
    module, pixels = Patches().eval(), torch.randn(1, 3, 8, 8)
    exported: Any = torch.onnx.export(module, (pixels,), dynamo=True, verbose=False)
    result = ir.passes.Sequential(graphcheck.PatchEmbedding(to="conv"))(exported.model)
    assert "Conv" not in {node.op_type for node in exported.model.graph}
    assert result.modified and "Conv" in {node.op_type for node in result.model.graph}
    assert graphcheck.compare(module, result.model, args=pixels).verdict is graphcheck.Verdict.PROVED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.torch
@pytest.mark.slow
def test_an_export_at_another_shape_is_different(tmp_path: Path) -> None:
    import torch

    class Rows(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], -1)

    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(-1)

    path, x = tmp_path / "model.onnx", torch.randn(2, 3)
    torch.onnx.export(Flat(), (x,), path, dynamo=False)
    result = graphcheck.compare(Rows(), path, args=(x,))
    assert result.verdict is graphcheck.Verdict.DIFFERENT and "has shape [2, 3] in the module and [6]" in result.reason
