"""The com.microsoft operators that onnxruntime's optimizers write, in float64 beside onnxruntime's own kernels."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ops_support import assert_agrees, float64, floats, model, node_model, run, values

import graphcheck
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import build
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

DOMAIN = "com.microsoft"
ROW = values((1, 8), 7).reshape(8)


def check(
    op: str,
    inputs: list[np.ndarray],
    attributes: dict[str, Any],
    constants: Any = (),
    outputs: int = 1,
    units: float = 64.0,
) -> None:
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    proto = node_model(op, inputs, attributes, 18, outputs, DOMAIN, constants)
    assert_agrees(proto, feeds, units=units)
    assert_agrees(proto, feeds, units=units, normalize=False)


@pytest.mark.parametrize(
    ("a", "b", "attributes"),
    [
        ((2, 3, 4), (2, 4, 5), {"alpha": 0.5}),
        ((2, 4, 3), (2, 5, 4), {"transA": 1, "transB": 1}),
        ((2, 3, 4), (4, 5), {}),
        ((3, 2, 4, 5), (2, 4, 5, 6), {"transBatchA": 1}),
        ((2, 3, 5, 4), (5, 2, 3, 6), {"transA": 1, "transBatchB": 1}),
    ],
)
def test_fused_matmul(a: tuple[int, ...], b: tuple[int, ...], attributes: dict[str, Any]) -> None:
    check("FusedMatMul", [values(a), values(b, 1)], attributes)


@pytest.mark.parametrize(
    "activation",
    [
        {},
        {"activation": "Relu"},
        {"activation": "Sigmoid"},
        {"activation": "Tanh"},
        {"activation": "LeakyRelu", "activation_params": [0.3]},
        {"activation": "Clip", "activation_params": [-0.5, 0.8]},
        {"activation": "HardSigmoid", "activation_params": [0.15, 0.4]},
    ],
)
def test_fused_conv(activation: dict[str, Any]) -> None:
    attributes = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 1, 1], **activation}
    check("FusedConv", [values((2, 3, 6, 5))], attributes, [values((4, 3, 3, 3), 1), floats(1, 2, 3, 4)])


@pytest.mark.parametrize("activation", ['"NoSuch"', '"Elu", activation_params = [0.5]'])
def test_an_activation_that_is_not_known_is_an_unknown_function(activation: str) -> None:
    def conv(pads: int, to: str) -> str:
        more = f"pads = [{pads}, {pads}, {pads}, {pads}], activation = {to}"
        return f"com.microsoft.FusedConv<kernel_shape = [3, 3], {more}>"

    head = "g (float[1,1,6,6] x, float[1,1,3,3] w) => (float[1,1,a,b] y)"
    other = '"Other"' if "NoSuch" in activation else '"Elu", activation_params = [0.25]'
    a = model(f"{head} {{ y = {conv(0, activation)}(x, w) }}")
    b = model(f"{head} {{ n = Neg(x) t = {conv(0, activation)}(m, w) m = Neg(n) y = Identity(t) }}")
    b.graph.node.insert(1, b.graph.node.pop(2))
    c = model(f"{head} {{ y = {conv(0, other)}(x, w) }}")
    proved = graphcheck.compare(a, b, run=False)
    assert proved.verdict == "proved"
    assert "is taken as an unknown function" in " ".join(proved.to_json()["proof"]["assumptions"])
    assert graphcheck.compare(a, c, run=False).verdict == "undecided"


def test_fused_conv_with_a_residual() -> None:
    attributes = {"kernel_shape": [1, 1], "activation": "Relu"}
    proto = node_model(
        "FusedConv",
        [values((1, 3, 4, 4))],
        attributes,
        18,
        1,
        DOMAIN,
        [values((3, 3, 1, 1), 1), floats(1, 2, 3), values((1, 3, 4, 4), 2)],
    )
    assert_agrees(proto, {"x0": values((1, 3, 4, 4))})


@pytest.mark.parametrize(
    "activation",
    [
        {"activation": "Relu"},
        {"activation": "LeakyRelu", "activation_alpha": 0.3},
        {"activation": "HardSigmoid", "activation_alpha": 0.15, "activation_beta": 0.4},
    ],
)
def test_fused_gemm(activation: dict[str, Any]) -> None:
    check(
        "FusedGemm",
        [values((3, 4))],
        {"transB": 1, "alpha": 0.5, "beta": 2.0, **activation},
        [values((5, 4), 1), floats(1, 2, 3, 4, 5)],
    )


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Gelu", [], {}),
        ("BiasGelu", [ROW], {}),
        ("FastGelu", [], {}),
        ("FastGelu", [ROW], {}),
        ("QuickGelu", [], {"alpha": 1.5}),
        ("QuickGelu", [], {}),
    ],
)
def test_gelus(op: str, constants: Any, attributes: Any) -> None:
    check(op, [values((2, 3, 8))], attributes, constants)


@pytest.mark.parametrize("bias", [[], [ROW]])
@pytest.mark.parametrize("outputs", [1, 4])
def test_skip_layer_normalization(bias: list[np.ndarray], outputs: int) -> None:
    inputs = [values((2, 3, 8)), values((2, 3, 8), 1)]
    feeds = {"x0": inputs[0], "x1": inputs[1]}
    proto = node_model("SkipLayerNormalization", inputs, {"epsilon": 1e-3}, 18, outputs, DOMAIN, [ROW, ROW + 1, *bias])
    if outputs == 4:  # onnxruntime computes the mean and the deviation in training only
        proto.graph.node[0].output[1:3] = ["", ""]
        del proto.graph.output[1:3]
    assert_agrees(proto, feeds)
    simple = node_model("SkipSimplifiedLayerNormalization", inputs, {"epsilon": 1e-3}, 18, 1, DOMAIN, [ROW, *bias])
    assert_agrees(simple, feeds)


@pytest.mark.parametrize("bias", [None, values((24,), 3)])
@pytest.mark.parametrize("scale", [{}, {"scale": 0.3}])
def test_attention(bias: np.ndarray | None, scale: dict[str, float]) -> None:
    check("Attention", [values((2, 5, 8))], {"num_heads": 2, **scale}, [values((8, 24), 1), bias])


@pytest.mark.parametrize("bias", [None, values((24,), 3)])
def test_multi_head_attention(bias: np.ndarray | None) -> None:
    inputs = [values((2, n, 8), n) for n in (5, 6)]
    inputs.append(values((2, 6, 8), 9))
    check("MultiHeadAttention", inputs, {"num_heads": 2}, [] if bias is None else [bias])
    scores = values((1, 1, 5, 6), 4)
    check("MultiHeadAttention", inputs, {"num_heads": 2, "scale": 0.2}, [bias, None, scores])


def test_an_attribute_that_is_not_known_makes_it_an_unknown_function() -> None:
    text = "g (float[2,4,8] x) => (float[2,4,8] y) {{ y = com.microsoft.QuickGelu<alpha = 1.0{}>(x) }}"
    feeds = {"x": values((2, 4, 8))}
    assert not float64(model(text.format("")), feeds)[0].opaque
    assert float64(model(text.format(", mystery = 1")), feeds)[0].opaque


def test_unidirectional_attention_is_not_taken_for_the_full_one() -> None:
    for unidirectional in (0, 1):
        x = values((1, 4, 8))
        proto = node_model(
            "Attention", [x], {"num_heads": 2, "unidirectional": unidirectional}, 18, 1, DOMAIN, [values((8, 24), 1)]
        )
        proto.graph.output[0].type.tensor_type.elem_type = 1
        for n in x.shape:
            proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = n
        assert float64(proto, {"x0": x})[0].opaque == bool(unidirectional)


QUANTIZED = """g (float[1,2,4,4] x) => (float[1,3,4,4] y) <
  float s = {0.02}, uint8 z = {120}, float sw = {0.01}, int8 zw = {0}, float sb = {0.0002}, int32 zb = {0}, float sy = {0.03}, uint8 zy = {110}, int32[3] b = {1000, -2000, 300}
