"""Verdicts of compare on small graphs: each level is reached, and each has a neighbour that must not reach it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphcheck.kernel.proof.sizes import Sizes
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

RNG = np.random.default_rng(7)


def model(
    body: str, inputs: str = "float[b,3,8,8] x", outputs: str = "float[b,n,m] y", opset: int = 18, **constants: Any
) -> ir.Model:
    text = (
        f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]> g ({inputs}) => ({outputs}) {{ {body} }}'
    )
    proto = onnx.parser.parse_model(text)
    used = {name for node in proto.graph.node for name in node.input}
    for name in sorted(used & constants.keys()):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(constants[name]), name))
    return ir.from_proto(proto)


def conv_constants(out: int = 5) -> dict[str, Any]:
    return {
        "w": RNG.standard_normal((out, 3, 4, 4)).astype(np.float32),
        "bias": RNG.standard_normal(out).astype(np.float32),
        "scale": RNG.uniform(0.5, 2, out).astype(np.float32),
        "shift": RNG.standard_normal(out).astype(np.float32),
        "mean": RNG.standard_normal(out).astype(np.float32),
        "var": RNG.uniform(0.5, 2, out).astype(np.float32),
    }


def verdict(a: ir.Model, b: ir.Model, **options: Any) -> Comparison:
    return compare(a, b, graphs=False, **options)


@pytest.mark.parametrize("partners", [False, True])
def test_partners_of_nodes_are_told_unless_nobody_wants_them(partners: bool) -> None:
    told = verdict(model("y = Relu(x)"), model("z = Identity(x) y = Relu(z)"), run=False, partners=partners)
    assert told.verdict is Verdict.PROVED
    given = told.evidence["structure"], told.evidence["alignment"]
    assert all(given) if partners else given == (None, [])


def test_identical_up_to_names() -> None:
    c = conv_constants()
    a = model("y = Conv <strides = [4,4]> (x, w, bias)", outputs="float[b,5,2,2] y", **c)
    b = model(
        "q = Conv <strides = [4,4], kernel_shape = [4,4]> (x, w, bias)\n y = Identity (q)",
        outputs="float[b,5,2,2] y",
        **c,
    )
    assert (
        verdict(a, model("y = Conv <strides = [4,4]> (x, w, bias)", outputs="float[b,5,2,2] y", **c)).verdict
        is Verdict.IDENTICAL
    )
    assert verdict(a, b).verdict is Verdict.PROVED


PATCHES = """
 s1 = Constant <value_ints = [0,3,2,4,2,4]> ()
 r = Reshape (x, s1)
 t = Transpose <perm = [0,2,4,3,5,1]> (r)
 s2 = Constant <value_ints = [0,4,48]> ()
 p = Reshape (t, s2)
 m = MatMul (p, wm)
 y = Add (m, bias)
"""
CONV = """
 c = Conv <strides = [4,4]> (x, w, bias)
 s = Constant <value_ints = [0,5,4]> ()
 f = Reshape (c, s)
 y = Transpose <perm = [0,2,1]> (f)
