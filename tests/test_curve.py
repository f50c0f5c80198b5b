"""The data of the report's pictures: the divergence curve, heatmaps, scatters and filters, from real runs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import dynamic, focus
from test_compare import BATCH_NORM, conv_constants, folded, model

from graphcheck.formats import format_results
from graphcheck.formats.console import Terminal
from graphcheck.formats.terminal import show_comparison
from graphcheck.parting import curve
from graphcheck.patches.preparing import analyze_json
from graphcheck.reporting.charts import BAND
from graphcheck.runs.pictures import pictures
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

DEEP = """
 a = MatMul (x, w1) b = Tanh (a) c = MatMul (b, w2) d = {op} (c) e = Softmax <axis = -1> (d) f = MatMul (e, w3) y = Tanh (f)
"""
RENAMED = """
 a2 = MatMul (x, w1) b2 = Tanh (a2) c2 = MatMul (b2, w2) d2 = {op} (c2) e2 = Softmax <axis = -1> (d2)
 f2 = MatMul (e2, w3) y = Tanh (f2)
"""
WEIGHTS = {f"w{i}": np.random.default_rng(i).standard_normal((16, 16)).astype(np.float32) for i in (1, 2, 3)}


def deep(text: str, op: str) -> ir.Model:
    return model(text.format(op=op), "float[b,16,16] x", "float[b,16,16] y", **WEIGHTS)


def numbers(a: ir.Model, b: ir.Model, **options: Any) -> tuple[Verdict, dict[str, Any]]:
    result = compare(a, b, numerics="full", threads=1, witness=None, **options)
    json.dumps(result.evidence["numeric"], allow_nan=False)
    return result.verdict, result.evidence["numeric"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_rounding_stays_in_the_band() -> None:
    swapped = RENAMED.replace("MatMul (x, w1)", 'Einsum <equation = "bij,jk->bik"> (x, w1)')
    verdict, found = numbers(deep(DEEP, "Relu"), deep(swapped, "Relu"))
    assert verdict is Verdict.PROVED
    points = found["curve"]
    assert [p["a"] for p in points] == ["a", "b", "c", "d", "e", "f", "y"]
    assert [p["b"] for p in points] == ["a2", "b2", "c2", "d2", "e2", "f2", "y"]
    assert all(p["deviation"] <= BAND * p["spread"] < 1e-3 for p in points)


def test_a_bug_jumps_where_it_is() -> None:
    verdict, found = numbers(deep(DEEP, "Relu"), deep(RENAMED, "Neg"))
    assert verdict is Verdict.DIFFERENT
    points = {p["a"]: p for p in found["curve"]}
    assert all(points[name]["deviation"] <= BAND * points[name]["spread"] for name in "abc")
    assert all(points[name]["deviation"] > 1000 * BAND * points[name]["spread"] for name in "efy")


def test_where_the_deviation_rises_most_is_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for with ``top``, quick and without graphs; the CSV has all in A's order."""
    result = compare(deep(DEEP, "Relu"), deep(RENAMED, "Neg"), top=2, graphs=False)
    points = result.evidence["numeric"]["curve"]
    highest = 0.0
    for point in points:
        assert point["rise"] == pytest.approx(max(0.0, point["deviation"] - highest), abs=1e-3)
        highest = max(highest, point["deviation"])
    rows = list(csv.DictReader(io.StringIO(format_results(result, "tensors"))))
    assert [row["a"] for row in rows] == [p["a"] for p in points] and [row["place"] for row in rows][:2] == ["1", "2"]
    assert float(rows[-1]["deviation"]) == points[-1]["deviation"] and rows[0]["op_type"] == "MatMul"
    show_comparison(Terminal(), result.to_json(), top=2)
    shown = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(shown) if line.startswith(f"  of {len(points)}  operator"))
    first = max(points, key=lambda p: p["rise"])
    assert f"{first['a']} / {first['b']}" in shown[at + 1] and "rises above" in shown[at + 3]
    alone = compare(deep(DEEP, "Relu"), deep(RENAMED, "Neg"), top=2, graphs=False, run=False)
    show_comparison(Terminal(), alone.to_json(), top=2)
    assert "rises above" not in capsys.readouterr().out


def test_what_is_folded_is_no_jump() -> None:
    c = conv_constants()
    a = model(BATCH_NORM, outputs="float[b,5,2,2] y", **c)
    b = model("y = Conv <strides = [4,4]> (x, w, bias)", outputs="float[b,5,2,2] y", **folded(c))
    verdict, found = numbers(a, b)
    assert verdict is Verdict.WITHIN_ROUNDING
    assert [p["a"] for p in found["curve"]] == ["y"] and found["curve"][0]["deviation"] < 1e-5


def test_only_full_numerics_with_graphs_have_a_curve() -> None:
    assert "curve" not in compare(deep(DEEP, "Relu"), deep(RENAMED, "Relu")).evidence["numeric"]
    _, found = numbers(deep(DEEP, "Relu"), deep(RENAMED, "Neg"), graphs=False)
    assert "curve" not in found


