"""Equivalent pairs come out proved, or within rounding where constants were folded anew; benchmarks/zoo.py has all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx
import pytest

from graphcheck.exporting import export
from tests.zoo import architectures, keras_nets, nets, tables
from tests.zoo.optimizers import optimize
from tests.zoo.proving import verdict

EQUAL = {"identical", "proved", "within-rounding"}
VITS = ("vit", "deit", "dinov2", "clip-vision", "siglip-vision", "beit")


def assert_equal(rows: Iterable[tables.Row]) -> None:
    rows = list(rows)
    fails = ("exporter fails", "optimizer fails")
    assert sum(r.verdict in EQUAL for r in rows) > 0
    assert [r for r in rows if r.verdict not in EQUAL and r.verdict not in fails] == []


@pytest.mark.parametrize("name", nets.NETS)
def test_a_net_equals_what_optimizers_make_of_it(name: str) -> None:
    assert_equal(tables.rows_of(tables.net_pairs(name)))


@pytest.mark.torch
@pytest.mark.parametrize("family", VITS)
def test_the_exports_of_a_vision_transformer_are_equal(family: str, tmp_path: Path) -> None:
    names = [f"{family}-conv-torchscript-dynamic", f"{family}-reshape-p1p2c-dynamo-static"]
    made = export(names, tmp_path)
    assert made.failures == ()
    one, two = (tmp_path / f"{name}.onnx" for name in names)
    said, reason, _ = verdict(one, two)
    assert said == "proved", reason
    said, reason, _ = verdict(two, optimize(onnx.ModelProto.FromString(two.read_bytes()), "onnxruntime extended"))
    assert said in EQUAL, reason


@pytest.mark.torch
@pytest.mark.parametrize("name", ["resnet", "yolo", "convnext", "videomae"])
def test_the_exports_of_an_architecture_are_equal(name: str) -> None:
    said, reason, _ = verdict(*architectures.across(name))
    assert said in EQUAL, reason
    two = architectures.export(name, "dynamo")
    said, reason, _ = verdict(two, optimize(two, "onnxslim"))
    assert said in EQUAL, reason


@pytest.mark.keras
def test_a_keras_model_equals_its_export_at_another_opset() -> None:
    said, reason, _ = verdict(keras_nets.export("depthwise"), keras_nets.export("depthwise", 13))
    assert said in EQUAL, reason
