"""A verdict by branch: where an input chooses what models do, at which of its values they are the same, and at which not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import onnx
import pytest

from graphcheck import compare, reporting
from graphcheck.cli import main
from graphcheck.verdict import Comparison, Verdict

# Branches of unequal shapes: the condition has to be known, so that the input takes values.
RESHAPED = """(float[b,n] x, int64 sr) => (float[p,q] y)
  <int64 rate = {16000}, int64[2] long = {-1, 4}, int64[2] short = {-1, 2}> {
  c = Equal (sr, rate)
  y = If (c) < then_branch = g1 () => (float[p,q] s) { r = Reshape (x, long) s = THEN (r) },
               else_branch = g2 () => (float[p,q] t) { q = Reshape (x, short) t = ELSE (q) }> }"""
# Branches of equal shapes: If is a selection, whatever the input is.
SELECTED = """(float[b,4] x, int64[1] sr) => (float[b,4] y) <int64 n = {8}> {
  c = COMPARED (sr, n)
  y = If (c) < then_branch = g1 () => (float[b,4] s) { s = THEN (x) },
               else_branch = g2 () => (float[b,4] t) { t = ELSE (x) }> }"""
SWITCHED = """(float[b,4] x, bool flag) => (float[b,4] y) {
  y = If (flag) < then_branch = g1 () => (float[b,4] s) { s = THEN (x) },
               else_branch = g2 () => (float[b,4] t) { t = ELSE (x) }> }"""


def model(graph: str, then: str, other: str, compared: str = "Equal") -> onnx.ModelProto:
    text = graph.replace("THEN", then).replace("ELSE", other).replace("COMPARED", compared)
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> g {text}')


def judged(graph: str, then: str, other: str, compared: str = "Equal", **options: object) -> Comparison:
    """Against Sin where the condition holds, and Relu where not."""
    pair = model(graph, "Sin", "Relu", compared), model(graph, then, other, compared)
    return compare(*pair, graphs=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "then", "other", "compared", "told"),
    [
        (RESHAPED, "Sin", "Abs", "", "proved where sr = 16000; different elsewhere: "),
        (RESHAPED, "Cos", "Relu", "", "proved where sr = 8000; different where sr = 16000: "),
        (SELECTED, "Sin", "Abs", "Equal", "proved where sr = 8; different elsewhere: "),
        (SELECTED, "Cos", "Relu", "Equal", "proved where sr = 4; different where sr = 8: "),
        (SELECTED, "Sin", "Abs", "Less", r"proved where sr = 7 or 4; different where sr = 8 or \d+: "),
        (SELECTED, "Sin", "Abs", "Greater", "proved where sr = 9; different where sr = 8 or 4 or 2: "),
        (SWITCHED, "Sin", "Abs", "", "proved where flag = true; different where flag = false: "),
        (SWITCHED, "Cos", "Relu", "", "proved where flag = false; different where flag = true: "),
    ],
)
def test_the_verdict_is_told_by_branch_where_it_differs(graph: str, then: str, other: str, compared: str, told: str) -> None:
    found = judged(graph, then, other, compared)
    assert found.verdict is Verdict.DIFFERENT and found.exit_code() == 1
    assert re.match(told + "output 'y' differs by ", found.reason), found.reason
    rows = found.evidence["branches"]
    same = [row["value"] for row in rows if row["verdict"] == "proved"]
    assert same and all(row["proof"]["shapes"] for row in rows if row["verdict"] == "proved")
    assert found.evidence["witness"]["values"][rows[0]["input"]] not in same


@pytest.mark.parametrize("graph", [RESHAPED, SELECTED, SWITCHED])
def test_no_branch_is_told_where_all_are_the_same_or_none_is(graph: str) -> None:
    for then, other in (("Cos", "Abs"), ("Sin", "Relu")):
        found = judged(graph, then, other)
        assert found.evidence["branches"] is None and " where " not in found.reason.split(" differs ")[0], found.reason


def test_the_value_that_a_branch_is_taken_at_is_tried() -> None:
    """No draw is 16000: this was proved at 2, 1 and 0 alone, and so was a branch that nobody had looked at."""
    assert judged(RESHAPED, "Cos", "Relu").verdict is Verdict.DIFFERENT
    twice = model(RESHAPED.replace("s = THEN (r)", "k = Neg (r) l = Neg (k) s = THEN (l)"), "Sin", "Relu")
    found = compare(model(RESHAPED, "Sin", "Relu"), twice, graphs=False)
    assert found.verdict is Verdict.PROVED and "sr=16000" in found.reason


@pytest.mark.parametrize("value", [16000, 8000])
def test_a_branch_is_what_a_comparison_with_the_input_held_says(value: int) -> None:
    told = {row["value"]: row["verdict"] for row in judged(RESHAPED, "Sin", "Abs").evidence["branches"]}
    assert told[value] == judged(RESHAPED, "Sin", "Abs", fix={"sr": value}).verdict


def test_what_the_ranges_leave_out_is_no_branch() -> None:
    found = judged(RESHAPED, "Sin", "Abs", ranges={"sr": (16000, 16000)})
    assert found.verdict is Verdict.PROVED and found.evidence["branches"] is None
    assert judged(SWITCHED, "Sin", "Abs", ranges={"flag": (1, 1)}).verdict is Verdict.PROVED
    assert judged(SWITCHED, "Sin", "Abs", ranges={"flag": (0, 0)}).verdict is Verdict.DIFFERENT


def test_branches_are_told_on_the_terminal_in_json_and_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / f"{i}.onnx") for i in range(2)]
    for path, other in zip(files, ("Relu", "Abs"), strict=True):
        onnx.save(model(RESHAPED, "Sin", other), path)
    written = tmp_path / "r.json"
    assert main(["compare", *files, "--json", str(written)]) == 1
    out = capsys.readouterr().out
    assert "different: proved where sr = 16000; different elsewhere: output 'y' differs by " in out
    assert "note: at sr = 16000 proved: the same function in exact arithmetic, " in out
    page = reporting.render([json.loads(written.read_text())])
    assert "By branch" in page and "sr = 16000" in page
