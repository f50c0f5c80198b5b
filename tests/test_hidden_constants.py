"""One grossly wrong constant hidden among honest ones, in every form of folding: never ``within-rounding``, or better.

A form is an expression of constants with the graph that uses it, what float32 (or float16) makes of it in an order of
summation drawn by the seed, and the graph of the folded constants. The honest fold is ``within-rounding``; the same with
one element moved by a thousandth of the constant's own size (three hundredths of a float16's) is not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

Arrays = dict[str, np.ndarray]
SEEDS = range(3)
HONEST = {Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING}


@dataclasses.dataclass(frozen=True)
class Fold:
    """``inputs`` and ``outputs`` of both graphs; the expression and its constants; the folded graph and its constants."""

    inputs: str
    outputs: str
    expression: str
    constants: Arrays
    folded: str
    stored: Arrays

    def verdict(self, stored: Mapping[str, np.ndarray]) -> Comparison:
        a = model(self.inputs, self.outputs, self.expression, self.constants)
        b = model(self.inputs, self.outputs, self.folded, {**self.constants, **stored})
        return compare(a, b, run=False, graphs=False, witness=None, timeout=60.0)


def model(inputs: str, outputs: str, body: str, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    text = f'<ir_version: 9, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    proto = onnx.parser.parse_model(text)
    used = {name for node in proto.graph.node for name in node.input}
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in constants.items() if k in used)
    return proto


def product(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """a @ b in their type, in an order that a runtime may take."""
    k = a.shape[1]
    order = rng.integers(4)
    if order == 0:
        return a @ b
    if order == 1:  # one after the other
        total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
        for i in range(k):
            total = total + a[:, i : i + 1] * b[i]
        return total
    parts = [slice(i, None, 8) for i in range(8)] if order == 2 else [slice(i, i + 16) for i in range(0, k, 16)]
    total = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for part in parts:
        total = total + a[:, part] @ b[part]
    return total


def normal(rng: np.random.Generator, *shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape).astype(dtype))


def batch_norm_into_conv(rng: np.random.Generator) -> Fold:
    c = {"w": normal(rng, 4, 3, 2, 2), "bias": normal(rng, 4), "shift": normal(rng, 4), "mean": normal(rng, 4)}
    c |= {k: rng.uniform(0.5, 2, 4).astype(np.float32) for k in ("scale", "var")}
    factor = c["scale"] / np.sqrt(c["var"] + np.float32(0.001))
    stored = {"w": c["w"] * factor[:, None, None, None], "bias": (c["bias"] - c["mean"]) * factor + c["shift"]}
    conv = "{} = Conv <strides = [2, 2]> (x, w, bias)"
    norm = "\n y = BatchNormalization <epsilon = 0.001> (c, scale, shift, mean, var)"
    return Fold("float[1,3,4,4] x", "float[1,4,2,2] y", conv.format("c") + norm, c, conv.format("y"), stored)


def scale_into_weight(rng: np.random.Generator) -> Fold:
    c = {"w": normal(rng, 5, 3), "s": normal(rng, 3)}
    expression, folded = "p = MatMul (x, w)\n y = Mul (p, s)", "y = MatMul (x, f)"
    return Fold("float[2,5] x", "float[2,3] y", expression, c, folded, {"f": c["w"] * c["s"]})


def scale_into_transposed_weight(rng: np.random.Generator) -> Fold:
    c = {"w": normal(rng, 3, 5), "s": normal(rng, 3)}
    expression = "t = Transpose <perm = [1, 0]> (w)\n p = MatMul (x, t)\n y = Mul (p, s)"
    stored = {"f": c["w"] * c["s"][:, None]}
    return Fold("float[2,5] x", "float[2,3] y", expression, c, "y = Gemm <transB = 1> (x, f)", stored)


def bias_through_scale(rng: np.random.Generator) -> Fold:
    c = {"w": normal(rng, 5, 3), "b": normal(rng, 3), "s": normal(rng, 3), "t": normal(rng, 3)}
    expression = "p = MatMul (x, w)\n q = Add (p, b)\n r = Mul (q, s)\n y = Add (r, t)"
    stored = {"f": c["w"] * c["s"], "g": c["b"] * c["s"] + c["t"]}
    return Fold("float[2,5] x", "float[2,3] y", expression, c, "y = Gemm (x, f, g)", stored)


def table_by_product(rng: np.random.Generator) -> Fold:
    k = int(rng.choice([3, 64, 1024]))
    c = {"u": normal(rng, 6, k), "v": normal(rng, k, 4)}
    stored = {"t": product(c["u"], c["v"], rng)}
    return Fold("float[6,4] x", "float[6,4] y", "p = MatMul (u, v)\n y = Add (x, p)", c, "y = Add (x, t)", stored)


def table_by_gather_of_product(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 30, 1024), "v": normal(rng, 1024, 4)}
    expression, folded = "p = MatMul (u, v)\n y = Gather (p, x)", "y = Gather (t, x)"
    return Fold("int64[2,3] x", "float[2,3,4] y", expression, c, folded, {"t": product(c["u"], c["v"], rng)})


def gathered_table(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 7, 512), "v": normal(rng, 512, 3), "at": rng.integers(7, size=12)}
    c["shape"] = np.array([4, 9])
    expression = "p = MatMul (u, v)\n g = Gather (p, at)\n r = Reshape (g, shape)\n y = Add (x, r)"
    stored = {"t": product(c["u"], c["v"], rng)[c["at"]].reshape(4, 9)}
    return Fold("float[4,9] x", "float[4,9] y", expression, c, "y = Add (x, t)", stored)


def resized_table(rng: np.random.Generator) -> Fold:
    c = {"e": normal(rng, 1, 2, 4, 4), "sizes": np.array([1, 2, 8, 8])}
    resize = 'r = Resize <mode = "linear"> (e, , , sizes)'
    made = ReferenceEvaluator(model("", "float[1,2,8,8] r", resize, c)).run(None, {})[0]
    stored = {"t": np.asarray(made, np.float32)}
    return Fold(
        "float[1,2,8,8] x", "float[1,2,8,8] y", f"{resize}\n y = Add (x, r)", c, "y = Add (x, t)", stored
    )


def product_of_three(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 5, 256), "v": normal(rng, 256, 256), "w": normal(rng, 256, 3)}
    expression = "p = MatMul (u, v)\n q = MatMul (p, w)\n y = MatMul (x, q)"
    stored = {"t": product(product(c["u"], c["v"], rng), c["w"], rng)}
    return Fold("float[2,5] x", "float[2,3] y", expression, c, "y = MatMul (x, t)", stored)


def long_sum(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 4, 2000), "axes": np.array([1])}
    expression = "s = ReduceSum <keepdims = 0> (u, axes)\n y = Add (x, s)"
    stored = {"t": c["u"].sum(axis=1) if rng.integers(2) else np.cumsum(c["u"], axis=1)[:, -1]}
    return Fold("float[3,4] x", "float[3,4] y", expression, c, "y = Add (x, t)", stored)


def network_of_constants(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 9, 2), "v": normal(rng, 2, 64), "w": normal(rng, 64, 3)}
    expression = "p = MatMul (u, v)\n q = Relu (p)\n r = MatMul (q, w)\n s = Sigmoid (r)\n y = Add (x, s)"
    hidden = np.maximum(product(c["u"], c["v"], rng), np.float32(0))
    stored = {"t": 1 / (1 + np.exp(-product(hidden, c["w"], rng)))}
    return Fold("float[9,3] x", "float[9,3] y", expression, c, "y = Add (x, t)", stored)


def half_scale_into_weight(rng: np.random.Generator) -> Fold:
    c = {"w": normal(rng, 5, 3, dtype=np.float16), "s": normal(rng, 3, dtype=np.float16)}
    expression, folded = "p = MatMul (x, w)\n y = Mul (p, s)", "y = MatMul (x, f)"
    return Fold("float16[2,5] x", "float16[2,3] y", expression, c, folded, {"f": c["w"] * c["s"]})


def half_table_by_product(rng: np.random.Generator) -> Fold:
    c = {"u": normal(rng, 6, 1024, dtype=np.float16), "v": normal(rng, 1024, 4, dtype=np.float16)}
    stored = {"t": product(c["u"].astype(np.float32), c["v"].astype(np.float32), rng).astype(np.float16)}
    expression = "p = MatMul (u, v)\n y = Add (x, p)"
    return Fold("float16[6,4] x", "float16[6,4] y", expression, c, "y = Add (x, t)", stored)


FORMS: tuple[Callable[[np.random.Generator], Fold], ...] = (
    batch_norm_into_conv,
    scale_into_weight,
    scale_into_transposed_weight,
    bias_through_scale,
    table_by_product,
    table_by_gather_of_product,
    gathered_table,
    resized_table,
    product_of_three,
    long_sum,
    network_of_constants,
    half_scale_into_weight,
    half_table_by_product,
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_wrong_constant_among_honest_ones_is_seen(form: Callable[[np.random.Generator], Fold], seed: int) -> None:
    rng = np.random.default_rng([seed, FORMS.index(form)])
    fold = form(rng)
    honest = fold.verdict(fold.stored)
    assert honest.verdict in HONEST, honest.reason
    half = any(v.dtype == np.float16 for v in fold.stored.values())
    for share in (0.03 if half else 0.001, 1.0):
        wrong, name = hidden(fold.stored, share, rng)
        result = fold.verdict(wrong)
        assert result.verdict not in HONEST, f"{name}: {result.reason}"


def hidden(stored: Mapping[str, np.ndarray], share: float, rng: np.random.Generator) -> tuple[Arrays, str]:
    """One element of one constant moved by a share of the constant's size; the smallest in magnitude half of the time."""
    name = sorted(stored)[rng.integers(len(stored))]
    array = stored[name].copy()
    flat = array.reshape(-1)
    at = int(np.abs(flat).argmin()) if rng.integers(2) else int(rng.integers(flat.size))
    flat[at] += flat.dtype.type(rng.choice([-1.0, 1.0]) * share * np.sqrt(np.mean(np.square(stored[name], dtype=float))))
    assert flat[at] != stored[name].reshape(-1)[at]
    return {**stored, name: array}, name
