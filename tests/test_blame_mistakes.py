"""Known mistakes: a device that makes one is convicted, and told by its name; another mistake is not taken for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from test_blame import Arrays, Device, convicted, parsed

import graphcheck
from graphcheck.blaming.known import CHANGES, LAST, LOOKS
from graphcheck.blaming.record import Blame

RANDOM = np.random.default_rng(3)


def drawn(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


W8, W32, KERNEL, KERNELS = drawn(8, 8), drawn(32, 8), drawn(3, 2, 3, 3), drawn(3, 2, 3, 3)
SCALE = np.array([1, 1, 2, 2], np.float32)
NORM = {"g": drawn(4), "b": drawn(4), "m": drawn(4), "v": np.abs(drawn(4))}
ROWS, IMAGE = "(float[4,8] x) => (float[4,8] y) { %s }", "(float[1,2,8,8] x) => (float[1,2,8,8] y) { %s }"
LARGER, SMALL = "(float[1,2,4,4] x) => (float[1,2,8,8] y) { %s }", "(float[4,8] x) => (float[N,M] y) { %s }"
CUBE, TWO = "(float[4,8,8] x) => (float[4,N,8] y) { %s }", "(float[4,8] x, float[4,8] z) => (float[4,8] y) { %s }"
# What the device looks like, the frame, the right body, the device's own, constants.
MISTAKES: list[tuple[str, str, str, str, Arrays]] = [
    ("Gelu by tanh", ROWS, "y = Gelu (x)", 'y = Gelu <approximate = "tanh"> (x)', {}),
    ("Gelu by erf", ROWS, 'y = Gelu <approximate = "tanh"> (x)', "y = Gelu (x)", {}),
    ("over axis 1", CUBE, "y = Softmax <axis = 2> (x)", "y = Softmax <axis = 1> (x)", {}),
    ("its pads counted", IMAGE, "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
     "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (x)", {}),
    ("asymmetric for half_pixel", LARGER, 'y = Resize <mode = "linear"> (x, , s)',
     'y = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric"> (x, , s)', {"s": SCALE}),
    ("align_corners for half_pixel", LARGER, 'y = Resize <mode = "linear"> (x, , s)',
     'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , s)', {"s": SCALE}),
    ("nearest by floor", "(float[1,2,4,4] x) => (float[1,2,10,10] y) { %s }", 'y = Resize <mode = "nearest"> (x, , s)',
     'y = Resize <mode = "nearest", nearest_mode = "floor"> (x, , s)', {"s": np.array([1, 1, 2.5, 2.5], np.float32)}),
    ("an epsilon of 0.001 for 1e-05", ROWS, "y = LayerNormalization (x, g)",
     "y = LayerNormalization <epsilon = 0.001> (x, g)", {"g": drawn(8)}),
    ("an epsilon of 1e-05 for 0.001", ROWS, "y = Add (x, e)", "y = Add (x, f)", {"e": np.float32(1e-3), "f": np.float32(1e-5)}),
    ("its Relu missing", ROWS, "y = Relu (x)", "y = Identity (x)", {}),
    ("a Relu too many", ROWS, "y = MatMul (x, w)", "h = MatMul (x, w) y = Relu (h)", {"w": W8}),
    ("its bias missing", ROWS, "y = Gemm (x, w, b)", "y = Gemm (x, w)", {"w": W8, "b": drawn(8)}),
    ("its bias missing", ROWS, "y = Add (x, b)", "y = Identity (x)", {"b": drawn(8)}),
    ("its weight transposed", ROWS, "y = MatMul (x, w)", "y = MatMul (x, v)", {"w": W8, "v": W8.T}),
    ("its kernel turned", "(float[1,2,8,8] x) => (float[1,3,6,6] y) { %s }", "y = Conv (x, w)", "y = Conv (x, v)",
     {"w": KERNEL, "v": KERNEL[:, :, ::-1, ::-1]}),
    ("the last 8 of 32 products missing", "(float[4,32] x) => (float[4,8] y) { %s }", "y = MatMul (x, w)",
     "y = MatMul (x, v)", {"w": W32, "v": np.where(np.arange(32)[:, None] < 24, W32, 0)}),
    ("its index off by +1", SMALL, "y = Gather (x, i)", "y = Gather (x, j)",
     {"i": np.array([0, 1, 2]), "j": np.array([1, 2, 3])}),
    ("its begin off by +1", SMALL, "y = Slice (x, s, e, a)", "y = Slice (x, t, f, a)",
     {"s": np.array([2]), "e": np.array([6]), "t": np.array([3]), "f": np.array([7]), "a": np.array([1])}),
    ("ReduceMean over axis 2", CUBE, "y = ReduceMean (x, a)", "h = ReduceMean (x, c) y = Reshape (h, s)",
     {"a": np.array([1]), "c": np.array([2]), "s": np.array([4, 1, 8])}),
    ("its operands swapped", TWO, "y = Sub (x, z)", "y = Sub (z, x)", {}),
    ("its pads on the other side", "(float[1,2,8,8] x) => (float[1,3,4,4] y) { %s }",
     "y = Conv <pads = [0, 0, 1, 1], strides = [2, 2]> (x, w)", "y = Conv <pads = [1, 1, 0, 0], strides = [2, 2]> (x, w)",
     {"w": KERNELS}),
    ("operand 1 of the neighbour channel", "(float[1,4,8,8] x) => (float[1,4,8,8] y) { %s }",
     "y = BatchNormalization (x, g, b, m, v)", "y = BatchNormalization (x, h, b, m, v)", NORM | {"h": np.roll(NORM["g"], 1)}),
    ("the layout: NHWC for NCHW", "(float[1,4,4,4] x) => (float[1,4,4,4] y) { %s }", "y = Relu (x)",
     "h = Relu (x) y = Transpose <perm = [0, 2, 3, 1]> (h)", {}),
    ("not transposed", "(float[2,4,4] x) => (float[2,4,4] y) { %s }", "y = Transpose <perm = [0, 2, 1]> (x)",
     "y = Identity (x)", {}),
    ("alpha of 0.01 for 0.1", ROWS, "y = LeakyRelu <alpha = 0.1> (x)", "y = LeakyRelu (x)", {}),
    ("its input 'x' as it is", ROWS, "y = Sqrt (x)", "y = Identity (x)", {}),
    ("the sign", ROWS, "y = MatMul (x, w)", "h = MatMul (x, w) y = Neg (h)", {"w": W8}),
    ("axis 1 in reverse", ROWS, "y = MatMul (x, w)", "y = MatMul (x, v)", {"w": W8, "v": W8[:, ::-1]}),
]  # fmt: skip
NAMES = [f"{at}-{row[0]}" for at, row in enumerate(MISTAKES)]


def blamed(text: str, right: str, own: str, constants: Arrays) -> Blame:
    model, device = parsed(text % right), parsed(text % own)
    for graph in (model.graph, device.graph):
        graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(x), n) for n, x in constants.items())
    size = 0.05 if "epsilon" in own or "f" in constants else 1.0
    x = {i.name: size * drawn(*(d.dim_value for d in i.type.tensor_type.shape.dim)) for i in model.graph.input}
    if right.startswith("y = Sqrt"):
        x = {"x": np.abs(x["x"])}
    dumped = Device(device).run({name: value.astype(np.float32) for name, value in x.items()})
    return graphcheck.blame(model, {name: value for name, value in dumped.items() if name != "h"})


@pytest.mark.parametrize(("said", "text", "right", "own", "constants"), MISTAKES, ids=NAMES)
def test_a_known_mistake_is_told_by_its_name(said: str, text: str, right: str, own: str, constants: Arrays) -> None:
    result = blamed(text, right, own, constants)
    assert convicted(result) == ["y"]
    like = result.evidence["convicted"][0]["looks_like"]
    assert like is not None and said in like["name"] and like["ratio"] <= 1
    assert f"it looks like {like['name']}" in result.reason


@pytest.mark.parametrize(("said", "text", "right", "own", "constants"), MISTAKES, ids=NAMES)
def test_what_is_a_little_off_a_known_mistake_is_not_called_it(
    said: str, text: str, right: str, own: str, constants: Arrays
) -> None:
    model, device = parsed(text % right), parsed(text % own)
    for graph in (model.graph, device.graph):
        graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(x), n) for n, x in constants.items())
    x = {i.name: np.abs(drawn(*(d.dim_value for d in i.type.tensor_type.shape.dim))) for i in model.graph.input}
    dumped = {n: v for n, v in Device(device, faults={"y": lambda y: y * 1.5 + 0.25}).run(x).items() if n != "h"}
    rows = graphcheck.blame(model, dumped).evidence["convicted"]
    assert rows and (rows[0]["looks_like"] is None or said not in rows[0]["looks_like"]["name"])


def test_the_form_of_a_gelu_is_told_at_its_erf() -> None:
    text = "(float[4,64] x) => (float[4,64] y) { z = Mul (x, half) e = Erf (z) u = Add (e, one) h = Mul (x, u) y = Mul (h, two) }"
    model = parsed(text, {"half": np.float32(0.5**0.5) * np.ones(()), "one": np.ones(()), "two": 0.5 * np.ones(())})
    x = drawn(4, 64)
    wide = x.astype(np.float64)
    tanh = np.tanh((2 / np.pi) ** 0.5 * (wide + 0.044715 * wide**3)).astype(np.float32)
    dumped = Device(model, faults={"e": lambda _: tanh}).run({"x": x})
    for kept in (dumped, {name: dumped[name] for name in ("x", "y")}):
        (row,) = graphcheck.blame(model, kept).evidence["convicted"]
        assert "Gelu by tanh" in row["looks_like"]["name"]


def test_a_softmax_without_its_maximum() -> None:
    x = drawn(3, 8) + np.array([[0.0], [89.0], [12.0]], np.float32)
    with np.errstate(all="ignore"):
        power = np.exp(x)
        made = (power / power.sum(axis=1, keepdims=True)).astype(np.float32)
    (row,) = graphcheck.blame(parsed(ROWS.replace("4,", "3,") % "y = Softmax (x)"), {"x": x, "y": made}).evidence["convicted"]
    assert row["looks_like"]["name"] == "a Softmax without its maximum, which overflows float32"


def test_a_tile_that_was_not_written() -> None:
    model = parsed(ROWS % "y = MatMul (x, w)", {"w": W8})
    tile: Callable[[np.ndarray], np.ndarray] = lambda y: np.where(np.outer(np.arange(4) > 1, np.arange(8) < 4), 0, y)  # noqa: E731
    (row,) = graphcheck.blame(model, Device(model, faults={"y": tile}).run({"x": drawn(4, 8)})).evidence["convicted"]
    assert row["looks_like"]["name"] == "a tile of zeros at [2:4, 0:4]"


def test_integers_that_wrap_around_or_are_cut() -> None:
    model = parsed("(float[4,8] x) => (int8[4,8] y) { y = QuantizeLinear (x, s, z) }", {"s": np.asarray(0.5)})
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(0, np.int8), "z"))
    x = drawn(4, 8) * 60
    steps = np.rint(x.astype(np.float64) / 0.5)
    for made, said in (((steps + 128) % 256 - 128, "wraps around"), (np.clip(np.trunc(x / 0.5), -128, 127), "truncated")):
        (row,) = graphcheck.blame(model, {"x": x, "y": made.astype(np.int8)}).evidence["convicted"]
        assert said in row["looks_like"]["name"]


def test_the_table_is_wide_enough() -> None:
    kinds = {row.kind for row in CHANGES} | {row.kind for row in (*LOOKS, *LAST)}
    assert len(kinds) >= 20
    assert all(onnx.defs.has(op) or op in ("FastGelu", "BiasGelu", "RMSNormalization") for row in CHANGES for op in row.ops)
