"""What a narrower format does to the numbers of a copy: headroom, overflow, saturation, ranking, bounds and spread."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphcheck import compare
from graphcheck.cli import main
from graphcheck.errors import Undecided
from graphcheck.files import model as model_
from graphcheck.interface import ports
from graphcheck.precision import copy, kinds, program, walks
from graphcheck.precision.backwards import pulled
from graphcheck.precision.copy import Copy
from graphcheck.reporting import render

Arrays = Mapping[str, np.ndarray]
NOTHING: Arrays = {}
HEAD = '<ir_version: 10, opset_import: ["": 17]> net '
SQUARES = """(float[N,2,8,8] x) => (float[N,4] y) {
    c = Conv (x, w)
    a = Relu (c)
    sq = Mul (a, a)
    m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (sq)
    y = MatMul (m, k)
}"""


HALF_IN_THE_MIDDLE = """(float[N,64] x) => (float[N,64] y) {
    m32 = Add (x, mask)
    m = Cast <to = 10> (m32)
    up = Cast <to = 1> (m)
    y = LayerNormalization (up, g)
}"""


def drawn(seed: int, **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Constants by name."""
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()}


def parsed(text: str, constants: Arrays = NOTHING) -> onnx.ModelProto:
    """A model in ONNX text with its constants."""
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def halved(text: str, constants: Arrays = NOTHING) -> onnx.ModelProto:
    """The same in float16 behind casts."""
    made = parsed(text, {name: array.astype(np.float16) for name, array in constants.items()})
    renamed = {"x": "x_half", "y": "y_half"}
    for node in made.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    made.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x_half"], "cast_in", to=onnx.TensorProto.FLOAT16))
    made.graph.node.append(onnx.helper.make_node("Cast", ["y_half"], ["y"], "cast_out", to=onnx.TensorProto.FLOAT))
    return made


def of(a: onnx.ModelProto, b: onnx.ModelProto, x: np.ndarray) -> Copy:
    """B as a copy of A, at an input of float32 both take."""
    models = model_.read(a), model_.read(b)
    interface = ports.pair_interfaces(*models)
    return copy.opened(models, interface, ({"x": x}, {"x": x}), 1)


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, shape).astype(np.float32)


# -- the ends of a type ---------------------------------------------------------------------------------------------


def test_an_overflow_that_the_runtime_hides_is_found_and_named() -> None:
    """Report 16: the squares of an image overflow float16, and onnxruntime's CPU provider computes them in float32."""
    constants = drawn(1, w=(3, 2, 3, 3), k=(3, 4))
    a, b = parsed(SQUARES, constants), halved(SQUARES, constants)
    found = compare(a, b, allow=["float16"], ranges={"x": (0.0, 255.0)}).evidence
    assert [run["outputs"][0]["inf_b"] for run in found["numeric"]["runs"]] == [0]
    first = found["precision"]["overflowed"][0]
    assert (first["op_type"], first["tensor"]) == ("Mul", "sq") and first["largest"] > first["limit"] == 65504
    x = image(2, 2, 8, 8)
    kept = of(a, b, x).numbers(0, ranked=True, top=3)["keep"]
    assert kept[0]["node"] == "Mul(sq)"  # whatever it brings
    assert kept[0]["before"] >= kept[0]["left"] > kept[2]["left"]
    assert of(a, b, x / 255).numbers(0, ranked=False)["overflowed"] == []  # near 0 nothing does


def test_headroom_is_that_of_the_numbers() -> None:
    text = "(float[N,4] x) => (float[N,4] y) { s = Mul (x, x) \n y = Relu (s) }"
    x = np.array([[1.0, 2.0, 2**-9, 2**-13]], np.float32)
    rows = {row["tensor"]: row for row in of(parsed(text), halved(text), x).numbers(0, ranked=False)["headroom"]}
    assert list(rows) == ["x_half", "s"]  # a Relu keeps what it is given
    assert rows["s"] | {"largest": 4.0, "above": 14.0, "below": 16.0, "subnormal": 1, "zero": 1, "infinite": 0} == rows["s"]
    assert rows["s"]["lost"] == 2.0**-26


