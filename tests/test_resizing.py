"""Resize by exact coordinates, against onnx.reference and onnxruntime; what becomes of constants that were resized before."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from graphcheck import compare
from graphcheck.errors import Untaught
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.ops.reference import broken_length
from graphcheck.kernel.ops.resizing import _length, weights
from graphcheck.verdict import Comparison, Verdict

HOW = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def resizing(n: int, to: int, dtype: int = 1, **attributes: Any) -> onnx.ModelProto:
    """One axis of n elements to another length."""
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], axes=[1], **attributes)
    ports = [[helper.make_tensor_value_info(name, dtype, ["b", k])] for name, k in (("x", n), ("y", to))]
    sizes = numpy_helper.from_array(np.array([to], np.int64), "s")
    graph = helper.make_graph([node], "g", *ports, [sizes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def node_of(attributes: dict[str, Any]) -> Node:
    return Node("", "Resize", 19, "r", attributes, 4, 1, (True, False, False, True), (True,))


def taught(n: int, to: int, **attributes: Any) -> np.ndarray:
    return weights(node_of(attributes), n, to, Fraction(to, n))


def by_onnxruntime(n: int, to: int, x: np.ndarray, **attributes: Any) -> np.ndarray:
    found: Any = onnxruntime.InferenceSession(resizing(n, to, **attributes).SerializeToString()).run(None, {"x": x})
    return np.asarray(found[0])


@settings(deadline=None, max_examples=80)
@given(
    st.integers(2, 24), st.integers(2, 40), st.sampled_from(HOW), st.sampled_from(("linear", "cubic")), st.booleans(),
    st.booleans(), st.sampled_from((-0.75, -0.5)),
)  # fmt: skip
def test_the_weights_are_those_of_onnx_reference(
    n: int, to: int, how: str, mode: str, antialias: bool, outside: bool, a: float
) -> None:
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": how, "antialias": int(antialias)}
    attributes |= {"exclude_outside": int(outside)} | ({"cubic_coeff_a": a} if mode == "cubic" else {})
    found = taught(n, to, **attributes)
    whole = Fraction("half" in how, 2)
    step = Fraction(n, to) if how != "align_corners" else Fraction(n - 1, to - 1)
    at = [(j + whole) * step - whole for j in range(to)]
    # onnx.reference computes cubic in float32, and is off by one where a float64 is an element but for a rounding
    sound = [j for j, x in enumerate(at) if x.denominator != 1]
    reference = np.asarray(ReferenceEvaluator(resizing(n, to, 11, **attributes)).run(None, {"x": np.eye(n)})[0])
    np.testing.assert_allclose(found[:, sound], reference[:, sound], atol=1e-4 if outside else 2e-6)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 24), st.one_of(st.integers(1, 32), st.sampled_from((0.25, 0.5, 0.6, 0.7, 1.5, 2.0, 2.5, 3.0))),
    st.sampled_from((*HOW, "tf_crop_and_resize")), st.sampled_from(("nearest", "linear", "cubic")), st.booleans(),
    st.sampled_from(("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")), st.booleans(),
)  # fmt: skip
def test_the_weights_are_those_of_onnxruntime(
    n: int, size: int | float, how: str, mode: str, antialias: bool, near: str, part: bool
) -> None:
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": how}
    attributes |= {"nearest_mode": near} if mode == "nearest" else {"antialias": int(antialias and how != "tf_crop_and_resize")}
    region = np.float32([0, 0.1, 1, 0.9] if part else [0, 0, 1, 1])
    steers = "r, s" if isinstance(size, float) else "r, , s"
    graph = f"(float[{n},{n}] x) => (float[a,b] y) {{ y = Resize (x, {steers}) }}"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 19]> g {graph}')
    model.graph.node[0].attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
    stored = np.float32([1, size]) if isinstance(size, float) else np.array([n, size])
    model.graph.initializer.extend([numpy_helper.from_array(region, "r"), numpy_helper.from_array(stored, "s")])
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString())
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:  # antialias by what onnxruntime has no kernel for
        return
    asked = broken_length(node_of(attributes), [n, n], region, *((stored, None) if isinstance(size, float) else (None, stored)))
    try:
        to = _length(node_of(attributes), n, size) if isinstance(size, float) else size
        ends = (float(region[1]), float(region[3])) if how == "tf_crop_and_resize" else (0.0, 1.0)
        scale = Fraction(float(np.float32(size))) if isinstance(size, float) else Fraction(size, n)
        found = weights(node_of(attributes), n, to, scale, ends)
    except Untaught:
        return
    if not asked:
        told: Any = session.run(None, {"x": np.eye(n, dtype=np.float32)})
        np.testing.assert_allclose(found, told[0], atol=1e-3)


@pytest.mark.parametrize("near", ["round_prefer_floor", "round_prefer_ceil"])
def test_a_coordinate_that_is_an_element_takes_that_element(near: str) -> None:
    """10.5 * 40 / 56 - 0.5 is 7, and in float64 a little more: onnx.reference has the one before, for nearest and linear."""
    found = taught(40, 56, mode="nearest", nearest_mode=near)
    x = np.arange(40, dtype=np.float32)[None]
    assert found[7, 10] == 1 and taught(40, 56, mode="linear")[7, 10] == 1
    assert np.array_equal(by_onnxruntime(40, 56, x, mode="nearest", nearest_mode=near)[0], x[0] @ found)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 40), st.integers(2, 60), st.sampled_from(HOW[:4]), st.sampled_from(("linear", "cubic")), st.booleans())
def test_onnxruntime_stays_within_the_room_of_a_resized_constant(
    n: int, to: int, how: str, mode: str, antialias: bool
) -> None:
    attributes = {"mode": mode, "coordinate_transformation_mode": how, "antialias": int(antialias)}
    x = np.random.default_rng(n * to).standard_normal((4, n)).astype(np.float32)
    folded = helper.make_graph(
        [helper.make_node("Add", ["x", "t"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [4, to])], [helper.make_tensor_value_info("y", 1, [4, to])],
        [numpy_helper.from_array(by_onnxruntime(n, to, x, **attributes), "t")],
    )  # fmt: skip
    found = table(x, to, **attributes)
    model = helper.make_model(folded, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    assert judged(found, model).verdict in (Verdict.WITHIN_ROUNDING, Verdict.PROVED, Verdict.IDENTICAL)


def table(values: np.ndarray, to: int, **attributes: Any) -> onnx.ModelProto:
    """x + Resize(values)."""
    rows = len(values)
    nodes = [helper.make_node("Resize", ["t", "", "", "s"], ["r"], **attributes), helper.make_node("Add", ["x", "r"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, [rows, to])], [helper.make_tensor_value_info("y", 1, [rows, to])],
        [numpy_helper.from_array(values, "t"), numpy_helper.from_array(np.array([rows, to], np.int64), "s")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def judged(a: onnx.ModelProto, b: onnx.ModelProto) -> Comparison:
    return compare(a, b, graphs=False, run=False)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_an_element_of_a_resized_table_that_was_changed_is_refused(mode: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    model = table(x, 5, mode=mode)
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    del folded.graph.node[0]
    values = by_onnxruntime(7, 5, x, mode=mode)
    for by, wanted in ((0.0, Verdict.WITHIN_ROUNDING), (1e-4, Verdict.DIFFERENT)):
        values[2, 3] += by
        del folded.graph.initializer[:]
        folded.graph.initializer.append(numpy_helper.from_array(values, "r"))
        found = judged(model, folded)
        assert found.verdict is wanted or (by and found.verdict is Verdict.UNDECIDED), found.reason
    x[1, 1] += 1e-4
    assert judged(model, table(x, 5, mode=mode)).verdict is Verdict.DIFFERENT
    assert judged(model, table(x, 5, mode="cubic", cubic_coeff_a=-0.6)).verdict is Verdict.DIFFERENT


LENGTHS = "<ir_version: 9, opset_import: ['': 19]> g (float[1,{n}] x) => (float[a,b] y) {{ {body} }}".replace("'", '"')


def scaled(n: int, by: float, body: str = "y = Resize <mode = \"{mode}\", {how}> (x, , s)", **words: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(LENGTHS.format(n=n, body=body.format(**words)))
    stored = {"s": np.float32([1, by]), "l": np.int64([0]), "h": np.int64([6]), "d": np.int64([1])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    return model


def test_a_length_that_the_runtimes_round_is_taken_from_onnxruntime_alone() -> None:
    """10 * 0.7 in float32: 7 elements for onnxruntime, 6 for the shape inference of ONNX."""
    resized, cut = "r = Resize (x, , s) ", "y = Slice (r, l, h, d)"
    whole, part = scaled(10, 0.7, resized + "y = Identity (r)"), scaled(10, 0.7, resized + cut)
    alone = judged(whole, part)
    assert alone.verdict is Verdict.UNDECIDED and "a length that depends on how the scale is rounded" in alone.reason
    assert compare(whole, part, graphs=False).verdict is Verdict.DIFFERENT
    twice = scaled(10, 0.7, resized + "n = Neg (r) y = Neg (n)")
    found = compare(whole, twice, graphs=False)
    assert found.verdict is Verdict.PROVED
    assert "the shape of what Resize gives is taken from onnxruntime" in found.evidence["proof"]["assumptions"]
    between = "i = Cast <to = 6> (x) r = Resize <mode = \"linear\"> (i, , s) "
    integers = [scaled(10, 0.7, between + end) for end in ("y = Identity (r)", cut)]
    assert judged(*integers).verdict is Verdict.UNDECIDED
    assert judged(scaled(10, 0.65, resized + cut), scaled(10, 0.65, resized + "y = Identity (r)")).verdict is Verdict.PROVED


def test_what_a_runtime_rounds_grows_with_the_axis() -> None:
    """26931 * 0.2292154 is 6172.9998, and 6173 in float32; 8899.50027 is 8899.5."""
    with pytest.raises(Untaught, match="how the scale is rounded"):
        _length(node_of({}), 26931, np.float32(0.2292154))
    assert _length(node_of({}), 26931, np.float32(0.22921)) == 6172
    with pytest.raises(Untaught, match="how its coordinates are rounded"):
        taught(12078, 3772, mode="nearest")


@pytest.mark.parametrize("antialias", [0, 1])
@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_an_axis_that_keeps_its_length_by_a_broken_scale_is_not_told(mode: str, antialias: int) -> None:
    """onnxruntime copies it, whatever the coordinates are."""
    how = f"antialias = {antialias}, "
    copied = scaled(3, 1.2, mode=mode, how=how + 'coordinate_transformation_mode = "asymmetric"')
    other = scaled(3, 1.2, mode=mode, how=how + 'coordinate_transformation_mode = "half_pixel"')
    assert judged(copied, other).verdict is Verdict.UNDECIDED
    x: Any = np.float32([[1, 2, 4]])
    assert np.array_equal(onnxruntime.InferenceSession(copied.SerializeToString()).run(None, {"x": x})[0], x)
