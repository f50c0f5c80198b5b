"""Both models side by side: what runs, what it finds, and what it warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from graphcheck.errors import UsageError
from graphcheck.interface.inputs import InputSpec, check_inputs, generate
from graphcheck.interface.ports import Interface, pair_interfaces, shapes
from graphcheck.options import Options
from graphcheck.runs.numeric import Run, numeric

LINEAR = """g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {{1.0, 2.0, 3.0, 4.0, 5.0, {last}}}> {{
  h = {op}(x) y = MatMul(h, w) }}"""


def pair(a: str, b: str) -> tuple[bytes, bytes, Interface]:
    models = [ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : 17]> {text}') for text in (a, b)]
    data = [ir.to_proto(model).SerializeToString() for model in models]
    return data[0], data[1], pair_interfaces(models[0], models[1])


def linear(op: str = "Identity", last: str = "6.0") -> str:
    return LINEAR.format(op=op, last=last)


def compare(a: str, b: str, **options: Any) -> dict[str, Any]:
    result = numeric(*pair(a, b), Options(threads=1, **options))
    json.dumps(result, allow_nan=False)
    return result


def unequal(result: dict[str, Any]) -> int:
    return sum(output["unequal"] for run in result["runs"] for output in run["outputs"])


def test_quick_is_one_normal_input_at_batch_2_with_optimizations_on() -> None:
    result = compare(linear(), linear("Neg"))
    (run,) = result["runs"]
    assert run["side_note"] == "optimizations on" and run["providers"] == ["CPUExecutionProvider"]
    assert run["inputs"]["distribution"] == "normal" and run["inputs"]["shapes"] == {"x": [2, 3]}
    (output,) = run["outputs"]
    assert output["a"] == output["b"] == "y" and output["max_abs"] > 1 and output["cosine"] == pytest.approx(-1)
    assert output["spread_units"] is None and result["time_a_ms"] > 0 and result["warnings"] == []
    assert unequal(compare(linear(), linear())) == 0


DOUBLED = "g (uint8[N,4] x) => (uint8[N,4] y) <uint8 k = {2}> { n = Mul(x, k) y = Div(n, k) }"
SAME = "g (uint8[N,4] x) => (uint8[N,4] y) { y = Identity(x) }"


def test_unsigned_integers_run_over_their_range_too() -> None:
    small, wide = compare(DOUBLED, SAME)["runs"]
    assert (small["inputs"]["integers"], wide["inputs"]["integers"]) == ("small", "wide")
    assert unequal({"runs": [small]}) == 0 < unequal({"runs": [wide]})
    assert len(compare(DOUBLED, SAME, numerics="full")["runs"]) > 2


def test_integers_that_a_model_refuses_are_no_run() -> None:
    """Large ones are no rows of a table; and int64 does not wrap in real models."""
    table = "g (uint8[N] x) => (float[N] y) <float[4] t = {1,2,3,4}> { i = Cast<to=7>(x) y = Gather(t, i) }"
    result = compare(table, table)
    assert [run["inputs"]["integers"] for run in result["runs"]] == ["small"] and result["warnings"] == []
    assert len(compare(*["g (int64[N] x) => (int64[N] y) { y = Neg(x) }"] * 2)["runs"]) == 1


def test_integers_that_both_models_refuse_are_drawn_lower() -> None:
    """2 and 3 are no rows of a table with as many as the batch; a table with one row takes no lower ones either."""
    table = "g (int64[M] i, float[N,3] x) => (float[M,3] y) { y = Gather(x, i) }"
    (run,) = (result := compare(table, table))["runs"]
    assert run["inputs"]["integers"] == "binary" and run["outputs"][0]["unequal"] == 0 and result["warnings"] == []
    single = table.replace("[N,3]", "[1,3]")
    (run,) = (result := compare(single, single, seed=3))["runs"]
    assert run["inputs"]["integers"] == "small" and result["warnings"][0].startswith("neither model ran")
    asked = compare(table, table, ranges={"i": (2.0, 3.0)})
    assert [run["inputs"]["integers"] for run in asked["runs"]] == ["small"] and "indices" in asked["warnings"][0]


def test_one_ulp_is_seen() -> None:
    (output,) = compare(linear(), linear(last="6.0000004768371582"))["runs"][0]["outputs"]
    assert 0 < output["max_abs"] < 1e-5 and output["unequal"] > 0


def test_full_has_optimizations_scales_signs_and_batch_sizes() -> None:
    result = compare(linear(), linear(), numerics="full")
    inputs = [run["inputs"] for run in result["runs"]]
    assert {run["side_note"] for run in result["runs"]} == {"optimizations off", "optimizations on"}
    assert {item["shapes"]["x"][0] for item in inputs} == {1, 2, 3}
    assert {item["seed"] for item in inputs} == {0, 1, 2} and {item["scale"] for item in inputs} == {
        0.01,
        1,
        100,
        10000,
    }
    assert {item["signs"] for item in inputs} == {"both", "positive", "negative"}
    assert unequal(result) == 0 and result["time_b_ms"] > 0


def test_full_sees_what_the_usual_inputs_do_not() -> None:
    """A Clip far out, and one that only negative numbers show."""
    clip = "g (float[N,300] x) => (float[N,300] y) {{ lo = Constant<value_float = {}>() y = Max(x, lo) }}".format
    far = compare(clip(-1e30), clip(-1e3), numerics="full")
    assert unequal(compare(clip(-1e30), clip(-1e3))) == 0 and unequal(far) > 0
    relu, identity = linear("Relu"), linear()
    assert unequal(compare(identity, relu, ranges={"x": (0.0, 1.0)})) == 0 and unequal(compare(identity, relu)) > 0


def test_iterations_seeds_and_shapes() -> None:
    result = compare(linear(), linear(), iterations=3, seed=7, shapes={"x": (5, 3)})
    assert [run["inputs"]["seed"] for run in result["runs"]] == [7, 8, 9]
    assert result["runs"][0]["outputs"][0]["shape"] == [5, 2]
    a, b, interface = pair(linear(), linear("Neg"))
    recorded = numeric(a, b, interface, Options(seed=7, threads=1))["runs"][0]["inputs"]
    replayed = generate(
        interface, shapes(interface, {"x": tuple(recorded["shapes"]["x"])}), InputSpec.from_json(recorded)
    )
    seen: list[Run] = []
    numeric(a, b, interface, Options(seed=7, threads=1), on_run=seen.append)
    assert seen[0].inputs["x"].tobytes() == replayed["x"].tobytes()


def test_given_inputs_and_other_names() -> None:
    a, b, interface = pair(linear(), linear().replace("x)", "image)").replace(" y)", " out)").replace("y =", "out ="))
    given = check_inputs({"image": np.ones((4, 3), np.float32)}, interface)
    result = numeric(a, b, interface, Options(threads=1), [lambda: given])
    (run,) = result["runs"]
    assert run["inputs"] == {"seed": None, "scale": None, "distribution": "given", "shapes": {"x": [4, 3]}, "values": {}}
    assert (run["outputs"][0]["a"], run["outputs"][0]["b"], run["outputs"][0]["unequal"]) == ("y", "out", 0)


def test_runs_keep_arrays_for_who_wants_them() -> None:
    kept: list[Run] = []
    numeric(*pair(linear(), linear("Neg")), Options(threads=1), on_run=kept.append)
    assert (kept[0].a.outputs["y"] == -kept[0].b.outputs["y"]).all()


def test_fail_fast_stops_at_the_first_difference() -> None:
    assert len(compare(linear(), linear("Neg"), iterations=5, fail_fast=True)["runs"]) == 1
    assert len(compare(linear(), linear(), iterations=5, fail_fast=True)["runs"]) == 5


BAKED = """g (float[N,4] x) => (float[M,2] y) <int64[2] s = {{{shape}}}> {{ y = Reshape(x, s) }}"""


def test_refusal_of_one_side_is_a_result() -> None:
    result = compare(BAKED.format(shape="-1, 2"), BAKED.format(shape="2, 2"))
    (run,) = result["runs"]
    assert run["errors"]["a"] is None and "Reshape" in run["errors"]["b"] and run["outputs"] == []
    assert result["warnings"][0].startswith("B did not run at x=[2, 4], the other one did: model: node Reshape")
    assert result["time_a_ms"] is None
    both = compare(BAKED.format(shape="3, 2"), BAKED.format(shape="3, 2"))
    assert both["warnings"][0].startswith("neither model ran at x=[2, 4]: ")
    # a batch baked in is found by another batch size
    full = compare(BAKED.format(shape="-1, 2"), BAKED.format(shape="4, 2"), numerics="full")
    assert {bool(run["errors"]["b"]) for run in full["runs"]} == {False, True}


def test_model_that_onnxruntime_refuses_runs_once() -> None:
    a, b, interface = pair(linear(), linear())
    result = numeric(a, b.replace(b"Identity", b"NoSuchOp"), interface, Options(iterations=5, threads=1))
    assert len(result["runs"]) == 1 and "NoSuchOp" in result["runs"][0]["errors"]["b"]


def test_shapes_nans_and_vacuous_outputs_are_told() -> None:
    flat = "g (float[N,3] x) => (float[K] y) { s = Constant<value_ints = [-1]>() y = Reshape(x, s) }"
    same = "g (float[N,3] x) => (float[N,3] y) { y = Identity(x) }"
    assert "has shape [2, 3] in A and [6] in B" in compare(same, flat)["warnings"][0]
    root = "g (float[N,3] x) => (float[N,3] y) { y = Sqrt(x) }"
    assert "output 'y' has NaN elements" in compare(root, root)["warnings"][0]
    assert "not in the same places" in compare(root, same)["warnings"][0]
    zero = "g (float[N,3] x) => (float[N,3] y) { y = Sub(x, x) }"
    assert "zero everywhere" in compare(zero, zero)["warnings"][0]
    fixed = "g (float[N,3] x) => (float[2] y) { y = Constant<value_floats = [1.0, 2.0]>() }"
    assert "was the same for every input" in compare(fixed, fixed, iterations=2)["warnings"][0]
    assert compare(fixed, fixed)["warnings"] == []


def test_outputs_that_are_no_tensors_are_left_out_and_told() -> None:
    text = "g (float[2] x) => (seq(float[2]) s, float[2] y) { s = SequenceConstruct(x) y = Relu(x) }"
    result = compare(text, text)
    assert result["warnings"] == ["output 's' is not a tensor and was not compared"]
    assert [output["a"] for output in result["runs"][0]["outputs"]] == ["y"]
    with pytest.raises(UsageError, match=r"input 'x' has type .*: only tensors can be fed"):
        compare(*["g (seq(float[2]) x) => (seq(float[2]) y) { y = Identity(x) }"] * 2)


def test_files_and_child_processes(tmp_path: Path) -> None:
    a, b, interface = pair(linear(), linear("Neg"))
    paths = []
    for name, data in (("a", a), ("b", b)):
        paths.append(tmp_path / f"{name}.onnx")
        paths[-1].write_bytes(data)
        onnx.checker.check_model(str(paths[-1]))
    here = numeric(paths[0], paths[1], interface, Options(threads=1))["runs"]
    assert numeric(a, b, interface, Options(threads=1))["runs"] == here


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="numerics is one of quick, full, not 'some'"):
        Options(numerics="some")
    with pytest.raises(UsageError, match="iterations must be at least 1"):
        Options(iterations=0)
    with pytest.raises(UsageError, match="no input is named 'q'"):
        compare(linear(), linear(), shapes={"q": (1,)})