def test_large_models_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "MAX_WORK", 10)
    _, found = numbers(deep(DEEP, "Relu"), deep(RENAMED, "Neg"))
    assert len(found["curve"]) > 3 and all(p["spread"] is None for p in found["curve"])
    monkeypatch.setattr(curve, "MAX_PARAMETERS", 10)
    assert numbers(deep(DEEP, "Relu"), deep(RENAMED, "Neg"))[1]["curve"] == []


def test_few_are_chosen_evenly_and_the_outputs_always(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [ir.Value(name=str(i)) for i in range(1000)]
    ir.Graph([], [values[500]], nodes=[])
    rows: Any = [(value, value, np.zeros(10), True) for value in values]
    chosen = [int(row[0].name) for row in curve._chosen(rows)]
    assert len(chosen) <= 151 and chosen[0] == 0 and chosen[-1] == 999 and 500 in chosen and chosen == sorted(chosen)
    monkeypatch.setattr(curve, "MAX_HELD", 300)
    assert len(curve._chosen(rows)) <= 30 and curve._chosen(rows)[-1][0] is values[999]
    assert curve._chosen([]) == [] and len(curve._chosen(rows[:1])) == 1


def test_pictures_stand_at_one_run_of_each_output_and_spreads_at_plain_ones() -> None:
    _, found = numbers(deep(DEEP, "Relu"), deep(RENAMED, "Neg"))
    rows = [(run["inputs"], row) for run in found["runs"] for row in run["outputs"]]
    drawn = [row for _, row in rows if "scatter" in row]
    assert len(drawn) == 1 and drawn[0]["scale_ulp"] == max(row["scale_ulp"] for _, row in rows)
    assert any(row["spread_units"] for _, row in rows)
    assert all(row["spread_units"] is None for fed, row in rows if fed["scale"] != 1 or fed["distribution"] != "normal")


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "over"),
    [
        ((2, 17, 8), 5, 4, "4 by 4 tokens"),
        ((2, 16, 8), 4, 4, "4 by 4 tokens"),
        ((1, 3, 100, 90), 64, 64, "image of 100 by 90"),
        ((1, 12, 10, 3), 12, 10, "image of 12 by 10"),
        ((2, 5, 2, 2), 2, 2, "image of 2 by 2"),
        ((7,), 1, 7, "1 rows of 7"),
        ((), 1, 1, "1 rows of 1"),
        ((2, 300), 2, 64, "2 rows of 300"),
    ],
)
def test_heatmaps_are_small_and_keep_the_largest(shape: tuple[int, ...], rows: int, columns: int, over: str) -> None:
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    b = a.copy()
    b.reshape(-1)[-1] += 1
    found = pictures(a, b)
    values = found["heatmap"]["values"]
    assert (len(values), len(values[0])) == (rows, columns) and over in found["heatmap"]["over"]
    assert max(v for row in values for v in row if v is not None) == pytest.approx(1, abs=1e-3)
    assert len(found["scatter"]) <= 2000 and any(abs(x - y) > 0.5 for x, y in found["scatter"])


def test_pictures_of_what_cannot_be_drawn() -> None:
    ones = np.ones((2, 3))
    assert pictures(ones, np.ones((3, 2))) == {} and pictures(ones[:0], ones[:0]) == {}
    assert pictures(ones, ones)["heatmap"] is None
    broken = pictures(np.array([np.nan, 1.0, np.inf]), np.array([np.nan, 2.0, 1.0]))
    assert broken["heatmap"]["values"] == [[0.0, 1.0, None]] and broken["scatter"] == [[1.0, 2.0]]
    json.dumps(broken, allow_nan=False)


def test_filters_are_those_of_the_weight() -> None:
    c = conv_constants(out=8)
    text = "y = Conv <strides = [4,4]> (x, w, bias)"
    (site,) = analyze_json(model(text, outputs="float[b,8,2,2] y", **c))["patch_embeddings"]
    shown = site["weights"]
    assert shown["order"] == "c p1 p2" and shown["first"] == 0 and len(shown["filters"]) == 6
    np.testing.assert_allclose(shown["filters"], c["w"][:6], rtol=1e-2)
    (site,) = analyze_json(dynamic())["patch_embeddings"]
    assert site["weights"]["order"] == "p1 p2 c"
    (site,) = analyze_json(focus())["patch_embeddings"]
    assert np.shape(site["weights"]["filters"]) == (5, 3, 6, 6)


def test_traced_shapes_are_drawn() -> None:
    graphs = compare(deep(DEEP, "Relu"), deep(RENAMED, "Neg")).evidence["graphs"]
    assert graphs["a"]["tensors"]["c"]["shape"] == [2, 16, 16] and graphs["a"]["tensors"]["y"]["shape"][1:] == [16, 16]
