"""The first divergence is the fault: where movement departs, beside honest re-rounding, inside of bodies, where it breaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from graphcheck.parting import nearness
from graphcheck.verdicts.compare import compare

HEADER = '<ir_version: 10, opset_import: ["": 20, "local": 1]>'
SQUARE = """g (float[3,3] x) => (float[3,3] y) {
    i = Constant<value_ints=[2,0,1]>() a = Sin(x) b = Transpose<perm=[1,0]>(a) c = Relu(b) d = Gather<axis=0>(c, i)
    e = Concat<axis=0>(d, a) s = Constant<value_ints=[3,3]>() p, q = Split<axis=0>(e, s) h = Mul(p, c) k = Add(h, q)
    m = Sub(k, b) y = MatMul(m, x) }"""


def model(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    """A model in text; the weights are initializers of the main graph."""
    made = onnx.parser.parse_model(f"{HEADER} {text}")
    for name, value in weights.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    onnx.checker.check_model(made)
    return made


def first(a: onnx.ModelProto, b: onnx.ModelProto, **options: Any) -> dict[str, Any]:
    """Where B parts from A."""
    found = compare(a, b, run=False, timeout=60.0, **options)
    assert str(found.verdict) not in ("identical", "proved"), found.reason
    place: dict[str, Any] = found.evidence["divergence"]["b"]
    return place


# what is written in A, what in B, and the operator and tensor of the fault
MOVED = (
    ("b = Transpose<perm=[1,0]>(a)", "b = Transpose<perm=[0,1]>(a)", "Transpose", "b"),
    ("p, q = Split", "q, p = Split", "Split", "q"),
    ("e = Concat<axis=0>(d, a)", "e = Concat<axis=0>(a, d)", "Concat", "e"),
    ("[2,0,1]>() a", "[2,1,0]>() a", "Gather", "d"),
    ("h = Mul(p, c)", "h = Mul(p, q)", "Mul", "h"),
    ("k = Add(h, q)", "k = Add(h, p)", "Add", "k"),
    ("k = Add(h, q)", "k = Add(h, h)", "Add", "k"),
    ("m = Sub(k, b)", "m = Sub(b, k)", "Sub", "m"),
    ("c = Relu(b)", "c = LeakyRelu(b)", "LeakyRelu", "c"),
    ("y = MatMul(m, x)", "y = MatMul(x, m)", "MatMul", "y"),
)


@pytest.mark.parametrize(("right", "wrong", "op", "tensor"), MOVED)
def test_the_node_where_movement_or_wiring_departs_is_named(right: str, wrong: str, op: str, tensor: str) -> None:
    assert right in SQUARE
    place = first(model(SQUARE), model(SQUARE.replace(right, wrong)))
    assert (place["op_type"], place["tensor"]) == (op, tensor)


def test_swapped_outputs_are_named() -> None:
    text = "g (float[3,3] x) => (float[3,3] y, float[3,3] z) { y = Sin(x) z = Cos(x) }"
    swapped = text.replace("y = Sin(x) z = Cos(x)", "z = Sin(x) y = Cos(x)")
    assert first(model(text), model(swapped))["tensor"] in "yz"


def test_a_fault_in_what_is_computed_from_constants_is_named() -> None:
    text = """g (float[3,3] x) => (float[3,3] y) {
        c = Constant<value_floats=[1.0,2.0,4.0]>() i = Constant<value_ints=[0,1,2]>()
        d = Gather(c, i) e = Add(d, d) y = Mul(x, e) }"""
    assert first(model(text), model(text.replace("[0,1,2]", "[0,2,1]")))["tensor"] == "d"


LAYERS = 3
W = [np.random.default_rng(i).standard_normal((4, 4)).astype(np.float32) for i in range(LAYERS)]
SCALE = np.asarray([0.1, 0.3, 0.7, 1.1], np.float32)


def layers(*, folded: bool, wrong: int | None = None) -> onnx.ModelProto:
    """Products whose columns are scaled; ``folded`` into the weights, rounded; one column of a weight may be negated."""
    lines, weights = [], {}
    for i in range(LAYERS):
        w = W[i].copy()
        w[:, 1] *= -1 if i == wrong else 1
        source = f"r{i - 1}" if i else "x"
        weights[f"w{i}"] = w * SCALE if folded else w
        lines.append(f"m{i} = MatMul({source}, w{i})" + ("" if folded else f" s{i} = Mul(m{i}, scale)"))
        lines.append(f"r{i} = Tanh({'m' if folded else 's'}{i})")
    weights |= {} if folded else {"scale": SCALE}
    body = " ".join([*lines, f"y = Identity(r{LAYERS - 1})"])
    return model(f"g (float[2,4] x) => (float[2,4] y) {{ {body} }}", **weights)


@pytest.mark.parametrize("wrong", range(LAYERS))
def test_re_rounded_layers_before_the_fault_are_passed_over(wrong: int) -> None:
    assert first(layers(folded=False), layers(folded=True, wrong=wrong))["tensor"] == f"m{wrong}"


def test_where_all_is_rounding_the_first_re_rounded_node_is_named() -> None:
    assert first(layers(folded=False), layers(folded=True))["tensor"] == "m0"


def test_a_small_fault_does_not_hide_in_what_layers_before_it_have_rounded() -> None:
    """The epsilon of the last normalization, behind products that were re-rounded."""
    a, b = layers(folded=False), layers(folded=True)
    for made, epsilon in ((a, 1e-5), (b, 1e-6)):
        last = made.graph.node[-1]
        made.graph.initializer.append(numpy_helper.from_array(np.full(4, 2.0, np.float32), "g"))
        last.CopyFrom(onnx.helper.make_node("LayerNormalization", [last.input[0], "g"], ["y"], epsilon=epsilon))
    assert first(a, b)["op_type"] == "LayerNormalization"


DEEP = 12


def deep(first: str, wrong: int | None = None) -> onnx.ModelProto:
    """A product that is scaled, as ``first`` says, and many more behind it; one column of a weight may be negated."""
    lines, weights = [first], {"scale": np.float32(0.35355338), "near": np.float32(0.3535534)}
    for i in range(DEEP):
        weights[f"w{i}"] = W[i % LAYERS] * (1 if i != wrong else np.asarray([1, -1, 1, 1], np.float32))
        lines.append(f"m{i} = MatMul({f't{i - 1}' if i else 's'}, w{i}) t{i} = Tanh(m{i})")
    body = " ".join([*lines, f"y = Identity(t{DEEP - 1})"])
    return model(f"g (float[2,4] x) => (float[2,4] y) {{ {body} }}", **weights)


@pytest.mark.parametrize(("most", "tensor"), [(1.0, "q"), (3e4, f"m{DEEP - 1}")])
def test_behind_a_re_rounded_factor_only_what_departs_is_evaluated(
    most: float, tensor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many layers compute the same of it: they need no evaluation of their own in B, and no noise in A."""
    seen: list[int] = []
    apply = nearness.apply
    monkeypatch.setattr(nearness, "apply", lambda *known: seen.append(known[2]) or apply(*known))
    monkeypatch.setattr(nearness, "MAX_WORK", most)
    wrong = deep("h = Sin(x) q = Mul(h, near) s = Neg(q)", DEEP - 1)
    assert first(deep("h = Sin(x) q = Mul(h, scale) s = Neg(q)"), wrong)["tensor"] == tensor
    assert tensor == "q" or 3 * DEEP <= len(seen) < 4 * DEEP, "a product, a Tanh and a weight for each layer of A"


