"""Copies in int8: which are accepted under ``--allow int8``, and what is named in those that are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from graphcheck import compare
from graphcheck.verdict import Comparison, Verdict
from tests.zoo.quantized import COPIES, NETS, one_step, packed, quantized

ACCEPTED = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)


@functools.cache
def pair(net: str, kind: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A net and a copy, to be read only."""
    model = NETS[net]()
    return model, quantized(model, **COPIES[kind])


def compared(a: onnx.ModelProto, b: onnx.ModelProto, *allow: str) -> Comparison:
    return compare(a, b, allow=allow, run=False, graphs=False)


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("net", ["mlp", "cnn", "relu6", "vit"])
def test_a_right_copy_is_accepted(net: str, kind: str) -> None:
    found = compared(*pair(net, kind), "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    precision = found.evidence["precision"]
    assert precision["constants"] >= 2 and precision["activations"] >= 2 and not precision["off"]


@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator"])
def test_only_where_it_is_allowed(kind: str) -> None:
    for allow in ((), ("float16",), ("int4",)):
        found = compared(*pair("mlp", kind), *allow)
        assert found.verdict not in ACCEPTED
        assert allow or "the same function but for int8: --allow int8 accepts that" in found.reason


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)).copy()


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array.astype(numpy_helper.to_array(tensor).dtype), name))


def doubled(scale: np.ndarray) -> np.ndarray:
    return scale * np.where(np.arange(scale.size) == scale.size // 2, 2, 1).reshape(scale.shape).astype(scale.dtype)


def moved(zero: np.ndarray) -> np.ndarray:
    return zero + (np.arange(zero.size) == 0).reshape(zero.shape).astype(zero.dtype)


CONSTANTS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "one step of one weight": ("w1_quantized", one_step),
    "two columns swapped": ("w1_quantized", lambda q: q[..., [1, 0, *range(2, q.shape[-1])]]),
    "another order": ("w1_quantized", lambda q: np.ascontiguousarray(q[::-1])),
    "a scale doubled": ("w1_scale", doubled),
    "a zero point": ("w1_zero_point", moved),
    "half of the rows": ("w1_quantized", lambda q: np.where(np.arange(q.shape[-1]) % 2, q, q.flat[0])),
}


SPOILT = [
    *(("mlp", kind) for kind in ("dynamic", "dynamic, per channel", "QDQ", "QOperator", "QOperator, per channel")),
    *(("cnn", kind) for kind in ("QDQ", "QDQ, per channel")),
]


@pytest.mark.parametrize(("net", "kind"), SPOILT)
@pytest.mark.parametrize("damage", CONSTANTS)
def test_a_spoilt_constant_is_named(net: str, kind: str, damage: str) -> None:
    a, copy = pair(net, kind)
    spoilt = onnx.ModelProto.FromString(copy.SerializeToString())
    name, change = CONSTANTS[damage]
    own = next(t.name for t in spoilt.graph.initializer if t.name.endswith("_quantized") and len(t.dims) > 1)
    name = own if name == "w1_quantized" else name.replace("w1_", own.removesuffix("quantized"))
    put(spoilt, name, change(stored(spoilt, name)))
    found = compared(a, spoilt, "int8")
    assert found.verdict not in ACCEPTED, found.reason
    off = found.evidence["precision"]["off"]
    assert own in [row["b"] for row in off] and "steps from" in off[0]["reason"]


def test_truncated_weights_are_named() -> None:
    a, copy = pair("mlp", "QDQ")
    spoilt = onnx.ModelProto.FromString(copy.SerializeToString())
    put(spoilt, "w1_quantized", np.trunc(stored(a, "w1") / stored(copy, "w1_scale")))
    (row,) = compared(a, spoilt, "int8").evidence["precision"]["off"]
    assert row["b"] == "w1_quantized" and row["index"] is not None


def small(body: str, *, opset: int = 21, out: str = "float[N,4] y", **constants: object) -> onnx.ModelProto:
    """A net of x [N, 4] in ONNX text."""
    text = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]> g (float[N,4] x) => ({out}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, value in constants.items():
        array = np.asarray(value)
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32) if array.dtype == float else array, name))
    return model


W = np.random.default_rng(7).standard_normal((4, 4)).astype(np.float32)
S = np.float32(np.abs(W).max() / 127)
Q = np.rint(W / S).astype(np.int8)


