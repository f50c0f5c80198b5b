"""Nets as people train them, in small: padded pools, saturated units, gates, token ids. A gross fault in one is
`different`, by an input that replays; a weight moved by one ulp, or sums taken in another order, never are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphcheck.parting import difference
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

KINDS = ("drawn", "first-order", "redrawn", "running")
HEADER = '<ir_version: 10, opset_import: ["": 20]>'
POOL = "MaxPool<kernel_shape=[5,5],pads=[2,2,2,2]>"


def silu(name: str, conv: str) -> str:
    return f"{name}c = {conv} {name}s = Sigmoid({name}c) {name} = Mul({name}c, {name}s)"


# name: graph, and the weights' names, shapes and scales
NETS: dict[str, tuple[str, dict[str, tuple[tuple[int, ...], float]]]] = {
    "resnet stem": (
        """g (float[N,3,24,24] x) => (float[N,8] y) {
             c = Conv<kernel_shape=[7,7],strides=[2,2],pads=[3,3,3,3]>(x, w0)
             r = Relu(c) p = MaxPool<kernel_shape=[3,3],strides=[2,2],pads=[1,1,1,1]>(r)
             d = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(p, w1) e = Relu(d)
             f = Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(e, w2) s = Add(f, p) t = Relu(s)
             m = GlobalAveragePool(t) y = Flatten(m) }""",
        {"w0": ((8, 3, 7, 7), 0.4), "w1": ((8, 8, 3, 3), 0.5), "w2": ((8, 8, 3, 3), 0.5)},
    ),
    "yolo sppf": (
        f"""g (float[N,3,12,12] x) => (float[N,6,12,12] y) {{
             {silu("a", "Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(x, w0)")}
             p = {POOL}(a) q = {POOL}(p) r = {POOL}(q) j = Concat<axis=1>(a, p, q, r)
             {silu("b", "Conv<kernel_shape=[1,1]>(j, w1)")}
             {silu("y", "Conv<kernel_shape=[3,3],pads=[1,1,1,1]>(b, w2)")} }}""",
        {"w0": ((4, 3, 3, 3), 6.0), "w1": ((6, 16, 1, 1), 2.0), "w2": ((6, 6, 3, 3), 1.5)},
    ),
    "silu layers": (
        f"""g (float[N,8] x) => (float[N,8] y) {{
             {silu("a", "Gemm(x, w0, b0)")} {silu("b", "MatMul(a, w1)")} {silu("y", "MatMul(b, w2)")} }}""",
        {"w0": ((8, 8), 4.0), "b0": ((8,), 60.0), "w1": ((8, 8), 2.0), "w2": ((8, 8), 1.0)},
    ),
    "lstm": (
        """g (float[6,N,5] x) => (float[N,3] y) {
             u = Unsqueeze(w0, z) v = Unsqueeze(w1, z) h, l, c = LSTM<hidden_size=8>(x, u, v, b0)
             s = Squeeze(l, z) y = MatMul(s, w2) }""",
        {"w0": ((32, 5), 4.0), "b0": ((1, 64), 60.0), "w1": ((32, 8), 3.0), "w2": ((8, 3), 1.0)},
    ),
    "gru": (
        """g (float[6,N,5] x) => (float[N,3] y) {
             u = Unsqueeze(w0, z) v = Unsqueeze(w1, z) h, l = GRU<hidden_size=8,linear_before_reset=1>(x, u, v, b0)
             s = Squeeze(l, z) y = MatMul(s, w2) }""",
        {"w0": ((24, 5), 4.0), "b0": ((1, 48), 60.0), "w1": ((24, 8), 3.0), "w2": ((8, 3), 1.0)},
    ),
    "tokens": (
        f"""g (int64[N,5] ids, int64[N,5] attention_mask) => (float[N,5,8] y) {{
             e = Gather(w0, ids) i = Cast<to=7>(attention_mask) f = Cast<to=1>(i) l = Constant<value_ints=[-1]>()
             u = Unsqueeze(f, l) m = Mul(e, u) {silu("a", "MatMul(m, w1)")} t = Transpose<perm=[0,2,1]>(m)
             k = MatMul(a, t) n = Softmax(k) o = MatMul(n, a) y = MatMul(o, w2) }}""",
        {"w0": ((30, 8), 9.0), "w1": ((8, 8), 6.0), "w2": ((8, 8), 1.0)},
    ),
}
DAMAGES = [(n, d) for n in NETS for d in ("pads", "negated", "swapped", "one column") if d != "pads" or "Conv" in NETS[n][0]]


def net(name: str) -> onnx.ModelProto:
    text, weights = NETS[name]
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    for i, (key, (shape, scale)) in enumerate(weights.items()):
        w = np.random.default_rng([7, i]).standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]) ** 0.5)
        model.graph.initializer.append(numpy_helper.from_array(w.astype(np.float32), key))
    if "Squeeze" in text:
        model.graph.initializer.append(numpy_helper.from_array(np.asarray([0], np.int64), "z"))
    return model


def changed(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """The net with one fault, or with what is no more than rounding."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    weights = [t for t in other.graph.initializer if t.name.startswith("w")]
    if kind == "pads":
        convs = [n for n in other.graph.node if n.op_type == "Conv" and any(a.name == "pads" for a in n.attribute)]
        pads = next(a for a in convs[-1].attribute if a.name == "pads")
        pads.ints[:] = [pads.ints[0] - 1, pads.ints[1], pads.ints[2] + 1, pads.ints[3]]
        return other
    target = weights[0 if kind == "ulp" else 1]
    w = numpy_helper.to_array(target).copy()
    flat = w.reshape(-1)
    if kind == "negated":
        w = -w
    elif kind == "swapped":
        w[[0, 1]] = w[[1, 0]]
    elif kind == "one column":
        w[:, 0] *= np.float32(1.5)
    else:
        flat[flat.size // 2] = np.nextafter(flat[flat.size // 2], np.float32(np.inf))
    target.CopyFrom(numpy_helper.from_array(w, target.name))
    return other


@pytest.fixture(params=["any bound", "one draw", "first order"])
def bounds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small nets have a strict bound, too; large ones have a draw of roundings, and the one to first order."""
    if request.param != "any bound":
        monkeypatch.setattr(difference, "_RIGOROUS_ELEMENTS", 0)
    if request.param == "first order":
        monkeypatch.setattr(difference, "ONCE", math.inf)
    return str(request.param)


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_a_gross_fault_is_different(name: str, damage: str, bounds: str, tmp_path: Path) -> None:
    a = net(name)
    b = changed(a, damage)
    onnx.save(a, tmp_path / "a.onnx")
    onnx.save(b, tmp_path / "b.onnx")
    found = compare(tmp_path / "a.onnx", tmp_path / "b.onnx", witness=tmp_path, timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT, found.reason
    replayed = compare(tmp_path / "a.onnx", tmp_path / "b.onnx", inputs=found.evidence["witness"]["path"], timeout=60.0)
    assert replayed.verdict is Verdict.DIFFERENT and replayed.evidence["witness"]["kind"] == "given", replayed.reason
    kinds = {"any bound": KINDS, "one draw": KINDS[:2], "first order": KINDS[1:3]}[bounds]
    assert found.evidence["float64"][0]["kind"] in kinds


@pytest.mark.parametrize("name", NETS)
def test_one_ulp_is_no_difference(name: str, bounds: str) -> None:
    a = net(name)
    b = changed(a, "ulp")
    found = compare(a, b, timeout=60.0)
    assert found.verdict in (Verdict.WITHIN_ROUNDING, Verdict.UNDECIDED), found.reason


def test_sums_in_another_order_are_no_difference(bounds: str) -> None:
    """Channels that are summed in two halves, behind a pool whose ties may be broken otherwise."""
    a = net("yolo sppf")
    b = onnx.ModelProto()
    b.CopyFrom(a)
    conv = next(n for n in b.graph.node if list(n.input) == ["j", "w1"])
    (target,) = (t for t in b.graph.initializer if t.name == "w1")
    w = numpy_helper.to_array(target)
    b.graph.initializer.append(numpy_helper.from_array(np.asarray([8, 8], np.int64), "halves"))
    b.graph.initializer.append(numpy_helper.from_array(w[:, :8].copy(), "w1a"))
    b.graph.initializer.append(numpy_helper.from_array(w[:, 8:].copy(), "w1b"))
    at = list(b.graph.node).index(conv)
    parts = onnx.parser.parse_graph(
        "g () => () { ja, jb = Split<axis=1>(j, halves) ca = Conv(ja, w1a) cb = Conv(jb, w1b) bc = Add(ca, cb) }"
    )
    nodes = [*b.graph.node[:at], *parts.node, *b.graph.node[at + 1 :]]
    del b.graph.node[:]
    b.graph.node.extend(nodes)
    assert compare(a, b, timeout=60.0).verdict is not Verdict.DIFFERENT