def test_movement_of_what_was_re_rounded_is_passed_over() -> None:
    """Columns are picked, some of them twice, behind the folded scale and beside the fault."""
    text = """g (float[2,4] x) => (float[2,6] y) {
        i = Constant<value_ints=[0,0,2,3,1,1]>() m = MatMul(x, w) s = Mul(m, scale) p = Gather<axis=1>(s, i)
        q = MatMul(x, v) y = Mul(p, q) }"""
    v = np.random.default_rng(9).standard_normal((4, 6)).astype(np.float32)
    a = model(text, w=W[0], scale=SCALE, v=v)
    b = model(text.replace("s = Mul(m, scale)", "s = Identity(m)"), w=W[0] * SCALE, v=v[::-1].copy())
    assert first(a, b)["tensor"] == "q"


def test_another_layout_is_passed_over() -> None:
    """B computes in channels-last order and has another function on the way."""
    w = np.random.default_rng(0).standard_normal((3, 3, 1, 1))
    a = """g (float[1,3,4,4] x) => (float[1,3,4,4] y) {
        c = Conv(x, w) r = Relu(c) s = Sin(r) y = Conv(s, w) }"""
    b = """g (float[1,3,4,4] x) => (float[1,3,4,4] y) {
        c = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(c) r = Relu(t) s = Cos(r)
        u = Transpose<perm=[0,3,1,2]>(s) y = Conv(u, w) }"""
    assert first(model(a, w=w), model(b, w=w))["tensor"] == "s"


