"""Nodes that look alike and are not: none of these pairs may be called equal."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from graphcheck.api import compare
from graphcheck.verdict import Verdict

HEADER = '<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1, "foo": 1]>\n'
EQUAL = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
X = "a (float[2,4] x) => (float[2,4] y) "
DROPOUT = X + "<float r = {0.5}, bool t = {1}> { y = com.microsoft.BiasDropout(x, x, , r, t) }"


def stored(kind: int) -> onnx.ModelProto:
    """DequantizeLinear of the same bytes as another type."""
    weight = onnx.TensorProto(name="w", data_type=kind, dims=[80], raw_data=bytes(range(10, 90)))
    node = helper.make_node("DequantizeLinear", ["w", "s"], ["y"])
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("s", []), ("y", [80]))]
    graph = helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def verdict(a: str | onnx.ModelProto, b: str | onnx.ModelProto) -> Verdict:
    read = [onnx.parser.parse_model(HEADER + m) if isinstance(m, str) else m for m in (a, b)]
    return compare(*read, run=False, graphs=False).verdict


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (X + "{ y = foo.Conv<strides = [1,1]>(x) }", X + "{ y = foo.Conv(x) }"),
        (X + "{ y = foo.Op<alpha = 1>(x) }", X + "{ y = foo.Op<alpha = 1.0>(x) }"),
        (X + "{ y = foo.Op<alpha = 0.0>(x) }", X + "{ y = foo.Op<alpha = -0.0>(x) }"),
        (DROPOUT, DROPOUT.replace("y = com", "z = com").replace(" }", " y = Identity(z) }")),
        (
            "a (float[4,3] x) => (float[1,3] y) <int64[2] s = {1,1}> { y, z = Split<axis = 0>(x, s) }",
            "a (float[4,3] x) => (float[1,3] y) <int64[1] i = {0}> { y = Gather<axis = 0>(x, i) }",
        ),
        (stored(TensorProto.FLOAT8E4M3FN), stored(TensorProto.FLOAT8E4M3FNUZ)),
    ],
    ids=["defaults", "integer", "zero", "random", "split", "type"],
)
def test_they_are_not_called_equal(a: str | onnx.ModelProto, b: str | onnx.ModelProto) -> None:
    assert verdict(a, b) not in EQUAL


def test_their_own_copies_are() -> None:
    model = X + "{ y = foo.Op<alpha = 1>(x) }"
    assert verdict(model, model) in EQUAL
