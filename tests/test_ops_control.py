"""If, Loop, Scan, sequences and optionals: concrete steering, computed elements."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

import numpy as np
import pytest
from ops_support import assert_agrees, float64, ints, model, values

from graphcheck.errors import Undecided

FEEDS = {"x": values((3, 4))}
G = "g (float[3,4] x) => (float{} y) {}"


def agrees(shape: str, body: str, version: int = 18) -> None:
    proto = model(G.format(shape, "{" + body + "}"), version)
    assert_agrees(proto, FEEDS)
    assert_agrees(proto, FEEDS, normalize=False)


SCAN = """
  zero = Constant<value = float[{k}] {{{zeros}}}>()
  s, y = Scan<num_scan_inputs = 1, {attributes}, body = body (float[{k}] state, float[{k}] row) => (float[{k}] next, float[{k}] out) {{
    next = Add(state, row)
    out = Mul(next, row)
  }}>(zero, x)
"""


@pytest.mark.parametrize("version", [9, 11, 16, 19])
@pytest.mark.parametrize(
    ("shape", "k", "attributes"),
    [
        ("[3,4]", 4, "scan_input_axes = [0]"),
        ("[3,4]", 4, "scan_input_directions = [1]"),
        ("[3,4]", 4, "scan_output_directions = [1]"),
        ("[4,3]", 4, "scan_output_axes = [1]"),
        ("[4,3]", 3, "scan_input_axes = [1]"),
        ("[4,3]", 3, "scan_input_axes = [-1]"),
    ],
)
def test_scan(version: int, shape: str, k: int, attributes: str) -> None:
    agrees(shape, SCAN.format(k=k, zeros=",".join("0" * k), attributes=attributes), version)


LOOP = """
  trips = Constant<value = int64 {n}>()
  go = Constant<value = bool {{1}}>()
  {outputs} = Loop<body = body (int64 i, bool c, float[3,4] state) => (bool d, float[3,4] next, float[3] out) {{
    d = Identity(c)
    f = Cast<to = 1>(i)
    scaled = Mul(x, f)
    next = Add(state, scaled)
    axis = Constant<value = int64[1] {{1}}>()
    out = ReduceSum<keepdims = 0>(next, axis)
  }}>(trips, go, x)