"""


def as_matmul(w: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0).reshape(48, -1))


def test_a_patch_embedding_is_a_convolution_and_swapped_rows_are_not() -> None:
    c = conv_constants()
    conv, reshape = model(CONV, **c), model(PATCHES, wm=as_matmul(c["w"]), **c)
    result = verdict(conv, reshape)
    assert result.verdict is Verdict.PROVED
    assert result.evidence["proof"]["tier"] == "congruence"
    proof = result.evidence["proof"]
    assert ([s["x"][0] for s in proof["shapes"]], proof["every"], proof["limits"]) == ([2], ["b"], {})
    wrong = as_matmul(c["w"])
    wrong[[0, 1]] = wrong[[1, 0]]
    result = verdict(conv, model(PATCHES, wm=wrong, **c))
    assert result.verdict is Verdict.DIFFERENT
    assert result.evidence["witness"]["max_abs"] > result.evidence["witness"]["bound"]


def test_one_ulp_on_a_weight_is_within_rounding_and_never_proved() -> None:
    c = conv_constants()
    moved = {**c, "w": c["w"].copy()}
    moved["w"][1, 2, 3, 0] = np.nextafter(moved["w"][1, 2, 3, 0], np.float32(9))
    result = verdict(model(CONV, **c), model(CONV, **moved))
    assert result.verdict is Verdict.WITHIN_ROUNDING
    (constant,) = result.evidence["proof"]["constants"]
    assert constant["b"] == "w" and 0.5 <= constant["ulps"] <= 1.0
    scaled = {**c, "w": c["w"] * np.float32(1 + 1e-6)}
    assert verdict(model(CONV, **c), model(CONV, **scaled)).verdict not in (Verdict.WITHIN_ROUNDING, Verdict.PROVED)


BATCH_NORM = (
    "c = Conv <strides = [4,4]> (x, w, bias)\n y = BatchNormalization <epsilon = 0.001> (c, scale, shift, mean, var)"
)


def folded(c: dict[str, Any], epsilon: float = 0.001) -> dict[str, Any]:
    factor = c["scale"] / np.sqrt(c["var"] + np.float32(epsilon))
    return {**c, "w": c["w"] * factor[:, None, None, None], "bias": (c["bias"] - c["mean"]) * factor + c["shift"]}


def test_a_folded_batch_normalization_is_within_rounding() -> None:
    c = conv_constants()
    a = model(BATCH_NORM, outputs="float[b,5,2,2] y", **c)
    plain = "y = Conv <strides = [4,4]> (x, w, bias)"
    result = verdict(a, model(plain, outputs="float[b,5,2,2] y", **folded(c)))
    assert result.verdict is Verdict.WITHIN_ROUNDING, result.reason
    assert {row["b"] for row in result.evidence["proof"]["constants"]} == {"w", "bias"}
    wrong = verdict(a, model(plain, outputs="float[b,5,2,2] y", **folded(c, epsilon=0.0011)))
    assert wrong.verdict in (Verdict.UNDECIDED, Verdict.DIFFERENT)


def test_a_clip_at_a_thousand_is_found_unless_the_range_excludes_it() -> None:
    c = conv_constants()
    clip = "c = Conv <strides = [4,4]> (x, w, bias)\n lo = Constant <value_float = -1000.0> ()\n"
    clip += "hi = Constant <value_float = 1000.0> ()\n y = Clip (c, lo, hi)"
    a = model("y = Conv <strides = [4,4]> (x, w, bias)", outputs="float[b,5,2,2] y", **c)
    b = model(clip, outputs="float[b,5,2,2] y", **c)
    result = verdict(a, b)
    assert result.verdict is Verdict.DIFFERENT
    assert result.evidence["divergence"]["b"]["op_type"] == "Clip"
    assert verdict(a, b, ranges={"x": (0.0, 1.0)}).verdict is Verdict.UNDECIDED


def test_a_baked_batch_is_found() -> None:
    body = "s = Constant <value_ints = [{},192]> ()\n y = Reshape (x, s)"
    a = model(body.format("-1"), outputs="float[b,192] y")
    b = model(body.format("1"), outputs="float[b,192] y")
    result = verdict(a, b)
    assert result.verdict is Verdict.DIFFERENT, result.reason
    assert "does not" in result.reason or "shape" in result.reason


def test_a_layout_is_named() -> None:
    c = conv_constants()
    a = model("y = Conv <strides = [4,4]> (x, w, bias)", outputs="float[b,i,j,k] y", **c)
    b = model(
        "c = Conv <strides = [4,4]> (x, w, bias)\n y = Transpose <perm = [0,2,3,1]> (c)",
        outputs="float[b,i,j,k] y",
        **c,
    )
    result = verdict(a, b)
    assert result.verdict is Verdict.DIFFERENT
    assert "Transpose(perm=[0, 3, 1, 2])" in result.reason


def test_interfaces_that_do_not_fit() -> None:
    a = model("y = Relu (x)", outputs="float[b,3,8,8] y")
    b = model("z = Relu (x)\n y = Cast <to = 11> (z)", outputs="double[b,3,8,8] y")
    c = model("y = Add (x, q)", inputs="float[b,3,8,8] x, float[b,3,8,8] q", outputs="float[b,3,8,8] y")
    assert verdict(a, b).verdict is Verdict.UNDECIDED
    assert verdict(a, c).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("y = Relu (x)", "y = LeakyRelu <alpha = 0.000001> (x)", {Verdict.DIFFERENT}),
        ("y = Erf (x)", "y = Tanh (x)", {Verdict.DIFFERENT}),
        ("y = Softmax <axis = -1> (x)", "y = Softmax <axis = -2> (x)", {Verdict.DIFFERENT}),
        (
            "y = Sigmoid (x)",
            "n = Neg (x)\n e = Exp (n)\n o = Constant <value_float = 1.0> ()\n d = Add (o, e)\n y = Div (o, d)",
            {Verdict.PROVED},
        ),
        (
            "y = Softmax <axis = -1> (x)",
            "e = Exp (x)\n a = Constant <value_ints = [-1]> ()\n s = ReduceSum (e, a)\n y = Div (e, s)",
            {Verdict.PROVED},
        ),
        ("y = Relu (x)", "z = Constant <value_float = 0.0> ()\n y = Max (x, z)", {Verdict.PROVED}),
        ("y = Mul (x, x)", "t = Constant <value_float = 2.0> ()\n y = Pow (x, t)", {Verdict.PROVED}),
        ("y = Add (x, x)", "t = Constant <value_float = 2.0> ()\n y = Mul (x, t)", {Verdict.PROVED}),
        ("y = Floor (x)", "y = Ceil (x)", {Verdict.DIFFERENT}),
        ("s = Softmax <axis = -1> (x)\n y = Relu (s)", "y = Softmax <axis = -1> (x)", {Verdict.UNDECIDED}),
    ],
)
def test_elementwise_pairs(a: str, b: str, expected: set[Verdict]) -> None:
    left, right = (model(body, outputs="float[b,3,8,8] y") for body in (a, b))
    for first, second in ((left, right), (right, left)):
        assert verdict(first, second).verdict in expected
    assert verdict(left, left).verdict is Verdict.IDENTICAL


def test_a_witness_is_saved_small_and_replays(tmp_path: Path) -> None:
    files = []
    for name, body in (("a", "y = Relu (x)"), ("b", "y = Abs (x)")):
        path = tmp_path / f"{name}.onnx"
        onnx.save(ir.to_proto(model(body, outputs="float[b,3,8,8] y")), path)
        files.append(str(path))
    result = compare(*files, witness=tmp_path / "found")
    found = result.evidence["witness"]
    assert result.verdict is Verdict.DIFFERENT and found["nonzeros"] == 1
    again = compare(*files, inputs=found["path"])
    assert again.verdict is Verdict.DIFFERENT and found["path"] in found["replay"]


def test_reduction_cuts_out_the_two_pieces_that_differ(tmp_path: Path) -> None:
    body = "h = Sin (x)\n r = {} (h)\n e = Exp (r)\n y = Tanh (e)"
    a, b = (model(body.format(op), outputs="float[b,3,8,8] y") for op in ("Relu", "Abs"))
    result = compare(a, b, reduce=tmp_path)
    assert result.evidence["divergence"]["b"] == {
        "tensor": "r",
        "node": result.evidence["divergence"]["b"]["node"],
        "op_type": "Abs",
    }
    reduced = result.evidence["reduced"]
    assert reduced["verdict"] == "different"
    assert [n.op_type for n in onnx.load(reduced["b"]).graph.node] == ["Abs"]


def test_json_is_plain_data() -> None:
    import json

    a = model("y = Relu (x)", outputs="float[b,3,8,8] y")
    text = json.dumps(compare(a, model("y = Abs (x)", outputs="float[b,3,8,8] y")).to_json())
    assert json.loads(text)["schema"] == "graphcheck/compare/1"


def test_sizes_of_a_failed_substitution_are_not_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcheck.kernel.proof import rounding

    c = conv_constants()
    moved = {**c, "w": c["w"].copy()}
    moved["w"][0, 0, 0, 0] = np.nextafter(moved["w"][0, 0, 0, 0], np.float32(9))
    wide = rounding.Substitution([{"name": "w", "ulps": 1.0, "within": True}], 1.0)  # within, but at hopeless odds
    monkeypatch.setattr(rounding, "substitute", lambda *_, **__: wide)
    monkeypatch.setattr("graphcheck.kernel.proof.free.Free.every", lambda *_: [])
    monkeypatch.setattr("graphcheck.kernel.proof.prover.Prover.from_inputs", lambda _: True)
    seen = []
    attempt = Sizes.attempt
    monkeypatch.setattr(
        Sizes, "attempt", lambda self, chosen, *rest: seen.append(chosen) or attempt(self, chosen, *rest)
    )
    compare(model(CONV, **c), model(CONV, **moved), graphs=False, run=False)
    assert [chosen["x"][0] for chosen in seen] == [2, 3, 1]  # each size is tried by the proof itself


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        ("y = Relu (x)", {"max_abs": 0.25, "scale_ulp": 1e6}),  # rounds nothing
        ("y = Exp (x)", {"max_abs": 0.25, "scale_ulp": 1e6}),
        ("y = Exp (x)", {"max_abs": None, "scale_ulp": None, "unequal": 384}),
    ],
)
def test_a_proof_that_executions_gainsay_is_told(monkeypatch: pytest.MonkeyPatch, body: str, seen: dict[str, Any]) -> None:
    from graphcheck.runs import numeric

    plain = numeric.compare_arrays
    monkeypatch.setattr(numeric, "compare_arrays", lambda a, b: plain(a, b) | seen)
    twice = "z = Neg (x)\n w = Neg (z)\n " + body.replace("(x)", "(w)")
    result = verdict(*(model(text, outputs="float[b,3,8,8] y") for text in (body, twice)))
    assert result.verdict is Verdict.UNDECIDED
    assert result.reason.startswith("PROVED, BUT onnxruntime's outputs 'y' differ"), result.reason


@pytest.mark.parametrize("stored", ["uint8", "int8"])
def test_that_products_of_uint8_and_int8_may_saturate_is_told(monkeypatch: pytest.MonkeyPatch, stored: str) -> None:
    """Where a proof is gainsaid; int8 alone does not."""
    from graphcheck.runs import numeric

    plain = numeric.compare_arrays
    monkeypatch.setattr(numeric, "compare_arrays", lambda a, b: plain(a, b) | {"max_abs": 0.25, "scale_ulp": 1e6})
    body = "d = DequantizeLinear (q, s, z) e = DequantizeLinear (r, s) f = Add (d, e) y = Add (x, f)"
    given = {"q": np.int8(3), "s": np.float32(0.5), "z": np.int8(1), "r": np.ones(1, stored)}
    texts = (body, "w = Neg (x) v = Neg (w) " + body.replace("(x, f)", "(v, f)"))
    result = verdict(*(model(text, outputs="float[b,3,8,8] y", **given) for text in texts))
    assert ("saturate at 16 bits" in result.reason) == (stored == "uint8"), result.reason


def test_a_shape_on_which_the_standard_and_onnxruntime_differ_is_no_difference() -> None:
    body = "m = Constant <value_ints = [-1]> ()\n e = Constant <value_ints = [9223372036854775807]> ()\n"
    body += "k = Constant <value_ints = [3]> ()\n y = Slice (x, m, e, k, m)"
    a, b = (model(text, outputs="float[b,3,8,n] y") for text in (body, "y = Neg (x)"))
    for left, right in ((a, b), (b, a)):
        result = verdict(left, right, run=False)
        assert result.verdict is Verdict.UNDECIDED
        assert "Slice backwards with 9223372036854775807 as its end" in result.reason


def test_each_deviation_is_told_with_the_input_that_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The witness is smaller than the inputs of the runs, and so is its deviation: neither number goes without its input."""
    from graphcheck.formats.console import Terminal
    from graphcheck.formats.terminal import show_comparison

    left, right = (model(f"y = {op} (x)", outputs="float[b,3,8,8] y") for op in ("Relu", "Abs"))
    found = compare(left, right, witness=tmp_path)
    assert re.match(r"output 'y' differs by \S+ on the input found \(\S+ in onnxruntime\)", found.reason)
    show_comparison(Terminal(), found.to_json())
    shown = capsys.readouterr().out
    assert "in onnxruntime, 1 run (normal, seed 0): the largest" in shown and ": normal, shrunk, deviation" in shown
    given = compare(left, right, inputs=found.evidence["witness"]["path"])
    assert "on the given input (" in given.reason
    show_comparison(Terminal(), given.to_json())
    assert "in onnxruntime, 1 run (given inputs): the largest" in capsys.readouterr().out
    show_comparison(Terminal(), compare(left, right, numerics="full", ranges={"x": (-1.0, 0.0)}).to_json())
    (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("  y "))
    assert re.search(r"  \d+: in the ranges asked for, (\w+, |scaled by \S+, )?seed \d(, unoptimized)?$", row), row


def test_a_string_is_no_reason_to_refuse() -> None:
    def proto(strings: str, floats: str) -> onnx.ModelProto:
        head = '<ir_version: 10, opset_import: ["": 21]> g (string[N] s, float[N] x) => (string[N] t, float[N] y)'
        return onnx.parser.parse_model(f"{head} <float zero = {{0.0}}> {{ u = Identity(s) t = {strings} y = {floats} }}")

    a = proto("StringConcat(s, s)", "Relu(x)")
    for numerics in ("quick", "full"):
        assert compare(a, proto("StringConcat(u, u)", "Max(x, zero)"), numerics=numerics).verdict == "proved"
    other = compare(a, proto("Identity(s)", "Max(x, zero)"))
    assert other.verdict == "undecided" and "onnxruntime's outputs 't' differ" in other.reason
    assert compare(a, proto("StringConcat(u, u)", "Abs(x)")).verdict == "different"
