"""The node at which a spoilt copy in lower precision parts from its model is the one that is wrong, not one behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from tests.test_quantized_copies import compared
from tests.zoo.mutations import mutate
from tests.zoo.quantized import COPIES, NETS, packed, quantized

NAMED = {
    # a reordering that the model has nowhere, of what it has
    ("lstm", "dynamic", "two elements swapped"): "Gather_3_of_the_mutation",
    # what was quantized is known by the operator that did, whose own result is whole numbers
    ("cnn", "QOperator", "residual rewired"): "Add_7_quant",
    ("vit", "QOperator", "heads swapped"): "MatMul_17_quant",
    # what it reads is a rearrangement of what the model has once constant factors are gathered
    ("cnn", "QDQ", "Relu on one element"): "PRelu_3_of_the_mutation",
    # an addition of nothing gives what the model has
    ("mlp", "dynamic", "bias dropped"): "Relu_2",
}


def parts(net: str, kind: str, change: str) -> dict[str, Any]:
    model = NETS[net]()
    mutant = mutate(model, change, 0)
    assert mutant is not None
    found = compared(model, quantized(mutant[0], **COPIES[kind]), "int8")
    assert found.verdict.value in ("undecided", "different")
    node: dict[str, Any] = found.evidence["precision"]["parts"]
    return node


@pytest.mark.parametrize(("net", "kind", "change"), NAMED)
def test_the_wrong_node_is_named(net: str, kind: str, change: str) -> None:
    assert parts(net, kind, change)["node"] == NAMED[net, kind, change]


def test_what_is_lost_is_named_where_the_copy_has_nothing_of_its_own() -> None:
    """The bias of the last layer is 0: what the product gives is there in the model, before its own bias is added."""
    model = NETS["mlp"]()
    copy = quantized(model, **COPIES["QOperator"])
    bias = next(t for t in copy.graph.initializer if t.name == "b2_quantized")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * 0, bias.name))
    found = compared(model, copy, "int8")
    lost = {"node": "Add_4", "op_type": "Add"}
    assert found.evidence["precision"]["parts"] == {"node": None, "op_type": None, "lost": lost}
    assert "the first node that B does not have is 'Add_4'" in found.reason


EXPANDED = """<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2, 4] y)
    <float[1, 4] token = {{1.1, {0}, 1.3, 1}}, int64[2] twice = {{2, 4}}> {{ t = Expand (token, twice) y = Mul (x, t) }}"""


def test_a_constant_has_the_name_that_is_stored() -> None:
    """Not that of a tensor in which it is repeated."""
    found = compared(onnx.parser.parse_model(EXPANDED.format(0.9)), halves(EXPANDED.format(0.91)), "float16")
    (off,) = found.evidence["precision"]["off"]
    assert (off["a"], off["b"], off["index"]) == ("token", "token", [0, 1])


def halves(text: str) -> onnx.ModelProto:
    """A copy in float16 of a model given as text."""
    copy = onnx.parser.parse_model(text)
    for tensor in (t for t in copy.graph.initializer if t.data_type == onnx.TensorProto.FLOAT):
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for port in (*copy.graph.input, *copy.graph.output):
        port.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return copy


NORMALIZED = """<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2, 4] y)
    <float[4] w = {{1.1, 0.9, 1.3, 1}}> {{ h = Mul (x, x) n = LayerNormalization <epsilon = {0}> (h, w) y = Relu (n) }}"""


def test_the_node_is_named_where_an_attribute_is_off() -> None:
    """No tensor holds it; the constant is said to be none."""
    found = compared(onnx.parser.parse_model(NORMALIZED.format("1e-5")), halves(NORMALIZED.format("1e-3")), "float16")
    precision = found.evidence["precision"]
    assert precision["same"] and [(row["a"], row["b"]) for row in precision["off"]] == [(None, None)]
    assert precision["parts"]["node"] == "LayerNormalization(n)"
    assert "a constant that no tensor holds (the first node that A does not have is 'LayerNormalization(n)')" in found.reason
    right = compared(onnx.parser.parse_model(NORMALIZED.format("1e-5")), halves(NORMALIZED.format("1e-5")), "float16")
    assert right.verdict.value == "within-rounding" and right.evidence["precision"]["parts"] is None


ALIKE = """<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] x) => (float[2, 4] y)
    <float one = {{1.4142}}, float two = {{1.4142}}> {{ a = Div (x, one) b = Tanh (a) y = {0} (b, two) }}"""


@pytest.mark.parametrize("swapped", [False, True])
def test_of_constants_that_are_alike_the_one_that_is_read_is_named(swapped: bool) -> None:
    """In whichever of the two the copy is."""
    models = [onnx.parser.parse_model(ALIKE.format("Div")), halves(ALIKE.format("Mul"))][:: -1 if swapped else 1]
    found = compared(*models, "float16")
    precision = found.evidence["precision"]
    assert [row["ba"[swapped]] for row in precision["off"]] == ["two"] and precision["parts"]["node"] == "Mul(y)"
    assert "not rounded so: 'two' at [] (the first node" in found.reason


def blocks(left_out: bool, curve: str) -> str:
    """Three layers beside which their operand goes on, of which the second may be left out."""
    rng, stored, steps = np.random.default_rng(3), ["float low = {-9}", "float high = {9}"], []
    for i in range(3):
        w = ", ".join(f"{v:.3f}" for v in rng.standard_normal(16).round(1))
        stored.append(f"float[4, 4] w{i} = {{{w}}}")
        steps.append(f"m{i} = MatMul (h{i}, w{i}) r{i} = {curve.format(f'm{i}')} ")
        steps[-1] += f"h{i + 1} = Identity (h{i}) " if left_out and i == 1 else f"h{i + 1} = Add (h{i}, r{i}) "
    head = '<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] h0) => (float[2, 4] y)'
    return f"{head} <{', '.join(stored)}> {{ {''.join(steps)} y = Neg (h3) }}"


@pytest.mark.parametrize("curve", ["Tanh ({})", "Clip ({}, low, high)"])
def test_behind_a_layer_that_was_dropped_the_next_weights_are_not_taken_for_its_own(curve: str) -> None:
    """They are at its place, and are off: nothing is known of what is made of them. Nor is a node named that nothing needs."""
    found = compared(onnx.parser.parse_model(blocks(False, curve)), halves(blocks(True, curve)), "float16")
    assert found.verdict.value in ("undecided", "different")
    parts = found.evidence["precision"]["parts"]
    assert (parts["node"], parts["lost"]["node"]) == ("MatMul(m2)", "MatMul(m1)")
    assert "does not have is 'MatMul(m2)', and the first that B does not have is 'MatMul(m1)'" in found.reason


def test_a_weight_in_int4_has_its_name_also_behind_a_factor() -> None:
    """Its elements stand two in a byte, and the model has a product of it."""
    rng = np.random.default_rng(2)
    arrays = {"w": rng.standard_normal((32, 16)).astype(np.float32), "s": rng.uniform(1, 2, 16).astype(np.float32)}
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["h"], "product"), onnx.helper.make_node("Mul", ["h", "s"], ["y"])]
    ports = [onnx.helper.make_tensor_value_info(n, 1, [2, size]) for n, size in (("x", 32), ("y", 16))]
    stored = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "scaled", ports[:1], ports[1:], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    copy = packed(model)
    assert compared(model, copy, "int4").verdict.value == "within-rounding"
    weight = next(t for t in copy.graph.initializer if t.name.endswith("_Q4"))
    bytes_ = onnx.numpy_helper.to_array(weight).copy()
    bytes_.reshape(-1)[5] ^= 4
    weight.CopyFrom(onnx.numpy_helper.from_array(bytes_, weight.name))
    found = compared(model, copy, "int4")
    assert found.verdict.value != "within-rounding"
    assert [row["b"] for row in found.evidence["precision"]["off"]] == ["w_Q4"] and "'w_Q4'" in found.reason
