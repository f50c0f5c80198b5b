"""The figures that are told of a model and of its runs: ranks, parameters, shapes, and which run a warning is of."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

import graphcheck
from graphcheck.files.model import summary
from graphcheck.formats.console import Terminal
from graphcheck.formats.terminal import show_model
from graphcheck.patches.preparing import analyze_json
from tests.test_numeric import compare

UNDECLARED = """<ir_version: 8, opset_import: ["" : 17]> g (float[1,8,4,4] x) => (float[1,2,8,8] y)
<int64[6] six = {1,2,2,2,4,4}, int64[4] four = {1,2,8,8}> {
    r = Reshape(x, six)
    t = Transpose <perm = [0,3,4,1,5,2]> (r)
    y = Reshape(t, four)
}"""
STORED = """<ir_version: 8, opset_import: ["" : 17]> g (float s, bool c) => (float y)
<float[3] w = {1,2,3}, int64[2] shape = {3,1}> {
    k = Constant <value = float[2,2] {1,2,3,4}> ()
    axis = Constant <value_ints = [0]> ()
    p = ReduceSum <keepdims = 0> (k)
    q = ReduceSum <keepdims = 0> (w)
    z = If (c) <
        then_branch = t () => (float u) { one = Constant <value_float = 2.0> () u = Mul(s, one) },
        else_branch = e () => (float v) <float[5] inner = {1,2,3,4,5}> { v = ReduceMax <keepdims = 0> (inner) }
    >
    r = Mul(p, q)
    y = Add(z, r)
}"""


def proto(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def test_largest_rank_counts_tensors_that_are_not_declared() -> None:
    model = ir.from_proto(proto(UNDECLARED))
    assert summary(model)["largest_rank"] == 4  # what the file declares
    assert analyze_json(model)["model"]["largest_rank"] == 6
    assert graphcheck.rewrite(model, "conv").to_json()["model"]["largest_rank"] == 6
    evidence = graphcheck.compare(proto(UNDECLARED), proto(UNDECLARED.replace("{1,2,2,2", "{1,2,2,-1"))).evidence
    assert [evidence[side]["largest_rank"] for side in "ab"] == [6, 6]


def test_a_symbolic_dim_has_the_size_that_was_run_beside_it() -> None:
    text = UNDECLARED.replace("float[1,8,4,4] x", "float[N,8,4,4] x").replace("float[1,2,8,8] y", "float[half_of_N,2,8,8] y")
    text = text.replace("{1,2,2,2,4,4}", "{-1,2,2,2,4,4}").replace("{1,2,8,8}", "{-1,2,8,8}")
    tensors = graphcheck.compare(proto(text), proto(text)).evidence["graphs"]["a"]["tensors"]
    assert "sizes" not in tensors["x"]  # the graphs are the same, and nothing was traced
    evidence = graphcheck.compare(proto(text), proto(text.replace("perm = [0,3", "perm = [-6,3"))).evidence
    found = {name: (row["shape"], row.get("sizes")) for name, row in evidence["graphs"]["a"]["tensors"].items()}
    assert found["y"] == (["half_of_N", 2, 8, 8], [2, 2, 8, 8]) and found["r"] == ([2, 2, 2, 2, 4, 4], None)


def test_parameters_are_counted_wherever_they_are_stored() -> None:
    found = summary(ir.from_proto(proto(STORED)))
    assert (found["parameters"], found["parameter_bytes"]) == (3 + 4 + 1 + 5, 4 * 13)  # no axes, no shape


def test_a_scalar_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    show_model(Terminal(), analyze_json(ir.from_proto(proto(STORED)))["model"])
    shown = capsys.readouterr().out
    assert "  input  s  float  scalar\n" in shown and "  output  y  float  scalar\n" in shown


def test_a_warning_says_which_runs_it_is_of() -> None:
    root = "g (float[N,3] x) => (float[N,3] y) { y = Sqrt(x) }"
    zero = "g (float[N,3] x) => (float[N,3] y) { y = Sub(x, x) }"
    (alone,) = compare(root, root, iterations=1)["warnings"]
    assert "NaN elements" in alone and not alone.endswith(")")
    vacuous = compare(zero, zero, iterations=3)["warnings"]
    assert any(text.endswith("the comparison is vacuous (in every run)") for text in vacuous)
    full = compare(root, root, numerics="full")
    for text in full["warnings"]:
        if "elements: " in text:
            places = text.partition("(in run")[2].strip("s )")
            told = text.partition(" (in run")[0]
            counts = [(row["nan_a"], row["nan_b"]) for run in full["runs"] for row in run["outputs"]]
            for place in places.split(", "):
                assert f"{counts[int(place) - 1][0]} in A and {counts[int(place) - 1][1]} in B" in told
    assert len(full["runs"]) > 2 and any("(in run" in text for text in full["warnings"])
