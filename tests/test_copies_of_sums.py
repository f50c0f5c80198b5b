"""Copies in int8 of models that add up constants, in any order, once or twice, or that join or multiply them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphcheck import compare
from graphcheck.kernel.proof import facing
from tests.test_quantized_copies import ACCEPTED, small
from tests.zoo.quantized import one_step

STORED = "b = DequantizeLinear (p, s) m = DequantizeLinear (q, t) "
RANGED = "v = QuantizeLinear (i, k, z) c = DequantizeLinear (v, k, z) n = Add (c, m) y = Add (n, m)"  # it ends at 0
SUMS = {  # of the model, of the copy
    "once": ("c = Add (b, m) y = Add (h, c)", STORED + "c = Add (b, m) y = Add (h, c)"),
    "twice, in another order": (
        "n = Add (m, u) i = Add (b, n) c = Add (n, i) y = Add (h, c)",
        STORED + "n = Add (m, m) c = Add (b, n) y = Add (h, c)",
    ),
    "twice, behind a range": ("n = Add (m, u) i = Add (b, n) c = Add (n, i) y = Add (h, c)", STORED + "i = Add (h, b) " + RANGED),
    "twice, beside what both have": (
        "n = Add (m, u) i = Add (b, n) c = Add (n, i) y = Add (h, c)",
        "b = DequantizeLinear (p, s) w = Add (m, u) i = Add (h, b) " + RANGED.replace("m)", "w)"),
    ),
}


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("case", SUMS)
def test_constants_that_are_added_up_are_told_apart(case: str, spoilt: bool) -> None:
    rng = np.random.default_rng(11)
    bias = np.abs(rng.standard_normal((16, 4))).astype(np.float32)
    mask, other = (np.where(rng.random((16, 4)) < 0.3, np.float32(-100), np.float32(0)) for _ in range(2))
    both = mask if case == "once" else mask + other
    scales = [np.float32(np.abs(each).max() / 127) for each in (bias, both)]
    whole = [np.rint(each / s).astype(np.int8) for each, s in zip((bias, both), scales, strict=True)]
    held = {"b": bias, "m": mask, "u": other, "s": scales[0], "t": scales[1], "k": np.float32(0.02), "z": np.uint8(0)}
    held |= {"p": one_step(whole[0]) if spoilt else whole[0], "q": whole[1]}
    head = '<ir_version: 10, opset_import: ["" : 21]> g (float[16,4] x) => (float[16,4] y)'

    def made(body: str) -> onnx.ModelProto:
        model = onnx.parser.parse_model(f"{head} {{ h = Sigmoid (x) {body} }}")
        read = {name for node in model.graph.node for name in node.input}
        names = sorted(read.difference("x", *(node.output for node in model.graph.node)))
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(held[name]), name) for name in names)
        return model

    plain, copy = map(made, SUMS[case])
    found = compare(plain, copy, allow=["int8"], run=False, graphs=False)
    assert (found.verdict in ACCEPTED) != spoilt, found.reason
    assert not spoilt or [row["b"] for row in found.evidence["precision"]["off"]] == ["p"], found.reason


JOINED = {  # rows beside what is computed, in any order of their names; one table against two that are joined
    "beside an input": ("y = Concat <axis = 0> ({0}, {1}, x)", {}),
    "between inputs": ("n = Neg (x) y = Concat <axis = 0> (x, {0}, n, {1})", {}),
    "one table": ("t = Concat <axis = 0> ({0}, {1}) y = Add (x, t)", {"t": "y = Add (x, t)"}),
}


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("case", JOINED)
def test_constants_that_are_joined_are_told_apart(case: str, swapped: bool, spoilt: bool) -> None:
    rng = np.random.default_rng(4)
    rows = [rng.standard_normal((n, 4)).astype(np.float32) * by for n, by in ((2, 1), (2, 3))]
    scales = [np.float32(np.abs(each).max() / 127) for each in rows]
    whole = [np.rint(each / s).astype(np.int8) for each, s in zip(rows, scales, strict=True)]
    text, plainly = JOINED[case]
    count = {"beside an input": 8, "between inputs": 12, "one table": 4}[case]
    head = f'<ir_version: 10, opset_import: ["" : 21]> g (float[4,4] x) => (float[{count},4] y)'

    def made(body: str, **held: np.ndarray) -> onnx.ModelProto:
        model = onnx.parser.parse_model(f"{head} {{ {body} }}")
        model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in held.items())
        return model

    table = {"t": np.concatenate(rows)} if plainly else {"a": rows[0], "b": rows[1]}
    plain = made(plainly.get("t", text.format("a", "b")), **table)
    stored = "e = DequantizeLinear (q, t2) d = DequantizeLinear (p, s) " if swapped else (
        "d = DequantizeLinear (p, s) e = DequantizeLinear (q, t2) "
    )
    given = {"p": one_step(whole[0]) if spoilt else whole[0], "q": whole[1], "s": scales[0], "t2": scales[1]}
    found = compare(plain, made(stored + text.format("d", "e"), **given), allow=["int8"], run=False, graphs=False)
    assert (found.verdict in ACCEPTED) != spoilt, found.reason
    assert not spoilt or [row["b"] for row in found.evidence["precision"]["off"]] == ["p"], found.reason


KERNELS = {  # of constants alone, in the model, and in the copy as it runs them: no reference knows the second kernel
    "product": ("c = MatMul (a, b)", "m = QLinearMatMul (p, s, z, q, t, z, k, z)"),
    "join": ("c = Concat <axis = 0> (a, b)", "m = com.microsoft.QLinearConcat <axis = 0> (k, z, p, s, z, q, t, z)"),
}


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("case", KERNELS)
def test_constants_that_a_copy_computes_in_integers_are_told_apart(case: str, spoilt: bool) -> None:
    """As SigLIP's query and DINOv2's table of positions: the product is off by more than half of its own step."""
    rng = np.random.default_rng(8)
    rows = [rng.standard_normal((n, 4)).astype(np.float32) for n in (1, 4)]
    scales = [np.float32(np.abs(each).max() / 127) for each in rows]
    whole = [np.rint(each / s).astype(np.int8) for each, s in zip(rows, scales, strict=True)]
    step = np.float32(np.abs(rows[0] @ rows[1]).max() / 127) if case == "product" else max(scales)
    given = {"p": one_step(whole[0]) if spoilt else whole[0], "q": whole[1], "s": scales[0], "t": scales[1]}
    body, out = "h = ReduceMax <keepdims = 1> (x) ", f"float[{1 if case == 'product' else 5},4] y"
    model, copied = KERNELS[case]
    plain = small(f"{model} {body} y = Mul (h, c)", out=out, a=rows[0], b=rows[1])
    body += "v = QuantizeLinear (h, u, z) g = DequantizeLinear (v, u, z) c = DequantizeLinear (m, k, z) y = Mul (g, c)"
    copy = small(f"{copied} {body}", out=out, k=step, z=np.int8(0), u=np.float32(0.1), **given)
    found = compare(plain, copy, allow=["int8"], run=False, graphs=False)
    assert (found.verdict in ACCEPTED) != spoilt, found.reason
    assert not spoilt or [row["b"] for row in found.evidence["precision"]["off"]] == ["p"], found.reason


def test_joins_without_constants_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows over the skip connection of a U-Net at 512 pixels are 150 million places."""
    looked = []
    monkeypatch.setattr(facing, "_seen", lambda *given: looked.append(given) or [])
    text = (
        '<ir_version: 8, opset_import: ["": 18]> g (float[1,2,6,6] x) => (float[1,1,6,6] y) '
        "<float[2,2,1,1] v = {{1.0, 2.0, 3.0, 4.0}}, float[1,4,3,3] w = {{{}}}> "
        "{{ a = Conv (x, v) b = Tanh (a) c = Concat <axis = 1> (b, a) y = Conv <pads = [1, 1, 1, 1]> (c, w) }}"
    )
    weights = np.random.default_rng(0).standard_normal(36).astype(np.float32)
    moved = np.nextafter(weights, np.float32(np.inf))
    models = [onnx.parser.parse_model(text.format(", ".join(map(repr, each.tolist())))) for each in (weights, moved)]
    assert compare(*models, allow=["ulps=4"], run=False, graphs=False).verdict in ACCEPTED
    assert not looked