@pytest.mark.parametrize(("scale", "vanishes"), [(1.0, []), (2.0**-12, ["s", "y_half"])])
def test_what_vanishes_is_told_where_it_is_more_than_rounding(scale: float, vanishes: list[str]) -> None:
    """A Softmax loses its least numbers, which is no matter; squares of small numbers lose all."""
    text = "(float[N,4] x) => (float[N,4] y) { s = Mul (x, x) \n y = Mul (s, s) }"
    x = np.array([[1.0, 0.5, 0.25, 0.125]], np.float32) * np.float32(scale)
    found = of(parsed(text), halved(text), x).numbers(0, ranked=False)["vanished"]
    assert [row["tensor"] for row in found] == vanishes
    soft = "(float[N,4] x) => (float[N,4] y) { y = Softmax (x) }"
    assert of(parsed(soft), halved(soft), np.array([[0, 40, 0, 0]], np.float32)).numbers(0, ranked=False)["vanished"] == []


def test_a_mask_is_no_overflow_and_a_reached_sum_is_told_apart() -> None:
    text = "(float[N,64] x) => (float[N,64] y) { m = Add (x, mask) \n y = LayerNormalization (m, g) }"
    for mask, overflows in ((-np.inf, []), (-3e38, []), (3e38, ["m"])):
        constants = {"mask": np.where(np.arange(64) == 3, mask, 0.0).astype(np.float32), "g": np.ones(64, np.float32)}
        masked = of(parsed(text, constants), parsed(HALF_IN_THE_MIDDLE, constants), np.ones((1, 64), np.float32))
        assert [row["tensor"] for row in masked.numbers(0, ranked=False)["overflowed"]] == overflows
    constants["mask"][3] = 0
    found = of(parsed(text, constants), halved(text, constants), image(1, 64)).numbers(0, ranked=False)
    row = found["headroom"][-1]
    assert (row["op_type"], row["infinite"]) == ("LayerNormalization", 0) and row["inside"] > 65504


def test_a_quantizer_that_saturates_is_counted_in_steps() -> None:
    a = parsed("(float[4] x) => (float[4] y) { y = Identity (x) }")
    b = parsed(
        "(float[4] x) => (float[4] y) { q = QuantizeLinear (x, s, z) \n y = DequantizeLinear (q, s, z) }",
        {"s": np.array(0.5, np.float32), "z": np.array(10, np.int8)},
    )
    x = np.array([58.5, 59.0, -69.0, -80.0], np.float32)
    found = of(a, b, x).numbers(0, ranked=True)
    (row,) = found["saturated"]
    assert (row["cut"], row["elements"], row["steps"], row["format"]) == (2, 4, 22.0, "int8")
    assert found["spread"][0]["measured"] == 11.0
    assert of(a, b, x[:1].repeat(4)).numbers(0, ranked=False)["saturated"] == []


def test_ranges_are_those_of_all_inputs_that_were_given(tmp_path: Path) -> None:
    text = "(float[N,4] x) => (float[N,4] y) { s = Mul (x, x) \n y = Relu (s) }"
    files = [tmp_path / f"{place}.npz" for place in range(3)]
    for file, size in zip(files, (1.0, 300.0, 2.0), strict=True):
        np.savez(file, x=np.full((1, 4), size, np.float32))
    given = {"inputs": files[0], "more_inputs": files[1:]}
    told = compare(parsed(text), halved(text), run=False, **given).evidence["precision"]
    (row,) = told["overflowed"]
    assert (row["tensor"], row["largest"], row["infinite"], row["elements"], row["above"]) == ("s", 90000.0, 4, 12, -0.5)
    assert told["spread"][0]["largest"] == 1.0  # of the first


def test_a_deviation_is_told_in_steps() -> None:
    a = parsed("(float[4] x) => (float[4] y) { y = Identity (x) }")
    quantized = "(float[4] x) => (float[4] y) { q = QuantizeLinear (x, s, z) \n y = DequantizeLinear (q, s, z) }"
    b = parsed(quantized, {"s": np.array(0.5, np.float32), "z": np.array(0, np.int8)})
    (row,) = of(a, b, np.array([0.2, 1.1, 2.0, 3.0], np.float32)).numbers(0, ranked=True)["spread"]
    assert row["step"] == 0.5 and row["measured"] == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn"])
