"""Copies in float8: weights that are cast, and quantizers with scales; each number is its partner's nearest, or it is named."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphcheck import compare
from graphcheck.kernel.proof.room import Roundings
from graphcheck.kernel.values.float64 import Real
from graphcheck.verdict import Comparison, Verdict
from tests.test_quantized_copies import ACCEPTED, W, small

KINDS = {
    "float8e4m3fn": (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
    "float8e4m3fnuz": (TensorProto.FLOAT8E4M3FNUZ, ml_dtypes.float8_e4m3fnuz),
    "float8e5m2": (TensorProto.FLOAT8E5M2, ml_dtypes.float8_e5m2),
    "float8e5m2fnuz": (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
}
CAST = "w = Cast <to = 1> (v) y = MatMul (x, w)"
SCALED = "q = QuantizeLinear (x, t, z) d = DequantizeLinear (q, t, z) w = DequantizeLinear (v, s, z) y = MatMul (d, w)"


def copied(kind: str, body: str, values: np.ndarray, scale: float = 1.0) -> onnx.ModelProto:
    """A copy with the weight ``values`` (numbers of the kind) stored in float8."""
    code, dtype = KINDS[kind]
    copy = small(body, **({"s": scale, "t": 0.02} if body is SCALED else {}))
    for name, array in {"v": values, **({"z": np.zeros(())} if body is SCALED else {})}.items():
        raw = array.astype(np.float32).astype(dtype).tobytes()
        copy.graph.initializer.append(helper.make_tensor(name, code, array.shape, raw, raw=True))
    return copy


def compared(copy: onnx.ModelProto, *allow: str, weight: np.ndarray = W) -> Comparison:
    return compare(small("y = MatMul (x, w)", w=weight), copy, allow=allow, run=False, graphs=False)


def rounded(kind: str, values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(KINDS[kind][1]).astype(np.float32)


@pytest.mark.parametrize("body", [CAST, SCALED])
@pytest.mark.parametrize("kind", KINDS)
def test_a_right_copy_is_accepted_and_one_number_that_is_the_next_is_named(kind: str, body: str) -> None:
    scale = np.float32(1.0 if body is CAST else 0.013)
    values = rounded(kind, W / scale)
    found = compared(copied(kind, body, values, scale), kind)
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    assert found.evidence["precision"]["constants"] == 1
    others = {name for name in KINDS if name[:10] != kind[:10]}  # the two of as many digits have most numbers in common
    for other in (set(), others, {"int8", "int4"}, {"float16", "bfloat16"}):
        assert compared(copied(kind, body, values, scale), *other).verdict not in ACCEPTED
    up = values.copy()
    up[1, 2] = np.nextafter(up[1, 2].astype(KINDS[kind][1]), KINDS[kind][1](100))
    found = compared(copied(kind, body, up, scale), kind)
    (row,) = found.evidence["precision"]["off"]
    assert found.verdict not in ACCEPTED and (row["b"], row["index"]) == ("v", [1, 2]), found.reason


@pytest.mark.parametrize("body", [CAST, SCALED])
@pytest.mark.parametrize(("at", "accepted"), [(0.97, True), (0.96, False), (1.06, True), (0.94, False), (1.07, False)])
def test_below_a_power_of_two_the_spacing_is_half(body: str, at: float, accepted: bool) -> None:
    """The neighbours of 1 are 0.9375 and 1.125: what rounds to it lies from 0.96875 to 1.0625."""
    weight = np.full((4, 4), 2.0, np.float32)
    weight[0, 0] = at
    values = np.full((4, 4), 2.0)
    values[0, 0] = 1.0
    found = compared(copied("float8e4m3fn", body, values), "float8e4m3fn", weight=weight)
    assert (found.verdict in ACCEPTED) is accepted, found.reason


@pytest.mark.parametrize("body", [CAST, SCALED])
def test_what_is_too_large_is_cut_and_what_is_tiny_is_held_to_its_rounding(body: str) -> None:
    weight = W.copy()
    weight[0, 0], weight[1, 1] = 1000.0, 2.0**-9 * 0.6
    values = rounded("float8e4m3fn", np.clip(weight, -448, 448))
    found = compared(copied("float8e4m3fn", body, values), "float8e4m3fn", weight=weight)
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["cut"] == 1, found.reason
    values[1, 1] = 0.0
    assert compared(copied("float8e4m3fn", body, values), "float8e4m3fn", weight=weight).verdict not in ACCEPTED


def test_a_cast_of_what_is_computed_is_nothing() -> None:
    code = KINDS["float8e5m2"][0]
    copy = small(f"e = Cast <to = {code}> (x) d = Cast <to = 1> (e) y = Neg (d)")
    plain = small("y = Neg (x)")
    found = compare(plain, copy, allow=["float8e5m2"], run=False, graphs=False)
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["activations"] == 1
    assert compare(small("y = Abs (x)"), copy, allow=["float8e5m2"], run=False, graphs=False).verdict not in ACCEPTED
    assert "--allow float8e5m2 accepts that" in compare(plain, copy, run=False, graphs=False).reason


@pytest.mark.parametrize("change", ["s", "t"])
def test_the_scale_of_another_tensor_is_named(change: str) -> None:
    values, scale = rounded("float8e4m3fn", W / np.float32(0.013)), np.float32(0.013)
    copy = copied("float8e4m3fn", SCALED, values, scale)
    for node in copy.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[1] == change:
            node.input[1] = {"s": "t", "t": "s"}[change]
    assert compared(copy, "float8e4m3fn").verdict not in ACCEPTED


@pytest.mark.parametrize("kind", KINDS)
def test_what_rounds_to_a_number_lies_between_the_middles_to_its_neighbours(kind: str) -> None:
    dtype = np.dtype(KINDS[kind][1])
    numbers = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    found = Roundings(2.0**-24, False)._near(f"near:{dtype.name}", Real(numbers, np.zeros_like(numbers)))
    middles = (numbers[1:] + numbers[:-1]) / 2
    for ends in ((found.value + found.error)[:-1], (found.value - found.error)[1:]):
        assert (np.abs(ends - middles) <= 1e-6 * np.abs(middles)).all()