> {
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  wi = DequantizeLinear(w, sw, zw)
  bi = DequantizeLinear(b, sb, zb)
  c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(d, wi, bi)
  e = QuantizeLinear(c, sy, zy)
  y = DequantizeLinear(e, sy, zy)
}"""


@pytest.mark.parametrize("level", ["EXTENDED", "ALL"])
def test_quantized_conv_as_the_levels_fuse_it(level: str, tmp_path: Path) -> None:
    """QDQ around a Conv becomes QLinearConv, with channels last at the level "all": at most one step of the output's scale apart,
    where a tie rounds."""
    import onnx
    import onnxruntime as ort

    proto = model(QUANTIZED)
    weight = np.random.default_rng(0).integers(-100, 100, (3, 2, 3, 3)).astype(np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(proto.SerializeToString(), options)
    fused = onnx.ModelProto.FromString((tmp_path / "fused.onnx").read_bytes())
    assert "QLinearConv" in {n.op_type for n in fused.graph.node}
    feeds = {"x": values((1, 2, 4, 4))}
    before, after = float64(proto, feeds)[0], float64(fused, feeds)[0]
    assert not before.opaque and not after.opaque
    assert np.abs(before.value - after.value).max() <= 0.0301
    assert np.mean(np.abs(before.value - after.value) > 1e-6) < 0.1


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_quantized_arithmetic(op: str) -> None:
    random = np.random.default_rng(1)
    a, b = (random.integers(0, 256, (3, 4)).astype(np.uint8) for _ in range(2))
    half = [np.asarray(0.03, np.float32), np.asarray(100, np.uint8)]
    text = f"""g (uint8[3,4] a, uint8[3,4] b) => (uint8[3,4] y) <float s = {{0.03}}, uint8 z = {{100}}, float t = {{0.05}}>
      {{ y = com.microsoft.{op}(a, s, z, b, s, z, t, z) }}"""
    feeds = {"a": a, "b": b}
    found = float64(model(text), feeds)[0].value
    real = [(x.astype(np.float64) - float(half[1])) * float(half[0]) for x in (a, b)]
    wanted = real[0] + real[1] if op == "QLinearAdd" else real[0] * real[1]
    assert np.array_equal(found, np.clip(np.rint(wanted / float(np.float32(0.05))) + 100, 0, 255))


CLASSIC = """g (float[2,5,8] x) => (float[2,5,8] y) <float[8] g = {1,2,3,4,5,6,7,8}, float[8] b = {0,1,0,1,0,1,0,1}, float two = {2}, float eps = {0.001}, float root = {1.4142135}, float one = {1}, float half = {0.5}> {
  mean = ReduceMean<axes = [-1]>(x)
  d = Sub(x, mean)
  p = Pow(d, two)
  v = ReduceMean<axes = [-1]>(p)
  e = Add(v, eps)
  s = Sqrt(e)
  n = Div(d, s)
  m = Mul(n, g)
  l = Add(m, b)
  q = Div(l, root)
  f = Erf(q)
  o = Add(f, one)
  w = Mul(l, o)
  y = Mul(w, half)
}"""


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
def test_what_onnxruntime_fuses_is_the_same_function(level: str, tmp_path: Path) -> None:
    import onnx
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    ort.InferenceSession(model(CLASSIC, 13).SerializeToString(), options)
    fused = onnx.ModelProto.FromString((tmp_path / "fused.onnx").read_bytes())
    if level == "EXTENDED":
        assert {n.op_type for n in fused.graph.node} == {"LayerNormalization", "Gelu"}
    feeds = {"x": values((2, 5, 8))}
    before, after = float64(model(CLASSIC, 13), feeds)[0], float64(fused, feeds)[0]
    # the stored 1.4142135 is one float32 rounding from Sqrt(2), as the fused Gelu has it
    assert np.abs(before.value - after.value).max() <= 4 * 2.0**-24 * np.abs(before.value).max()


def quantized_lstm(attributes: str, body: str = "z = Identity(x)", weight: int = 3) -> Any:
    head = "g (float[3,2,4] x) => (float[s,d,b,h] y, float[d1,b1,h1] h, float[d2,b2,h2] c)"
    scales = "float[1] sw = {0.02}, float[1] sr = {0.01}, int8[1] zw = {0}, int8[1] zr = {0}"
    lstm = f"com.microsoft.DynamicQuantizeLSTM<hidden_size = 5{attributes}>(z, w, r, , , , , , sw, zw, sr, zr)"
    proto = model(f"{head} <{scales}> {{ {body} y, h, c = {lstm} }}")
    for name, rows in (("w", 4), ("r", 5)):
        numbers = np.random.default_rng(weight).integers(-100, 100, (1, rows, 20)).astype(np.int8)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(numbers, name))
    return proto


def test_quantized_lstm_is_an_unknown_function_of_known_shapes() -> None:
    a = quantized_lstm("")
    feeds = {"x": values((3, 2, 4))}
    found = float64(a, feeds)
    assert all(y.opaque for y in found)
    assert [y.value.shape for y in found] == [y.shape for y in run(a, feeds)] == [(3, 1, 2, 5), (1, 2, 5), (1, 2, 5)]
    same = quantized_lstm(', direction = "forward", input_forget = 0', "n = Neg(x) z = Neg(n)")
    proved = graphcheck.compare(a, same, run=False)
    assert proved.verdict == "proved"
    assert "DynamicQuantizeLSTM is taken as an unknown function" in proved.to_json()["proof"]["assumptions"]
    others = quantized_lstm(', direction = "reverse"'), quantized_lstm("", "z = Neg(x)"), quantized_lstm("", weight=4)
    for other in others:
        assert graphcheck.compare(a, other, run=False).verdict == "undecided"


def one_row(proto: Any) -> Any:
    """The model at a batch of 1, where one scale is that of all rows whatever the threads do."""
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    return proto


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_quantized_lstm_of_one_row_is_spelled_out_where_graphs_part(direction: str) -> None:
    proto = one_row(quantized_lstm(f', direction = "{direction}"'))
    both, feeds = ir.from_proto(proto), {"x": values((3, 1, 4))}
    pair = build(both, both, {"x": ("x", (3, 1, 4))}, {}, spells=True)
    outputs = [y for y in pair.a.outputs if isinstance(y, Tensor)]
    found = evaluate(pair.terms, Float64({("input", "x"): feeds["x"]}), [y.cls for y in outputs])
    for y, shown in zip(outputs, run(proto, feeds), strict=True):
        real = found[pair.terms.find(y.cls)]
        assert np.abs(real.value.reshape(y.shape) - shown).max() < 1e-6 * np.abs(shown).max()
        assert real.error.max() < 1e-12


def test_quantized_lstms_of_one_row_are_told_apart_and_proved_as_unknown_functions() -> None:
    a, same = one_row(quantized_lstm("")), one_row(quantized_lstm("", "n = Neg(x) z = Neg(n)"))
    proved = graphcheck.compare(a, same)
    assert proved.verdict == "proved"
    assert "DynamicQuantizeLSTM is taken as an unknown function" in proved.to_json()["proof"]["assumptions"]
    for other in (quantized_lstm("", weight=4), quantized_lstm("", "z = Neg(x)")):
        assert graphcheck.compare(a, one_row(other)).verdict == "different"
    assert graphcheck.compare(quantized_lstm(""), quantized_lstm("", weight=4)).verdict == "undecided"  # threads decide there


@pytest.mark.parametrize("lstm", [True, False])
def test_an_unknown_function_of_integers_leaves_the_pair_undecided(lstm: bool) -> None:
    """What is drawn for integer inputs reads the keys of unknown functions, and so does the reason."""

    def proto(change: str) -> Any:
        cast = f"f = Cast<to = 1>(x) z = {change}(f)"
        if lstm:
            made = quantized_lstm("", cast)
            made.graph.input[0].type.tensor_type.elem_type = 7
            return made
        head = "g (int64[1,1,4,4] x) => (float[1,1,3,3] y) <float[1,1,2,2] w = {1, 2, 3, 4}>"
        return model(f'{head} {{ {cast} y = com.microsoft.FusedConv<activation = "NoSuch">(z, w) }}')

    found = graphcheck.compare(proto("Identity"), proto("Neg"))
    assert found.verdict == "undecided"
    assert not lstm or "float64 does not evaluate DynamicQuantizeLSTM" in str(found)


DYNAMIC = """g (float[2,3,4] x) => (float[2,3,5] y) <float[5] sb = {0.02, 0.01, 0.03, 0.01, 0.02}, float[5] other = {0.02, 0.01, 0.01, 0.03, 0.02},
  int8[5] zb = {0, 0, 0, 0, 0}, float[5] c = {1, 2, 3, 4, 5}, int8[4,5] b = {3, -7, 50, 100, -100, 1, 2, 3, 4, 5, 90, 80, 70, 60, 50, -9, -8, -7, -6, -5}> {"""
AS_EXPORTED = DYNAMIC + "q, s, z = DynamicQuantizeLinear(x) i = MatMulInteger(q, b, z, zb) f = Cast<to = 1>(i) t = Mul(s, sb) u = Mul(f, t) y = Add(c, u) }"


@pytest.mark.parametrize(
    "fused",
    [
        "y = com.microsoft.DynamicQuantizeMatMul(x, b, sb, zb, c)",
        "q, s, z = DynamicQuantizeLinear(x) y = com.microsoft.MatMulIntegerToFloat(q, b, s, sb, z, zb, c)",
        "t = com.microsoft.DynamicQuantizeMatMul(x, b, sb, zb) y = Add(t, c)",
    ],
)
def test_products_of_what_is_quantized_on_the_way(fused: str) -> None:
    a, b = model(AS_EXPORTED, 17), model(f"{DYNAMIC} {fused} }}", 17)
    feeds = {"x": values((2, 3, 4))}
    assert np.abs(float64(b, feeds)[0].value - run(b, feeds)[0]).max() < 1e-4
    assert graphcheck.compare(a, b, run=False).verdict == "proved"
    wrong = model(f"{DYNAMIC} {fused.replace('sb', 'other')} }}", 17)
    assert graphcheck.compare(a, wrong, run=False).verdict in ("different", "undecided")


@pytest.mark.parametrize("op", ["com.microsoft.Inverse", "com.microsoft.GridSample"])
def test_an_operator_that_nobody_knows_has_the_shape_that_onnxruntime_gives_it(op: str) -> None:
    def proto(first: str, body: str) -> onnx.ModelProto:
        inverse = op.endswith("Inverse")
        call = f"{op} ({first})" if inverse else f"{op} <mode = \"bilinear\"> ({first}, g)"
        inputs, shape = ("float[2,4,4] x", "float[2,4,4]") if inverse else ("float[2,1,4,4] x, float[2,3,5,2] g", "float[2,1,3,5]")
        return model(f"g ({inputs}) => ({shape} y) <float two = {{2.0}}, float half = {{0.5}}> {{ n = Neg(x) i = {call} {body} }}", 21)

    a, b = proto("x", "m = Mul(i, two) y = Relu(m)"), proto("x", "m = Div(i, half) y = Relu(m)")
    found = graphcheck.compare(a, b)
    assert found.verdict == "proved", found.reason
    name = op.replace("com.microsoft.", "")
    assert f"the shape of what com.microsoft.{name} gives is taken from onnxruntime" in found.evidence["proof"]["assumptions"]
    assert graphcheck.compare(a, proto("n", "m = Mul(i, two) y = Relu(m)")).verdict in ("undecided", "different")
    alone = graphcheck.compare(a, b, run=False)
    assert alone.verdict == "undecided" and f"the shape of what com.microsoft.{name} gives is not known" in alone.reason