def test_a_kind_rounds_as_its_type_does(name: str) -> None:
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, name, name))
    kind = kinds.of(dtype)
    assert kind is not None
    random = np.random.default_rng(3)
    values = random.standard_normal(4000).astype(np.float32).astype(np.float64) * 2.0 ** random.integers(-30, 8, 4000)
    values = np.clip(values, -kind.high, kind.high)
    expected = values.astype(np.float32).astype(dtype).astype(np.float64)
    assert (kind.rounded(values) == expected).all()
    assert (np.abs(expected - values) <= kind.room(values) * (1 + 1e-12)).all()
    if name != "float8_e4m3fn":
        with np.errstate(over="ignore"):
            assert np.isinf(np.array(kind.over).astype(dtype).astype(np.float64))
        assert np.isfinite(np.nextafter(np.float32(kind.over), np.float32(0)).astype(dtype).astype(np.float64))
        assert kind.rounded(np.array([4 * kind.high])) == 4 * kind.high  # the exponent is kept


# -- derivatives and ranking ----------------------------------------------------------------------------------------

SIZE = 1e-6
MLP = """(float[N,6] x) => (float[N,3] y) {
    h = MatMul (x, w1)
    g = Tanh (h)
    r = MatMul (g, w2)
    s = Add (g, r)
    n = LayerNormalization (s, gain, shift)
    y = MatMul (n, w3)
}"""
ATTENTION = """(float[N,5,8] x) => (float[N,5,4] y) {
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    kt = Transpose <perm = [0, 2, 1]> (k)
    a = MatMul (q, kt)
    p = Softmax (a)
    v = MatMul (x, wv)
    o = MatMul (p, v)
    e = Exp (o)
    y = MatMul (e, wo)
}"""
CNN = """(float[N,2,6,6] x) => (float[N,4] y) {
    c = Conv <pads = [1, 1, 1, 1]> (x, w1)
    a = Relu (c)
    d = Conv (a, w2)
    s = Sigmoid (d)
    z = Mul (s, d)
    m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (z)
    y = MatMul (m, w3)
}"""
# Weights of unlike sizes, so that some nodes matter more than others.
NETS: dict[str, tuple[str, dict[str, np.ndarray], tuple[int, ...]]] = {
    "mlp": (MLP, drawn(5, w1=(6, 8), w2=(8, 8), w3=(8, 3), gain=(8,), shift=(8,)), (16, 6)),
    "attention": (ATTENTION, drawn(6, wq=(8, 4), wk=(8, 4), wv=(8, 4), wo=(4, 4)), (4, 5, 8)),
    "cnn": (CNN, drawn(7, w1=(4, 2, 3, 3), w2=(4, 4, 3, 3), w3=(4, 4)), (8, 2, 6, 6)),
}


@pytest.mark.parametrize("name", NETS)
def test_derivatives_are_those_of_the_outputs(name: str) -> None:
    """Against differences: one number of each result moved by a little."""
    text, constants, shape = NETS[name]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    copied = of(parsed(text, constants), halved(text, constants), x)
    values: dict[program.Key, np.ndarray] = {}
    before = walks.walk(copied.copy, copied.fed, keep=values)["y"]
    towards = np.random.default_rng(2).standard_normal(before.size)
    steps = list(pulled(copied.copy, values, {"y": towards}))
    assert len(steps) == len(copied.copy.steps)
    for each in steps:
        for key, slope in each.results.items():
            at = int(np.argmax(np.abs(slope)))

            def moved(step: program.Step, result: program.Result, value: np.ndarray, key: Any = key, at: int = at) -> np.ndarray:
                return value + SIZE * (np.arange(value.size) == at) if result.key == key else value

            after = walks.walk(copied.copy, copied.fed, moved)["y"]
            assert (after - before) @ towards / SIZE == pytest.approx(slope[at], rel=1e-4, abs=1e-7)