@pytest.mark.parametrize(("zero", "dtype"), [(0, np.int8), (128, np.uint8)])
def test_the_sign_of_the_type_is_no_matter(zero: int, dtype: type) -> None:
    body = "q = QuantizeLinear (x, sx, z) d = DequantizeLinear (q, sx, z) w = DequantizeLinear (v, s, z) y = MatMul (d, w)"
    copy = small(body, sx=0.1, s=S, z=np.array(zero, dtype), v=(Q.astype(int) + zero).astype(dtype))
    found = compared(small("y = MatMul (x, w)", w=W), copy, "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    other = small(body, sx=0.1, s=S, z=np.array(0, np.int8), v=Q)
    assert compared(other, copy, "int8").verdict in ACCEPTED  # the one is a copy of the other


def test_of_two_copies_none_is_one_step_off() -> None:
    body = "w = DequantizeLinear (v, s) y = MatMul (x, w)"
    one, two = small(body, s=S, v=Q), small(body, s=S, v=one_step(Q))
    found = compared(one, two, "int8")
    assert found.verdict not in ACCEPTED and found.evidence["precision"]["off"]


QDQ = "q = QuantizeLinear ({0}, s, z) d = DequantizeLinear (q, {1}, {2}) y = {3}"
ZERO, LEAST = np.array(10, np.uint8), np.array(0, np.uint8)
WRONG = {
    "another scale": ("y = Relu (x)", QDQ.format("x", "t", "z", "Relu (d)"), ZERO),
    "another zero point": ("y = Relu (x)", QDQ.format("x", "s", "u", "Relu (d)"), ZERO),
    "a Relu that its range does not start at": ("y = Relu (x)", QDQ.format("x", "s", "z", "Identity (d)"), ZERO),
    "a range that is a Relu": ("y = Neg (x)", QDQ.format("x", "s", "z", "Neg (d)"), LEAST),
    "a Clip that its range does not lie within": ("y = Clip (x, l, h)", QDQ.format("x", "s", "z", "Identity (d)"), LEAST),
}
RIGHT = {
    "as it is": ("y = Neg (x)", QDQ.format("x", "s", "z", "Neg (d)"), np.array(120, np.uint8)),
    "a Relu in its range": ("y = Relu (x)", QDQ.format("x", "s", "z", "Identity (d)"), LEAST),
    "a Relu before": ("y = Relu (x)", "r = Relu (x) " + QDQ.format("r", "s", "z", "Identity (d)"), LEAST),
    "what is positive": ("y = Sigmoid (x)", "r = Sigmoid (x) " + QDQ.format("r", "s", "z", "Identity (d)"), LEAST),
    "a Clip in its range": ("y = Clip (x, l, g)", QDQ.format("x", "s", "z", "Identity (d)"), LEAST),
}


@pytest.mark.parametrize("case", [*WRONG, *RIGHT])
def test_where_a_quantizer_may_stand(case: str) -> None:
    plain, body, zero = {**WRONG, **RIGHT}[case]
    given = {"s": 0.02, "t": 0.03, "z": zero, "u": zero + np.uint8(1), "l": 0.0, "h": 4.0, "g": 6.0}

    def made(text: str) -> onnx.ModelProto:
        words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
        return small(text, **{name: value for name, value in given.items() if name in words})

    found = compared(made(plain), made(body), "int8")
    assert (found.verdict in ACCEPTED) == (case in RIGHT), found.reason
    assert case != "a range that is a Relu" or ("QuantizeLinear" in found.reason and "whose range ends at 0" in found.reason)


def test_the_scale_of_another_tensor_is_not_forgiven() -> None:
    def dynamic(scale: str, zero: str = "z1") -> onnx.ModelProto:
        return small(
            f"""q1, s1, z1 = DynamicQuantizeLinear (x) h = Exp (x) q2, s2, z2 = DynamicQuantizeLinear (h)
            p = MatMulInteger (q1, v, {zero}) f = Cast <to = 1> (p) t = Mul ({scale}, s) y1 = Mul (f, t)
            e = DequantizeLinear (q2, s2, z2) y = Add (y1, e)""",
            s=S,
            v=Q,
        )

    plain = small("p = MatMul (x, w) h = Exp (x) y = Add (p, h)", w=W)
    assert compared(plain, dynamic("s1"), "int8").verdict is Verdict.WITHIN_ROUNDING
    assert compared(plain, dynamic("s2"), "int8").verdict not in ACCEPTED
    assert compared(plain, dynamic("s1", "z2"), "int8").verdict not in ACCEPTED


def test_a_choice_behind_a_quantizer_is_not_forgiven() -> None:
    plain = small("h = MatMul (x, w) y = ArgMax <axis = 1> (h)", out="int64[N,1] y", w=W)
    body = "q = QuantizeLinear (x, sx, z) d = DequantizeLinear (q, sx, z) w = DequantizeLinear (v, s) h = MatMul (d, w)"
    copy = small(body + " y = ArgMax <axis = 1> (h)", out="int64[N,1] y", sx=0.1, s=S, z=np.array(3, np.int8), v=Q)
    found = compared(plain, copy, "int8")
    assert found.verdict not in ACCEPTED and "reaches" in found.reason


def test_clipped_weights_are_counted() -> None:
    scale = np.float32(np.sort(np.abs(W).ravel())[-3] / 127)  # two of them are cut off
    clipped = np.clip(np.rint(W / scale), -127, 127).astype(np.int8)
    body = "w = DequantizeLinear (v, s) y = MatMul (x, w)"
    found = compared(small("y = MatMul (x, w)", w=W), small(body, s=scale, v=clipped), "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["cut"] == 2
    at = np.unravel_index(np.argmax(np.abs(W)), W.shape)
    clipped[at] = -clipped[at]
    assert compared(small("y = MatMul (x, w)", w=W), small(body, s=scale, v=clipped), "int8").verdict not in ACCEPTED


def test_what_lies_beyond_a_range_in_most_elements_is_no_rounding() -> None:
    scale = np.float32(np.sort(np.abs(W).ravel())[-4] / 127)  # three of 16 are cut off
    clipped = np.clip(np.rint(W / scale), -127, 127).astype(np.int8)
    copy = small("w = DequantizeLinear (v, s) y = MatMul (x, w)", s=scale, v=clipped)
    found = compared(small("y = MatMul (x, w)", w=W), copy, "int8")
    assert found.verdict not in ACCEPTED and "3 of 16 elements lie beyond the range of its int8" in found.reason


@pytest.mark.parametrize(("scale", "accepted"), [(0.04, True), (0.002, False)])
def test_a_quantizer_that_saturates_is_no_rounding(scale: float, accepted: bool) -> None:
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=scale, z=np.array(0, np.int8))
    found = compared(small("y = Neg (x)"), copy, "int8")
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted
    assert accepted or ("but QuantizeLinear" in found.reason and "more than rounding does" in found.reason)


def test_one_draw_of_few_numbers_does_not_show_what_a_quantizer_cuts_off() -> None:
    """The first input drawn is 0 behind the Relu everywhere."""
    weights = np.repeat(-np.random.default_rng(0).standard_normal((2, 4)).sum(axis=0)[:, None], 4, axis=1)
    net = "p = MatMul (x, w) r = Relu (p) "
    copy = small(net + QDQ.format("r", "s", "z", "Neg (d)"), w=weights, s=1e-3, z=np.array(0, np.int8))
    found = compared(small(net + "y = Neg (r)", w=weights), copy, "int8")
    assert found.verdict not in ACCEPTED and "but QuantizeLinear" in found.reason


def test_what_a_quantizer_cuts_off_is_counted_beside_the_zeros_of_a_relu() -> None:
    """One element in fifteen is no zero, and each of them is cut off."""
    net = "c = Sub (x, b) r = Relu (c) "
    plain, b = small(net + "y = Neg (r)", b=np.float32(1.5)), np.float32(1.5)
    copy = small(net + QDQ.format("r", "s", "z", "Neg (d)"), b=b, s=1e-4, z=np.array(-128, np.int8))
    found = compare(plain, copy, allow=["int8"], shapes={"x": (256, 4)}, graphs=False)
    assert found.verdict not in ACCEPTED and "but QuantizeLinear" in found.reason, found.reason


def test_a_table_that_is_gathered_from() -> None:
    text = """<ir_version: 10, opset_import: ["" : 21]> g (int64[N] i, float[N,4] x) => (float[N,4] y) {{ {0} y = Add (e, x) }}"""

    def made(body: str, **constants: np.ndarray) -> onnx.ModelProto:
        model = onnx.parser.parse_model(text.format(body))
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items())
        return model

    plain = made("e = Gather (w, i)", w=W)
    turned = made("g = Gather (w, i) t = Transpose (g) e = Transpose (t)", w=W)
    for q, accepted in ((Q, True), (one_step(Q), False)):
        copy = made("g = Gather (v, i) e = DequantizeLinear (g, s)", v=q, s=S)
        assert (compared(plain, copy, "int8").verdict in ACCEPTED) == accepted
        body = "g = Gather (v, i) t = Transpose (g) d = DequantizeLinear (t, s, z) e = Transpose (d)"
        copy = made(body, v=(q.astype(np.int64) + 128).astype(np.uint8), s=S, z=np.uint8(128))  # as its quantizer moves it behind
        assert (compared(turned, copy, "int8").verdict in ACCEPTED) == accepted


