"""Copies in int16, as NPUs take them: activations alone, or weights as well, and what is named in those that are spoilt."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck import compare
from graphcheck.verdict import Comparison, Verdict
from tests.test_quantized_copies import ACCEPTED, CONSTANTS, QDQ, compared, put, small, stored
from tests.zoo.quantized import NETS, quantized

TYPES = {"activation_type": "QInt16", "weight_type": "QInt16"}
HALF = {"activation_type": "QUInt16", "weight_type": "QInt8"}
CONTRIB = {"extra_options": {"UseQDQContribOps": True}}


@functools.cache
def net(name: str) -> onnx.ModelProto:
    return NETS[name]()


@pytest.mark.parametrize("options", [TYPES, HALF, HALF | CONTRIB, TYPES | {"per_channel": True}], ids=str)
@pytest.mark.parametrize("name", ["mlp", "relu6", "vit"])
def test_a_right_copy_is_accepted_where_its_formats_are_allowed(name: str, options: dict[str, Any]) -> None:
    copy = quantized(net(name), "QDQ", **options)
    found = compared(net(name), copy, "int16", "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["activations"], found.reason
    less = compared(net(name), copy, "int8")
    assert less.verdict not in ACCEPTED and "B seems to be in int16, which --allow does not name" in less.reason


@pytest.mark.parametrize("damage", CONSTANTS)
def test_a_spoilt_constant_is_named(damage: str) -> None:
    copy = quantized(net("mlp"), "QDQ", **TYPES)
    name, change = CONSTANTS[damage]
    put(copy, name, change(stored(copy, name)))
    found = compared(net("mlp"), copy, "int16")
    assert found.verdict not in ACCEPTED, found.reason
    assert "w1_quantized" in [row["b"] for row in found.evidence["precision"]["off"]]


def test_a_bias_counts_as_what_is_allowed() -> None:
    copy = quantized(net("mlp"), "QDQ", **TYPES)
    assert ": 4 constants and 3 quantizers of int16," in compared(net("mlp"), copy, "int16").reason


def at(copy: onnx.ModelProto, *allow: str) -> Comparison:
    """A copy of Neg at an input in -1..1."""
    return compare(small("y = Neg (x)"), copy, allow=allow, run=False, graphs=False, ranges={"x": (-1.0, 1.0)})


@pytest.mark.parametrize(("dtype", "low"), [("uint16", 0), ("int16", -(2**15)), ("uint8", 0), ("int8", -128)])
@pytest.mark.parametrize(("cut", "accepted"), [(1.4, True), (4.0, False)])
def test_a_range_that_cuts_off_half_of_itself_is_no_rounding(dtype: str, low: int, cut: float, accepted: bool) -> None:
    """At an input in -1..1, from 0.7 on (a few elements, or less than half of the range), and from 0.25 on."""
    steps = 2 ** int(dtype.removeprefix("u").removeprefix("int"))
    zero = np.array(low + steps // 2, dtype)
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=2 / cut / steps, z=zero)
    found = at(copy, "int16", "int8")
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason
    assert accepted or "cuts off" in found.reason


@pytest.mark.parametrize(("cut", "accepted"), [(1.4, True), (4.0, False)])
def test_a_range_of_int4_too(cut: float, accepted: bool) -> None:
    body = "q = QuantizeLinear <output_dtype = 21> (x, s, z) d = DequantizeLinear (q, s, z) y = Neg (d)"
    copy = small(body, s=2 / cut / 16)
    copy.graph.initializer.append(onnx.helper.make_tensor("z", onnx.TensorProto.UINT4, [], [8]))
    found = at(copy, "int4")
    assert (found.verdict is Verdict.WITHIN_ROUNDING) is accepted, found.reason