IF = """g (float[3,3] x, bool c) => (float[3,3] y) {
    a = Sin(x)
    b = If (c) <then_branch = t () => (float[3,3] p) { q = Cos(a) r = Transpose<perm=[1,0]>(q) p = Exp(r) },
                else_branch = e () => (float[3,3] p2) { p2 = Neg(a) }>
    y = MatMul(b, a) }"""
LOOP = """g (float[3,3] x) => (float[3,3] y) {
    n = Constant<value_int=3>() t = Constant<value=bool {1}>()
    b = Loop (n, t, x) <body = body (int64 i, bool go, float[3,3] s) => (bool on, float[3,3] o) {
        on = Identity(go) u = Transpose<perm=[1,0]>(s) v = MatMul(u, s) o = Sin(v) }>
    y = Neg(b) }"""
FUNCTION = """g (float[3,3] x) => (float[3,3] y) { a = local.f(x) b = local.f(a) y = Neg(b) }
    <domain: "local", opset_import: ["": 20]> f (u) => (w) { t = Transpose<perm=[1,0]>(u) v = MatMul(t, u) w = Sin(v) }"""


@pytest.mark.parametrize(
    ("text", "right", "wrong", "tensor", "around"),
    [
        (IF, "r = Transpose<perm=[1,0]>(q)", "r = Transpose<perm=[0,1]>(q)", "r", "If(b)"),
        (IF, "q = Cos(a)", "q = Tanh(a)", "q", "If(b)"),
        (IF, "p2 = Neg(a)", "p2 = Exp(a)", "p2", "If(b)"),
        (LOOP, "o = Sin(v)", "o = Cos(v)", "o", "Loop(b)"),
        (LOOP, "u = Transpose<perm=[1,0]>(s)", "u = Transpose<perm=[0,1]>(s)", "u", "Loop(b)"),
        (FUNCTION, "w = Sin(v)", "w = Cos(v)", "w", "f(a)"),
        (FUNCTION, "t = Transpose<perm=[1,0]>(u)", "t = Transpose<perm=[0,1]>(u)", "t", "f(a)"),
    ],
)
def test_bodies_are_looked_into(text: str, right: str, wrong: str, tensor: str, around: str, tmp_path: Path) -> None:
    assert right in text
    place = first(model(text), model(text.replace(right, wrong)), reduce=tmp_path)
    assert (place["tensor"], place["inside"]) == (tensor, (around,))


BROKEN = """g (float[2,3] x) => (float[2,6] y) {
    a = Sin(x) b = Cos(x) c = Concat<axis=1>(a, b) d = Exp(c) k = Constant<value_ints=[2,6]>() y = Reshape(d, k) }"""


@pytest.mark.parametrize(
    ("right", "wrong", "tensor"),
    [("Concat<axis=1>", "Concat<axis=0>", "c"), ("[2,6]>() y", "[5,5]>() y", "y"), ("a = Sin(x)", "a = Tan(x)", "a")],
)
def test_where_one_graph_cannot_be_evaluated_the_fault_is_named_all_the_same(right: str, wrong: str, tensor: str) -> None:
    other = BROKEN.replace(right, wrong)
    if tensor != "y":  # the last node fails either way
        other = other.replace("Exp(c) k = Constant<value_ints=[2,6]>()", "Exp(c) k = Constant<value_ints=[7,7]>()")
    proto = onnx.parser.parse_model(f"{HEADER} {other}")
    assert first(model(BROKEN), proto)["tensor"] == tensor


@pytest.mark.parametrize("branch", ["then_branch", "else_branch"])
def test_a_node_that_fails_in_a_body_is_told_as_the_node_around_it(branch: str) -> None:
    wrong = {"then_branch": ("p = Exp(r)", "p = MatMul(r, k)"), "else_branch": ("p2 = Neg(a)", "p2 = MatMul(a, k)")}[branch]
    place = first(model(IF), model(IF.replace(*wrong).replace("a = Sin(x)", "a = Sin(x) k = Constant<value_floats=[1.0,2.0]>()")))
    assert place["op_type"] == "If"