@pytest.mark.parametrize("kind", ["dynamic", "QDQ", "QOperator", "dynamic, per channel"])
def test_steps_that_are_allowed_are_counted(kind: str) -> None:
    plain, copy = pair("mlp", kind)
    copy = onnx.ModelProto.FromString(copy.SerializeToString())
    right = stored(copy, "w1_quantized")
    put(copy, "w1_quantized", one_step(right))
    assert compared(plain, copy, "int8").verdict not in ACCEPTED
    found = compared(plain, copy, "int8", "steps=1")
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["moved"] == 1, found.reason
    assert "1 off by steps that are allowed" in found.reason
    put(copy, "w1_quantized", right + 2 * (one_step(right) - right))
    found = compared(plain, copy, "int8", "steps=1")
    assert found.verdict not in ACCEPTED and "nor within 1 of it" in found.reason
    assert compared(plain, copy, "int8", "steps=3").verdict in ACCEPTED


GELU = "e = Erf (d) o = Add (e, one) p = Mul (f, o) y = Mul (p, half)"


@pytest.mark.parametrize("body", [f"d = Mul (f, inv) {GELU}", "y = com.microsoft.Gelu (f)"])
def test_factors_that_stand_elsewhere_beside_the_step_of_a_quantizer(body: str) -> None:
    numbers = {"root": np.sqrt(2), "inv": 1 / np.sqrt(2), "one": 1.0, "half": 0.5, "b": np.linspace(-1, 1, 4)}
    numbers = {name: np.asarray(x, np.float32) for name, x in numbers.items()}
    plain = small(f"f0 = MatMul (x, w) f = Add (f0, b) d = Div (f, root) {GELU}", w=W, **numbers)
    whole = "q, sx, z = DynamicQuantizeLinear (x) i = MatMulInteger (q, v, z) f1 = Cast <to = 1> (i)"
    for steps, accepted in ((Q, True), (one_step(Q), False)):
        copy = small(f"{whole} t = Mul (sx, s) f0 = Mul (f1, t) f = Add (f0, b) {body}", v=steps, s=S, **numbers)
        found = compared(plain, copy, "int8")
        assert (found.verdict in ACCEPTED) == accepted, found.reason


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (1.0005, False)])
@pytest.mark.parametrize("tail", [GELU, "u = Tanh (d) y = Add (u, f)"])
def test_half_a_step_hides_no_divisor(tail: str, factor: float, accepted: bool) -> None:
    numbers = {"one": np.float32(1), "half": np.float32(0.5)} if tail is GELU else {}
    plain = small(f"f = MatMul (x, w) d = Div (f, root) {tail}", w=W, root=np.sqrt(2), **numbers)
    body = f"w = DequantizeLinear (v, s) f = MatMul (x, w) d = Div (f, root) {tail}"
    found = compared(plain, small(body, s=S, v=Q, root=factor * np.sqrt(2), **numbers), "int8")
    assert (found.verdict in ACCEPTED) == accepted, found.reason


