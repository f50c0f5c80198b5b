"""Copies of a model that computes a constant by a small network of its own (Swin v2 does, for its position bias)."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from graphcheck import compare
from graphcheck.kernel.proof.allowed import FORMATS
from graphcheck.verdict import Comparison, Verdict

DRAWN = np.random.default_rng(3)
PLACES, WIDE = 6, 96
CONSTANTS = {
    "table": DRAWN.standard_normal((PLACES, 1, WIDE)),
    "shift": DRAWN.standard_normal(WIDE),
    "w": DRAWN.standard_normal((WIDE, 4)) * 0.3,
}
CONSTANTS = {name: array.astype(np.float32) for name, array in CONSTANTS.items()}
TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
NETWORK = "h = Add (table, shift) r = Relu (h) p = MatMul (r, {w}) s = Sigmoid (p) y = Add (x, s)"


def model(body: str, constants: dict[str, np.ndarray], x: str = "float") -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 21]> g ({x}[{PLACES},1,4] x) => ({x}[{PLACES},1,4] y) {{ {body} }}'
    made = onnx.parser.parse_model(text)
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return made


def compared(copy: onnx.ModelProto, allow: str) -> Comparison:
    return compare(model(NETWORK.format(w="w"), CONSTANTS), copy, allow=[allow], run=False, graphs=False)


def moved(array: np.ndarray, by: int) -> np.ndarray:
    """One element, so many numbers of its type farther."""
    whole = array.reshape(-1).view(np.uint16 if array.dtype.itemsize == 2 else array.dtype).copy()
    whole[whole.size // 3] += by
    return whole.view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("name", ["", *CONSTANTS])
@pytest.mark.parametrize("dtype", TYPES)
def test_each_constant_of_the_network_faces_its_own_rounding(dtype: str, name: str) -> None:
    stored = {key: array.astype(FORMATS[dtype]) for key, array in CONSTANTS.items()}
    if name:
        stored[name] = moved(stored[name], 1)
    found = compared(model(NETWORK.format(w="w"), stored, dtype), dtype)
    off = [row["b"] for row in found.evidence["precision"]["off"]]
    assert (found.verdict is Verdict.WITHIN_ROUNDING, off) == (not name, [name] if name else []), found.reason


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_a_quantized_weight_is_taken_out_of_what_is_done_to_it(dtype: str, by: int) -> None:
    most = 127 if dtype == "int8" else 7
    scale = np.float32(np.abs(CONSTANTS["w"]).max() / most)
    q = moved(np.rint(CONSTANTS["w"] / scale).clip(-most, most).astype(np.int8), by)
    stored = {**CONSTANTS, "scale": np.asarray(scale), "q": q}
    body = NETWORK.format(w="d").replace("p =", "d = DequantizeLinear (q, scale) p =")
    copy = model(body, {key: stored[key] for key in ("table", "shift", "scale", "q")})
    if dtype == "int4":
        whole = next(t for t in copy.graph.initializer if t.name == "q")
        whole.CopyFrom(onnx.helper.make_tensor("q", TensorProto.INT4, q.shape, q.reshape(-1)))
    found = compared(copy, dtype)
    off = [row["b"] for row in found.evidence["precision"]["off"]]
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (not by), found.reason
    assert off == (["q"] if by else []), found.reason


QUANTIZED = (
    "h = Add (table, shift) hq = QuantizeLinear (h, s, z) hd = DequantizeLinear (hq, s, z) r = Relu (hd) p = MatMul (r, w) "
    "pq = QuantizeLinear (p, t, u) pd = DequantizeLinear (pq, t, u) s1 = Sigmoid (pd) s1q = QuantizeLinear (s1, v, o) "
    "s1d = DequantizeLinear (s1q, v, o) y = Add (x, s1d)"
)
RANGES = {"s": 0.05, "z": 128, "t": 0.2, "u": 128, "v": 1 / 255, "o": 0}


@pytest.mark.parametrize(
    ("change", "accepted"),
    [({}, True), ({"s": 0.005}, False), ({"z": 255}, False), ({"z": 0}, False), ({"t": 0.004}, False), ({"v": 0.001}, False)],
)
def test_the_quantizers_of_a_network_of_constants_leave_its_numbers(change: dict[str, float], accepted: bool) -> None:
    given = {**RANGES, **change}
    stored = {name: np.asarray(value, np.uint8 if name in "zuo" else np.float32) for name, value in given.items()}
    found = compared(model(QUANTIZED, {**CONSTANTS, **stored}), "int8")
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason


@pytest.mark.parametrize("off", [0, 1])
def test_constants_may_be_added_up_in_another_order(off: int) -> None:
    mask = np.where(DRAWN.random((PLACES, 1, 4)) < 0.5, np.float32(-30), np.float32(-2))
    scale, step = np.float32(30 / 127), np.float32(1 / 255)
    whole = "m = DequantizeLinear (k, t) n = Add (m, m) q = QuantizeLinear (s, v, o) d = DequantizeLinear (q, v, o)"
    plain = NETWORK.format(w="w").replace("y = Add (x, s)", "a = Add (mask, s) c = Add (mask, a) y = Add (x, c)")
    copy = NETWORK.format(w="w").replace("y = Add (x, s)", f"{whole} c = Add (d, n) y = Add (x, c)")
    k = moved(np.rint(mask / scale).astype(np.int8), off)
    stored = {**CONSTANTS, "k": k, "t": np.asarray(scale), "v": np.asarray(step), "o": np.asarray(0, np.uint8)}
    found = compare(
        model(plain, {**CONSTANTS, "mask": mask}), model(copy, stored), allow=["int8"], run=False, graphs=False
    )
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (not off), found.reason


DYNAMIC = (
    "{q}, {s}, {z} = DynamicQuantizeLinear ({x}) {x}i = MatMulInteger ({q}, {w}_q, {z}) {x}f = Cast <to = 1> ({x}i) "
    "{x}t = Mul ({by}, {w}_s) {y} = Mul ({x}f, {x}t) "
)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("name", "by"), [("", ""), ("v", ""), ("w", ""), ("", "as")])
def test_a_network_of_constants_is_quantized_as_it_runs(name: str, by: str, per_channel: bool) -> None:
    drawn = np.random.default_rng(5)
    constants = {"a": drawn.standard_normal((PLACES, 8)), "v": drawn.standard_normal((8, WIDE)), "shift": CONSTANTS["shift"]}
    constants = {**{key: array.astype(np.float32) for key, array in constants.items()}, "w": CONSTANTS["w"]}
    last = "m = Unsqueeze (p, one) s = Sigmoid (m) y = Add (x, s)"
    plain = f"g = MatMul (a, v) h = Add (g, shift) r = Relu (h) p = MatMul (r, w) {last}"
    products = [
        DYNAMIC.format(x=x, w=w, y=y, q=f"{x}q", s=f"{x}s", z=f"{x}z", by=own)
        for x, w, y, own in (("a", "v", "g", "as"), ("r", "w", "p", by or "rs"))
    ]
    copy = f"{products[0]} h = Add (g, shift) r = Relu (h) {products[1]} {last}"
    stored = {"a": constants["a"], "shift": constants["shift"]}
    for key in "vw":
        scale = np.abs(constants[key]).max(axis=0 if per_channel else None) / np.float32(127)
        stored[f"{key}_q"] = moved(np.rint(constants[key] / scale).astype(np.int8), int(key == name))
        stored[f"{key}_s"] = np.asarray(scale)
    one = {"one": np.asarray([1])}
    models = model(plain, {**constants, **one}), model(copy, {**stored, **one})
    found = compare(*models, allow=["int8"], run=False, graphs=False)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (not name and not by), found.reason
    assert [row["b"] for row in found.evidence["precision"]["off"]] == ([f"{name}_q"] if name else []), found.reason


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("function", ["Exp", "Sigmoid", "Tanh"])
def test_what_a_function_of_a_rounded_constant_gives_is_not_held_to_bit_for_bit(
    function: str, folded: bool, by: int
) -> None:
    scale = np.asarray([0.303, 1.597, 2.303, 0.117], np.float32)
    of = {"Exp": np.exp, "Tanh": np.tanh, "Sigmoid": lambda x: 1 / (1 + np.exp(-x))}[function]
    body = f"e = {function} (c) y = Mul (x, e)"
    stored = {"e" if folded else "c": moved((of(scale) if folded else scale).astype(np.float16), by)}
    copy = model("y = Mul (x, e)" if folded else body, stored, "float16")
    found = compare(model(body, {"c": scale}), copy, allow=["float16"], run=False, graphs=False)
    assert (found.verdict is Verdict.WITHIN_ROUNDING) == (not by), found.reason
    assert [row["b"] for row in found.evidence["precision"]["off"]] == (list(stored) if by else []), found.reason