def in_casts(text: str, constants: Arrays, kept: set[str]) -> onnx.ModelProto:
    """The float32 net with a cast to float16 and back behind each node that is not ``kept``, and its constants rounded: what
    onnxruntime then computes is a copy in float16 with those nodes in float32, by no code of graphcheck."""
    model = parsed(text)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    stored: dict[str, np.ndarray] = {}

    def rounded(name: str, to: str) -> None:
        model.graph.node.append(onnx.helper.make_node("Cast", [name], [f"{to}_half"], to=onnx.TensorProto.FLOAT16))
        model.graph.node.append(onnx.helper.make_node("Cast", [f"{to}_half"], [to], to=onnx.TensorProto.FLOAT))

    rounded("x", "x_rounded")
    for node in nodes:
        result = node.output[0]
        for name in set(node.input) & constants.keys():
            stored[name] = constants[name] if result in kept else constants[name].astype(np.float16).astype(np.float32)
        node.input[:] = ["x_rounded" if name == "x" else name for name in node.input]
        if result in kept or node.op_type in ("Relu", "Transpose"):
            model.graph.node.append(node)
            continue
        node.output[0] = f"{result}_wide"
        model.graph.node.append(node)
        rounded(f"{result}_wide", result)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
    return model


def ran(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """The output in onnxruntime, unoptimized, flat."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return np.asarray(y, np.float64).reshape(-1)


@pytest.mark.parametrize("name", NETS)
def test_numbers_are_rounded_as_a_runtime_does_that_rounds_each(name: str) -> None:
    """But where float32 sums fall on the other side of a tie."""
    text, constants, shape = NETS[name]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    copied = of(parsed(text, constants), halved(text, constants), x)
    rounded, there = walks.walk(copied.copy, copied.fed, walks.rounding)["y"], ran(in_casts(text, constants, set()), x)
    assert np.median(np.abs(rounded - there)) < 1e-2 * np.median(np.abs(rounded - copied.wide["y"]))


def test_quantized_numbers_are_those_of_a_runtime() -> None:
    stored = {name: np.random.default_rng(2).integers(-9, 9, (6, 6)).astype(np.int8) for name in ("qu", "qv")}
    b = parsed(
        """(float[N,6] x) => (float[N,6] y) {
        qx, sx, zx = DynamicQuantizeLinear (x)
        i = MatMulInteger (qx, qu, zx)
        f = Cast <to = 1> (i)
        h = Mul (f, sx)
        q = QuantizeLinear (h, s, z)
        d = DequantizeLinear (q, s, z)
        w = DequantizeLinear (qv, s, z)
        y = MatMul (d, w) }""",
        stored | {"s": np.array(0.3, np.float32), "z": np.array(3, np.int8)},
    )
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    copied = of(parsed("(float[N,6] x) => (float[N,6] y) { y = Identity (x) }"), b, x)
    assert walks.walk(copied.copy, copied.fed, walks.rounding)["y"] == pytest.approx(ran(b, x), rel=1e-5, abs=1e-5)


def deviation(model: onnx.ModelProto, exact: np.ndarray, x: np.ndarray) -> float:
    """The root of the mean square deviation in onnxruntime."""
    return float(np.sqrt(np.square(ran(model, x) - exact).mean()))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_no_other_k_nodes_in_float32_lower_the_deviation_more(name: str, k: int) -> None:
    """All choices of k nodes are tried in onnxruntime, at other inputs; what is within 5 % is a tie."""
    text, constants, shape = NETS[name]
    x = np.random.default_rng(4).standard_normal((512, *shape[1:])).astype(np.float32)
    copied = of(parsed(text, constants), halved(text, constants), x)
    ranked = [row["node"] for row in copied.numbers(0, ranked=True, top=k)["keep"]]
    results = {f"{n.op_type}({n.output[0]})": n.output[0] for n in parsed(text).graph.node}
    results["MatMul(y_half)"] = "y"
    x = np.random.default_rng(44).standard_normal((4096, *shape[1:])).astype(np.float32)
    exact = of(parsed(text, constants), halved(text, constants), x).wide["y"]
    first = deviation(in_casts(text, constants, {results[node] for node in ranked[:k]}), exact, x)
    names = [n.output[0] for n in parsed(text).graph.node]
    others = [deviation(in_casts(text, constants, set(some)), exact, x) for some in itertools.combinations(names, k)]
    assert first <= 1.05 * min(others) and first < 0.95 * deviation(in_casts(text, constants, set()), exact, x)


def test_a_constant_belongs_to_the_node_that_reads_it() -> None:
    """Also through a Transpose; and it is counted by what it differs by: a constant that float16 holds brings nothing."""
    text = "(float[N,4] x) => (float[N,4] y) { wt = Transpose <perm = [1, 0]> (w) \n h = MatMul (x, wt) \n y = MatMul (h, v) }"
    constants = drawn(8, w=(4, 4)) | {"v": np.eye(4, dtype=np.float32) * 2}
    rows = of(parsed(text, constants), halved(text, constants), image(3, 4)).numbers(0, ranked=True)["layers"]
    by = {row["node"]: row["constants"] for row in rows}
    assert by["MatMul(h)"] > 0.1 and by.get("MatMul(y_half)", 0.0) == 0.0 and "Transpose(wt)" not in by
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)


def test_what_is_quantized_belongs_to_the_node_it_is_quantized_for() -> None:
    """Report 18: one Conv takes numbers of which a few are large, and loses the others to its steps."""
    constants = drawn(9, u=(6, 6), v=(6, 2)) | {
        "fine": np.array(0.02, np.float32), "coarse": np.array(1.0, np.float32), "z": np.array(0, np.int8)
    }  # fmt: skip
    a = parsed("(float[N,6] x) => (float[N,2] y) { h = MatMul (x, u) \n y = MatMul (h, v) }", drawn(9, u=(6, 6), v=(6, 2)))
    b = parsed(
        """(float[N,6] x) => (float[N,2] y) {
        qx = QuantizeLinear (x, fine, z)
        dx = DequantizeLinear (qx, fine, z)
        h = MatMul (dx, u)
        qh = QuantizeLinear (h, coarse, z)
        dh = DequantizeLinear (qh, coarse, z)
        y = MatMul (dh, v) }""",
        constants,
    )
    x = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    rows = of(a, b, x).numbers(0, ranked=True)["layers"]
    assert rows[0]["node"] == "MatMul(y)" and rows[0]["share"] > 0.9
    assert [row["node"] for row in rows[1:]] == ["MatMul(h)"]


def test_a_quantized_constant_is_told_by_what_it_is_apart() -> None:
    """By steps of 0.25, its partner found by its values."""
    w = drawn(13, w=(6, 4))["w"]
    a = parsed("(float[N,6] x) => (float[N,4] y) { y = MatMul (x, w) }", {"w": w})
    steps = np.rint(w / np.float32(0.25)).astype(np.int8)
    stored = {"q": steps, "s": np.array(0.25, np.float32), "z": np.array(0, np.int8)}
    b = parsed("(float[N,6] x) => (float[N,4] y) { d = DequantizeLinear (q, s, z) \n y = MatMul (x, d) }", stored)
    copied = of(a, b, np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32))
    assert copied.guessed == frozenset()
    assert copied.errors[("constant", "d")] == pytest.approx((steps * 0.25 - w).reshape(-1))
    told = copied.numbers(0, ranked=True)
    assert [(row["node"], row["constants"]) for row in told["layers"]] == [("MatMul(y)", 1.0)]
    (row,) = told["bound"]
    assert row["measured"] <= row["first_order"] == pytest.approx(row["measured"], rel=1e-3)


# -- bounds and spread ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_no_draw_of_roundings_is_beyond_a_bound(name: str) -> None:
    """Each result is moved by up to a unit roundoff: by draws, and by the worst signs that the derivatives name."""
    text, constants, shape = NETS[name]
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    copied = of(parsed(text, constants), halved(text, constants), x)
    told = copied.numbers(0, ranked=True)
    (row,) = told["bound"]
    assert row["measured"] == told["spread"][0]["measured"] <= row["likely"] <= row["first_order"] <= row["running"]
    assert told["spread"][0]["spread"] <= row["likely"] < row["likely_in_format"]
    random = np.random.default_rng(6)

    def uniform(step: program.Step, result: program.Result, value: np.ndarray) -> np.ndarray:
        unit = 0.0 if result.kind is None or step.keeps else result.kind.unit
        return np.asarray(value * (1 + unit * random.uniform(-1, 1, value.shape)))

    worst = max(np.abs(walks.walk(copied.copy, copied.fed, uniform)["y"] - copied.wide["y"]).max() for _ in range(20))
    assert worst <= row["likely"]

    values: dict[program.Key, np.ndarray] = {}
    walks.walk(copied.copy, copied.fed, walks.rounding, keep=values)
    at = int(np.argmax(np.abs(values[copied.copy.outputs["y"]] - copied.wide["y"])))  # type: ignore[index]
    one = {"y": 1.0 * (np.arange(copied.wide["y"].size) == at)}
    signs = {key: slope for each in pulled(copied.copy, values, one) for key, slope in each.results.items()}

    def adverse(step: program.Step, result: program.Result, value: np.ndarray) -> np.ndarray:
        unit = 0.0 if result.kind is None or step.keeps or result.key not in signs else result.kind.unit
        return np.asarray(value + unit * np.abs(value) * np.sign(signs.get(result.key, 0.0)))

    reached = abs(walks.walk(copied.copy, copied.fed, adverse)["y"][at] - copied.wide["y"][at])
    assert 0.5 * row["first_order"] < reached <= 1.1 * row["first_order"] and reached <= row["running"]


def test_sums_that_are_accumulated_in_the_format_are_within_their_bound() -> None:
    """Products and partial sums in float16, one after the other, as by a kernel that keeps nothing wider."""
    text = "(float[N,2048] x) => (float[N,4] y) { y = MatMul (x, w) }"
    constants = drawn(12, w=(2048, 4))
    x = np.random.default_rng(0).standard_normal((8, 2048)).astype(np.float16).astype(np.float32)
    copied = of(parsed(text, constants), halved(text, constants), x)
    (row,) = copied.numbers(0, ranked=True)["bound"]
    total = np.zeros((8, 4), np.float16)
    for k in range(2048):
        total = total + x[:, k : k + 1].astype(np.float16) * constants["w"][k].astype(np.float16)
    apart = np.abs(total.astype(np.float64).reshape(-1) - copied.wide["y"]).max()
    assert row["likely"] < apart <= row["likely_in_format"]


def test_a_running_bound_stays_finite_behind_many_normalizations() -> None:
    steps = [f"n{i} = LayerNormalization (h{i}, g) \n h{i + 1} = MatMul (n{i}, w)" for i in range(12)]
    text = "(float[N,16] x) => (float[N,16] y) { h0 = Identity (x) \n" + "\n".join(steps) + "\n y = LayerNormalization (h12, g) }"
    constants = drawn(10, w=(16, 16)) | {"g": np.ones(16, np.float32)}
    x = np.random.default_rng(0).standard_normal((2, 16)).astype(np.float32)
    (row,) = of(parsed(text, constants), halved(text, constants), x).numbers(0, ranked=True)["bound"]
    assert row["measured"] < row["running"] < 2.2 * 4  # no element of a normalized row of 16 is beyond 4
    assert row["ratio"] < 30


def test_a_constant_without_a_partner_is_off_by_any_rounding() -> None:
    """Partners have the same name, or alone lie so near; else each element is off by half a spacing in either way."""
    text = "(float[N,4] x) => (float[N,4] y) { y = MatMul (x, w) }"
    constants = drawn(11, w=(4, 4))
    a, renamed = parsed(text, constants), halved(text.replace("w)", "other)"), {"other": constants["w"]})
    computed = parsed(text.replace("{ y", "{ w = Add (half, half) \n y"), {"half": constants["w"] / 2})
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    known, guessed = of(a, renamed, x), of(computed, renamed, x)
    assert known.guessed == frozenset() and guessed.guessed == {("constant", "other")}
    (one,), (other,) = (each.numbers(0, ranked=True)["bound"] for each in (known, guessed))
    assert one["first_order"] < other["first_order"] and one["measured"] == pytest.approx(other["measured"], rel=1e-3)


# -- how it is told -------------------------------------------------------------------------------------------------


def test_numbers_are_told_of_a_wrong_copy_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, constants, _ = NETS["mlp"]
    files = {"a.onnx": parsed(text, constants), "b.onnx": halved(text, constants | {"w3": constants["w3"][::-1].copy()})}
    for name, model in files.items():
        onnx.save(model, tmp_path / name)
    table = tmp_path / "layers.csv"
    code = main(["compare", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--top", "2", "--format", f"layers={table}"])
    out = capsys.readouterr().out
    assert code != 0 and "y deviates by" in out and "headroom in float16" in out
    assert sum(line.startswith(("  1  ", "  2  ")) for line in out.splitlines()) == 2 and "\n  3  " not in out
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert rows[0]["rank"] == "1" and sum(float(row["share"]) for row in rows) == pytest.approx(1.0, abs=1e-4)
    assert rows[0]["node"] in out


def test_the_report_tells_them() -> None:
    constants = drawn(1, w=(3, 2, 3, 3), k=(3, 4))
    a, b = parsed(SQUARES, constants), halved(SQUARES, constants)
    found = compare(a, b, allow=["float16"], ranges={"x": (0.0, 255.0)}, run=False, top=2)
    page = re.sub(r"<[^>]+>|\s+", " ", render([found.to_json()]))
    told = page[page.index("Numbers in the format") :]
    assert re.search(r"Mul +Mul\(sq\) +overflows in float16: .* beyond 65 504", told)
    assert "Keep these in float32" in told and "Headroom of" in told


def test_a_pair_of_one_format_has_no_numbers() -> None:
    text, constants, _ = NETS["mlp"]
    other = constants | {"w1": constants["w1"] * 2}
    assert compare(parsed(text, constants), parsed(text, other), run=False).evidence["precision"] is None


def test_what_cannot_be_evaluated_is_said() -> None:
    text = "(float[N,4] x) => (float[N,4] y) { y = Bernoulli (x) }"
    told = compare(parsed(text), halved(text), run=False).evidence["precision"]
    assert "random" in told["untold"] and told["headroom"] == []


def test_constants_that_steer_an_operator_may_be_in_the_format() -> None:
    """A converter that keeps Resize in float32 stores its scales in float16, and casts them."""
    a = parsed("(float[1,1,2,2] x) => (float[1,1,4,4] y) { y = Resize (x, , scales) }", {"scales": np.float32([1, 1, 2, 2])})
    b = parsed(
        """(float[1,1,2,2] x) => (float[1,1,4,4] y) {
        s = Cast <to = 1> (scales)
        h = Cast <to = 10> (x)
        w = Cast <to = 1> (h)
        y = Resize (w, , s) }""",
        {"scales": np.float16([1, 1, 2, 2])},
    )
    told = compare(a, b, run=False).evidence["precision"]
    assert told["untold"] is None and [row["tensor"] for row in told["headroom"]] == ["h"]


def test_what_was_found_before_a_limit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def over(*_: object) -> None:
        raise Undecided("the time limit was reached")

    monkeypatch.setattr("graphcheck.precision.copy.bounds", over)
    text, constants, _ = NETS["mlp"]
    told = compare(parsed(text, constants), halved(text, constants), run=False).evidence["precision"]
    assert told["untold"] == "the time limit was reached" and told["layers"] and told["headroom"] and not told["bound"]


def test_the_side_in_the_format_may_be_a() -> None:
    text, constants, _ = NETS["mlp"]
    found = compare(halved(text, constants), parsed(text, constants), run=False).evidence["precision"]
    assert found["headroom"] and found["layers"] and found["spread"][0]["measured"] > 0