@pytest.mark.parametrize("axis", [0, 1])
def test_an_axis_that_is_not_the_weights(axis: int) -> None:
    scales = (np.abs(W).max(axis=0) / 127).astype(np.float32)
    q = np.rint(W / scales).astype(np.int8)
    copy = small(f"w = DequantizeLinear <axis = {axis}> (v, s) y = MatMul (x, w)", s=scales, v=q)
    found = compared(small("y = MatMul (x, w)", w=W), copy, "int8")
    assert (found.verdict in ACCEPTED) == (axis == 1), found.reason
    assert axis == 1 or found.evidence["precision"]["off"][0]["b"] == "v"


@pytest.mark.parametrize(("factor", "accepted"), [(1.0, True), (1.0001, False)])
def test_half_a_step_hides_no_other_constant(factor: float, accepted: bool) -> None:
    gain = np.array([0.7, 1.1, 1.9, 0.3])
    body = "q, sx, z = DynamicQuantizeLinear (x) p = MatMulInteger (q, v, z) f = Cast <to = 1> (p) t = Mul (sx, s) h = Mul (f, t)"
    copy = small(body + " y = Mul (h, g)", s=S, v=Q, g=gain * factor)
    found = compared(small("h = MatMul (x, w) y = Mul (h, g)", w=W, g=gain), copy, "int8")
    assert (found.verdict in ACCEPTED) == accepted, found.reason


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_in_few_bits(bits: int, symmetric: bool) -> None:
    model = NETS["mlp"]()
    copy = packed(model, bits, symmetric=symmetric)
    found = compared(model, copy, f"int{bits}")
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    assert found.evidence["precision"]["constants"] == 2 and not found.evidence["precision"]["activations"]
    assert compared(model, copy, "float16").verdict not in ACCEPTED
    assert f"--allow int{bits} accepts that" in compared(model, copy).reason
    name = next(t.name for t in copy.graph.initializer if t.data_type == onnx.TensorProto.UINT8 and len(t.dims) == 3)
    put(copy, name, stored(copy, name) ^ (np.arange(stored(copy, name).size) == 5).reshape(stored(copy, name).shape) * 2)
    found = compared(model, copy, f"int{bits}")
    assert found.verdict not in ACCEPTED
    (row,) = found.evidence["precision"]["off"]
    assert row["a"] == "w1" and row["index"] is not None


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_recurrent_net(spoilt: bool) -> None:
    a, copy = pair("lstm", "dynamic")
    copy = onnx.ModelProto.FromString(copy.SerializeToString())
    assert "DynamicQuantizeLSTM" in [node.op_type for node in copy.graph.node]
    name = next(node.input[2] for node in copy.graph.node if node.op_type == "DynamicQuantizeLSTM")
    if spoilt:
        put(copy, name, one_step(stored(copy, name)))
    found = compared(a, copy, "int8")
    assert (found.verdict in ACCEPTED) != spoilt, found.reason
    assert not spoilt or name in [row["b"] for row in found.evidence["precision"]["off"]]