def test_reduce_writes_the_node_where_movement_departs(tmp_path: Path) -> None:
    b = model(SQUARE.replace("p, q = Split", "q, p = Split"))
    found = compare(model(SQUARE), b, run=False, reduce=tmp_path).evidence["reduced"]
    assert found["verdict"] == "different"
    assert onnx.load(found["b"]).graph.node[-1].op_type == "Split"


def test_reduce_cuts_out_a_node_with_its_body(tmp_path: Path) -> None:
    b = model(LOOP.replace("o = Sin(v)", "o = Cos(v)"))
    found = compare(model(LOOP), b, run=False, reduce=tmp_path).evidence["reduced"]
    assert found["verdict"] == "different", found["reason"]
    assert onnx.load(found["b"]).graph.node[-1].op_type == "Loop"


KNOWN = """g (float[b,12] x, int64 n) => (float[c,d] y) {
    k = Constant<value_int=8>() is = Equal(n, k) a = Sin(x)
    m = If (is) <then_branch = t () => (float[c,d] p) {
                     s = Constant<value_ints=[-1,4]>() q = Reshape(a, s) r = Exp(q) p = Cos(r) },
                 else_branch = e () => (float[c,d] p2) { s = Constant<value_ints=[-1,6]>() q = Reshape(a, s) p2 = Neg(q) }>
    o = If (is) <then_branch = t2 () => (float[c,d] p) { q = Abs(m) p = Sqrt(q) },
                 else_branch = e2 () => (float[c,d] p2) { q = Abs(m) p2 = Tanh(q) }>
    y = Neg(o) }"""


@pytest.mark.parametrize(
    ("text", "right", "wrong", "last"),
    [
        (KNOWN, "r = Exp(q)", "r = Tanh(q)", "Exp"),
        (KNOWN, "p2 = Neg(q)", "p2 = Exp(q)", "Neg"),
        (KNOWN, "p2 = Tanh(q)", "p2 = Sqrt(q)", "Tanh"),
        (KNOWN, "y = Neg(o)", "y = Exp(o)", "Neg"),
        (IF, "q = Cos(a)", "q = Tanh(a)", "Cos"),
        (IF, "p2 = Neg(a)", "p2 = Exp(a)", "Neg"),
    ],
)
def test_reduce_goes_into_the_branch(text: str, right: str, wrong: str, last: str, tmp_path: Path) -> None:
    found = compare(model(text), model(text.replace(right, wrong)), reduce=tmp_path).evidence["reduced"]
    assert found["verdict"] == "different", found["reason"]
    assert [node.op_type for node in onnx.load(found["a"]).graph.node] == [last]


def test_reduce_keeps_tensors_of_two_branches_apart(tmp_path: Path) -> None:
    """The graphs part in one shape and meet in another behind both branches, which have tensors of the same names."""
    text = KNOWN.replace("q = Reshape(a, s) r = Exp(q)", "q = Tanh(a) r = Reshape(q, s)")
    text = text.replace("q = Reshape(a, s) p2 = Neg(q)", "q = Exp(a) p2 = Reshape(q, s)")
    found = compare(model(KNOWN), model(text), reduce=tmp_path).evidence["reduced"]
    assert found["verdict"] == "different", found["reason"]
    ops = [node.op_type for node in onnx.load(found["a"]).graph.node]
    assert ops == ["Neg", "Abs", "Tanh", "Neg"]


@pytest.mark.parametrize("kind", ["equal", "broken", "interface"])
def test_reduce_says_why_it_writes_nothing(kind: str, tmp_path: Path) -> None:
    a = model(BROKEN)
    text = {"equal": BROKEN, "broken": BROKEN.replace("axis=1", "axis=0").replace("[2,6]>", "[5,5]>"), "interface": IF}[kind]
    b = onnx.parser.parse_model(f"{HEADER} {text}")
    found = compare(a, b, run=False, reduce=tmp_path / "r").evidence["reduced"]
    reasons = {"equal": "the graphs do not part", "broken": "could not be evaluated", "interface": "ended before"}
    assert found["a"] is None and reasons[kind] in found["reason"], found
    assert not (tmp_path / "r").exists()
