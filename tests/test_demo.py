"""The demo: what it chooses, what makes it fail, and one family from export to report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import onnx
import pytest

from graphcheck import demo
from graphcheck.cli import main
from graphcheck.exporting import catalogue
from graphcheck.formats.console import Terminal


def test_every_family_is_in_the_catalogue() -> None:
    assert set(demo.FAMILIES) <= {variant.family for variant in catalogue() if not variant.benchmark}


def test_what_lacks_an_extra_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "available", lambda extra: extra == "torch")
    chosen, left_out = demo._chosen((), 3)
    assert "torch-p16d32" in chosen and "article-keras" not in chosen
    assert any("article-keras (" in text and "pip install 'graphcheck[keras]'" in text for text in left_out)
    assert {variant.seed for members in chosen.values() for variant in members} == {3}


def test_without_any_extra_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "available", lambda extra: False)
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 2
    assert "can export none" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def rewritten(verdict: str | None, ok: bool | None = True, sites: int = 1) -> dict[str, Any]:
    return {"verdict": verdict, "checks": [{"ok": ok}], "sites": [{}] * sites}


@pytest.mark.parametrize(
    ("result", "passed"),
    [
        (rewritten("proved"), True),
        (rewritten("proved", None), True),
        (rewritten("undecided"), None),
        (rewritten("within-rounding"), None),
        (rewritten(None, sites=0), None),
        (rewritten("different"), False),
        (rewritten("undecided", False), False),
    ],
)
def test_passed_is_claimed_of_proved_rewrites_only(result: dict[str, Any], passed: bool | None) -> None:
    assert demo.passed(result) is passed


def family(verdict: str, rewrite: dict[str, Any]) -> dict[str, Any]:
    common = {"exporter": "dynamo", "batch": 1, "analyze": {"patch_embeddings": [{}]}, "rewrite_matmul": None}
    variants = [
        common | {"name": "a", "form": "conv", "rewrite_conv": None, "time_ms": {"median": 2.0}},
        common | {"name": "b", "form": "unfold", "rewrite_conv": rewrite, "time_ms": {"median": 3.0}},
    ]
    pairs = [{"a": "a", "b": "b", "compare": {"verdict": verdict}}]
    failures = [{"variant": "c", "exporter": "dynamo", "error": "out of \x1b luck"}]
    return {"name": "article-x", "variants": variants, "pairs": pairs, "failures": failures, "skipped_pairs": 2}


@pytest.mark.parametrize(
    ("verdict", "rewrite", "code"),
    [
        ("proved", rewritten("proved"), 0),
        ("undecided", rewritten("undecided"), 0),
        ("different", rewritten("proved"), 1),
        ("proved", rewritten("different"), 1),
        ("proved", rewritten("undecided", ok=False), 1),
    ],
)
def test_only_a_difference_or_a_failed_check_fails_the_demo(
    capsys: pytest.CaptureFixture[str], verdict: str, rewrite: dict[str, Any], code: int
) -> None:
    result = {"families": [family(verdict, rewrite)], "left_out": ["keras"]}
    assert demo._tell(Terminal(), result, Path("reports/index.html"), 1.0) == code
    out = capsys.readouterr().out
    assert f"article-x: conv = unfold (1 {verdict})" in out and "conv 2 ms, unfold 1.5x" in out
    assert "not exported: c: out of \\x1b luck" in out and "left out: keras" in out
    assert out.endswith("open the report: reports/index.html\n")


def test_a_pair_is_aligned_for_the_report(tmp_path: Path) -> None:
    for name, body in (("a", "y = Relu(x)"), ("b", "z = Identity(x) y = Relu(z)")):
        text = f'<ir_version: 9, opset_import: ["" : 18]> g (float[2] x) => (float[2] y) {{ {body} }}'
        onnx.save(onnx.parser.parse_model(text), tmp_path / f"{name}.onnx")
    found = demo.compare_files(str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), 0)
    assert found["alignment"] == [[0, 1, "same"]] and found["structure"]["mapping"] == [] and found["graphs"] is None


@pytest.mark.torch
@pytest.mark.slow
def test_one_family_from_export_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--family", "convolution"]) == 0
    result = json.loads(Path("reports/demo.json").read_text())
    (family,) = result["families"]
    assert result["schema"] == "graphcheck/demo/1"
    assert len(family["variants"]) == 8 and len(family["pairs"]) == 28
    assert {pair["compare"]["verdict"] for pair in family["pairs"]} == {"proved"}
    for variant in family["variants"]:
        assert len(variant["analyze"]["patch_embeddings"]) == 1 and variant["analyze"]["graph"]["nodes"]
        assert demo.passed(variant["rewrite_matmul" if variant["form"] == "conv" else "rewrite_conv"])
        assert variant["time_ms"]["min"] <= variant["time_ms"]["median"] <= variant["time_ms"]["max"]
    assert "28 proved" not in capsys.readouterr().err
    assert "<html" in Path("reports/index.html").read_text()
    assert (tmp_path / "models" / "manifest.json").is_file()


def crash(models: object) -> None:
    os._exit(3)


def test_a_crash_while_timing_costs_the_times_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "time_files", crash)
    row = {"variants": [{"name": "a", "time_ms": None}]}
    demo._time(row, demo._Family("x", (), (), {}, {}, 0), Path())
    assert row["variants"][0]["time_ms"] is None