"""


def test_loop_carries_state_and_stacks() -> None:
    agrees("[3,4]", LOOP.format(n="{3}", outputs="y, stacked"))
    agrees("[3,3]", LOOP.format(n="{3}", outputs="state, y"))


def test_loop_without_a_step() -> None:
    agrees("[0,3]", LOOP.format(n="{0}", outputs="state, y"))


def test_loop_stops_on_its_condition() -> None:
    body = """
      trips = Constant<value = int64 {10}>()
      go = Constant<value = bool {1}>()
      y = Loop<body = body (int64 i, bool c, float[3,4] state) => (bool d, float[3,4] next) {
        two = Constant<value = int64 {2}>()
        d = Less(i, two)
        next = Add(state, x)
      }>(trips, go, x)"""
    agrees("[3,4]", body)


@pytest.mark.parametrize("compare", ["Greater", "Less"])
def test_if_of_a_computed_condition_selects(compare: str) -> None:
    body = f"""
      s = ReduceSum<keepdims = 0>(x)
      zero = Constant<value = float {{0}}>()
      c = {compare}(s, zero)
      y = If<then_branch = t () => (float[3,4] a) {{ a = Relu(x) }}, else_branch = e () => (float[3,4] b) {{ b = Neg(x) }}>(c)"""
    agrees("[3,4]", body)


@pytest.mark.parametrize("condition", [0, 1])
def test_if(condition: int) -> None:
    body = f"""
      c = Constant<value = bool {{{condition}}}>()
      y = If<then_branch = t () => (float[3,4] a) {{ a = Relu(x) }}, else_branch = e () => (float[3,4] b) {{ b = Neg(x) }}>(c)"""
    agrees("[3,4]", body)


def test_steering_by_the_inputs_is_undecided() -> None:
    computed = """
      s = ReduceSum<keepdims = 0>(x)
      zero = Constant<value = float {0}>()
      c = Greater(s, zero)
      y = If<then_branch = t () => (float[3,4] a) { a = Relu(x) }, else_branch = e () => (float[12] b) { n = Constant<value = int64[1] {12}>() b = Reshape(x, n) }>(c)"""
    with pytest.raises(Undecided, match="condition of If depends on the inputs"):
        float64(model(G.format("[3,4]", "{" + computed + "}")), FEEDS)


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("[3,4]", "s = SplitToSequence<axis = 0>(x) y = ConcatFromSequence<axis = 0>(s)"),
        ("[4,3]", "s = SplitToSequence<axis = 1, keepdims = 0>(x) y = ConcatFromSequence<axis = 0, new_axis = 1>(s)"),
        ("[3,4]", "s = SplitToSequence<axis = 1, keepdims = 0>(x) y = ConcatFromSequence<axis = -1, new_axis = 1>(s)"),
        (
            "[3,2]",
            "n = Constant<value = int64 {2}>() s = SplitToSequence<axis = 1>(x, n) i = Constant<value = int64 {-1}>() y = SequenceAt(s, i)",
        ),
        (
            "[3,3]",
            "n = Constant<value = int64[2] {1, 3}>() s = SplitToSequence<axis = 1>(x, n) i = Constant<value = int64 {1}>() y = SequenceAt(s, i)",
        ),
        ("[6,4]", "r = Relu(x) s = SequenceConstruct(x, r) y = ConcatFromSequence<axis = 0>(s)"),
        (
            "[9,4]",
            "r = Relu(x) s = SequenceConstruct(x, r) n = Neg(x) i = Constant<value = int64 {1}>() t = SequenceInsert(s, n, i) y = ConcatFromSequence<axis = 0>(t)",
        ),
        (
            "[9,4]",
            "r = Relu(x) e = SequenceEmpty<dtype = 1>() s = SequenceInsert(e, r) t = SequenceInsert(s, x) n = Neg(x) i = Constant<value = int64 {-1}>() u = SequenceInsert(t, n, i) y = ConcatFromSequence<axis = 0>(u)",
        ),
        (
            "[3,4]",
            "r = Relu(x) s = SequenceConstruct(x, r) i = Constant<value = int64 {0}>() t = SequenceErase(s, i) y = ConcatFromSequence<axis = 0>(t)",
        ),
        ("[3,4]", "r = Relu(x) s = SequenceConstruct(x, r) n = SequenceLength(s) f = Cast<to = 1>(n) y = Mul(x, f)"),
    ],
)
def test_sequences(shape: str, body: str) -> None:
    agrees(shape, body)


def test_sequence_map() -> None:
    body = """
      r = Relu(x)
      s = SequenceConstruct(x, r)
      m = SequenceMap<body = f (float[3,4] a, float[3,4] b) => (float[3,4] c) { c = Add(a, b) }>(s, x)
      y = ConcatFromSequence<axis = 1>(m)"""
    agrees("[3,8]", body)


def test_model_local_functions_and_their_attributes() -> None:
    import onnx

    text = """<ir_version: 10, opset_import: ["": 18, "local": 1]>
      g (float[3,4] x) => (float[3,4] y) { y = local.scaled<alpha = 0.25>(x) }
      <domain: "local", opset_import: ["": 18]> scaled <alpha> (a) => (b) { b = LeakyRelu<alpha: float = @alpha>(a) }"""
    assert_agrees(onnx.parser.parse_model(text), FEEDS)


def test_ranges_and_indices_of_concrete_values() -> None:
    body = """
      s = Shape(x) zero = Constant<value = int64 {0}>() one = Constant<value = int64 {1}>()
      n = Gather<axis = 0>(s, one) r = Range(zero, n, one) g = Gather<axis = 1>(x, r)
      depth = Constant<value = int64 {4}>() off = Constant<value = float[2] {0, 1}>() h = OneHot(r, depth, off) y = MatMul(g, h)"""
    agrees("[3,4]", body)


def test_nonzero_of_a_computed_tensor_is_undecided() -> None:
    with pytest.raises(Undecided, match="NonZero"):
        float64(model("g (float[3,4] x) => (int64[2,n] y) { y = NonZero(x) }"), FEEDS)


def test_random_operators_are_undecided() -> None:
    for text in (
        "g (float[3,4] x) => (float[3,4] y) { y = RandomNormalLike(x) }",
        "g (float[3,4] x) => (float[3,4] y) <float r = {0.5}, bool t = {1}> { y = Dropout(x, r, t) }",
    ):
        with pytest.raises(Undecided, match="random"):
            float64(model(text), FEEDS)
    kept = model("g (float[3,4] x) => (float[3,4] y) <float r = {0.0}, bool t = {1}> { y = Dropout(x, r, t) }")
    assert np.array_equal(float64(kept, FEEDS)[0].value, FEEDS["x"])


def test_an_opaque_operator_keeps_its_shape_and_type() -> None:
    y = float64(model("g (float[3,4] x) => (float[3,4] y) { y = Hardmax(x) }"), FEEDS)[0]
    assert y.opaque and y.value.shape == (3, 4) and bool(np.isinf(y.error).all())
    assert ints(1).dtype == np.int64


@pytest.mark.parametrize(
    "text",
    [
        "g (float[3,4] x) => (float[3,4] y) <int64[2] s = {5, 5}> { y = Reshape(x, s) }",
        "g (float[3,4] x) => (float[3,4] y) { y = Transpose<perm = [0, 5]>(x) }",
        "g (float[3,4] x) => (float[3,4] y) { y = Gemm(x, x) }",
        "g (float[3,4] x) => (float[3,4] y) <int64[1] i = {9}> { y = Gather(x, i) }",
        "g (float[3,4] x) => (float[3,4] y) { y = Conv(x, x) }",
        "g (float[3,4] x) => (float[3,4] y) { y = Softmax<axis = 7>(x) }",
        'g (float[3,4] x) => (float[3,4] y) { y = Einsum<equation = "ijk->i">(x) }',
        "g (float[3,4] x) => (float[3,4] y) { y = Concat<axis = 3>(x, x) }",
        "g (float[3,4] x) => (float[3,4] y) { y = BatchNormalization(x, x, x, x, x) }",
        "g (float[3,4] x) => (float[3,4] y) { y = TopK(x, x) }",
        "g (float[3,4] x) => (float[3,4] y) { y = LayerNormalization<axis = 4>(x, x) }",
        "g (float[3,4] x) => (float[3,4] y) { s = SequenceConstruct(x) y = Relu(s) }",
        "g (float[3,4] x) => (float[3,4] y) { s = SequenceConstruct(x) i = Constant<value = int64 {3}>() y = SequenceAt(s, i) }",
    ],
)
def test_a_node_that_breaks_its_rules_is_undecided_and_named(text: str) -> None:
    with pytest.raises(Undecided) as caught:
        float64(model(text), FEEDS)
    assert caught.value.node