def test_what_is_off_and_what_stayed_is_told() -> None:
    model = NETS["mlp"]()
    copy = quantized(model, "QDQ", folds=False, nodes_to_exclude=["MatMul_3"])
    found = compared(model, copy, "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["kept"] == ["w2"], found.reason
    put(copy, "w1_quantized", one_step(stored(copy, "w1_quantized")))
    precision = compared(model, copy, "int8").evidence["precision"]
    assert 0.5 < precision["off"][0]["by"] < 1.5


def test_a_lost_bias_is_told_by_the_node_behind_it() -> None:
    model, copy = pair("mlp", "QDQ, per channel")
    copy = onnx.ModelProto.FromString(copy.SerializeToString())
    put(copy, "b1_quantized", stored(copy, "b1_quantized") * 0)
    found = compared(model, copy, "int8")
    assert found.verdict not in ACCEPTED and found.evidence["precision"]["parts"]["node"].startswith("r_")


@pytest.mark.parametrize("kind", ["QDQ", "QDQ, unsigned", "QOperator"])
@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_what_onnxruntime_makes_of_a_copy_is_that_copy(kind: str, level: str, tmp_path: Path) -> None:
    """Channels last, a MaxPool of whole numbers, a Relu that a range takes over: proved, and accepted beside the plain model."""
    plain, copy = pair("cnn", kind)
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "made.onnx"), 4
    ort.InferenceSession(copy.SerializeToString(), options)
    made = onnx.load(tmp_path / "made.onnx")
    assert compared(copy, made).verdict in (Verdict.IDENTICAL, Verdict.PROVED)
    assert compared(plain, made, "int8").verdict is Verdict.WITHIN_ROUNDING
