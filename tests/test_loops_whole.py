"""Loops of many steps as one function: what is equal is proved at any count, and no two loops that differ become one."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from ops_support import model

import graphcheck
from graphcheck.errors import Undecided
from graphcheck.kernel.ops.control import _MANY, Body
from graphcheck.kernel.proof.pair import Pair, build
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.segments import Segments
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.rules.numbers import above_zero
from graphcheck.kernel.terms.store import Terms
from graphcheck.verdict import Verdict

N = _MANY + 6
HEAD = "g (float[2,4] x, float[2,4] z, float[{n},4] rows) => ({outputs}) <int64 n = {{{n}}}, bool c = {{1}}, float k = {{0.5}}, float one = {{1}}, int64 i1 = {{1}}>"


def loop(body: str, given: str = "x", states: str = "float[2,4] a", nexts: str = "float[2,4] b", made: str = "y", n: int = N) -> str:
    """A Loop of ``n`` steps over ``states``, whose body computes ``nexts``."""
    return f"{made} = Loop (n, c, {given}) <body = l (int64 i, bool ci, {states}) => (bool co, {nexts}) {{ co = Identity(ci) {body} }}>"


def graph(nodes: str, n: int = N, outputs: str = "float[2,4] y") -> onnx.ModelProto:
    return model(HEAD.format(n=n, outputs=outputs) + " {" + nodes + "}")


def traced(a: onnx.ModelProto, b: onnx.ModelProto, whole: bool = True) -> Pair:
    shapes = {v.name: (v.name, tuple(d.dim_value for d in v.type.tensor_type.shape.dim)) for v in a.graph.input}
    return build(ir.from_proto(a), ir.from_proto(b), shapes, {}, whole=whole)


def wholes(nodes: str, n: int = N, outputs: str = "float[2,4] y") -> int:
    """How many loops of a graph are taken as a whole."""
    made = graph(nodes, n, outputs)
    return traced(made, made).algebra.wholes // 2


def met(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    """Whether two graphs are proved to be one with their loops as wholes, by all that can prove them."""
    pair = traced(a, b)
    assert pair.algebra.wholes > 0
    roots = [[pair.algebra.lift(v).cls for v in trace.outputs] for trace in (pair.a, pair.b)]  # type: ignore[arg-type]
    prover = Prover(pair.terms, *roots, pair.row_counts(), seed=0, target=1e-9)
    return prover.prove() or bool(prover.from_inputs())


BASE = loop("t = Tanh(a) b = Mul(t, k)")
TWO = {"given": "x, z", "states": "float[2,4] a, float[2,4] s", "nexts": "float[2,4] b, float[2,4] r", "made": "y, last"}
NUMBER = "f = Cast<to = 1>(i) "
PICKED = "p = Gather<axis = 0>(rows, i) b = Add(a, p)"
GATED = "u = Mul(a, x) g = Sigmoid(u) h = Sub(one, g) t = Tanh(u) p = Mul(g, t) q = Mul(h, a) b = Add(p, q)"
SCANNED = "y, out = Scan<num_scan_inputs = 1, body = l (float[2,4] a, float[4] row) => (float[2,4] b, float[2,4] o) {{ s = Add(a, row) b = Tanh(s) o = Mul({0}, {1}) }}{2}>(x, rows)"


def nested(inner: str, outer: str = "b = Add(v, a)", n: int = N) -> str:
    """A Loop in a Loop; the inner one goes from z over ``s`` to ``r``."""
    within = loop(inner, "z", "float[2,4] s", "float[2,4] r", "v").replace("l (int64 i, bool ci", "m (int64 j, bool cj")
    return loop(within.replace("co", "cp").replace("(ci)", "(cj)") + " " + outer)


SAME = {
    "order of factors": (BASE, loop("t = Tanh(a) b = Mul(k, t)")),
    "distributed": (loop("t = Sin(a) d = Add(t, x) b = Mul(d, k)"), loop("t = Sin(a) u = Mul(t, k) w = Mul(k, x) b = Add(w, u)")),
    "from the inputs": (
        loop("t = Tanh(a) u = Mul(t, t) v = Mul(u, a) w = Mul(t, a) b = Add(v, w)"),
        loop("t = Tanh(a) u = Mul(t, a) v = Mul(u, t) s = Sub(v, u) w = Add(u, u) b = Add(s, w)"),
    ),
    "what is around": (loop("t = Tanh(a) b = Mul(t, z)") + " ", "m = Mul(z, one) " + loop("t = Tanh(a) b = Mul(m, t)")),
    "step's number": (loop(NUMBER + "t = Tanh(a) b = Mul(t, f)"), loop(NUMBER + "t = Tanh(a) b = Mul(f, t)")),
    "row by the step's number": (loop(PICKED), loop(PICKED.replace("a, p", "p, a"))),
    "gates": (loop(GATED), loop("u = Mul(x, a) g = Sigmoid(u) h = Sub(one, g) t = Tanh(u) p = Mul(t, g) q = Mul(a, h) b = Add(q, p)")),
    "nested": (nested("t = Tanh(s) r = Mul(t, a)"), nested("t = Tanh(s) r = Mul(a, t)")),
    "scan": (SCANNED.format("b", "row", ""), SCANNED.format("row", "b", "")),
    "two states": (loop("b = Tanh(s) r = Mul(a, s)", **TWO), loop("b = Tanh(s) r = Mul(s, a)", **TWO)),
}  # fmt: skip
APART = {
    "one constant": (BASE, loop("t = Tanh(a) d = Constant<value = float {0.50000006}>() b = Mul(t, d)")),
    "function": (BASE, loop("t = Sin(a) b = Mul(t, k)")),
    "first state": (BASE, BASE.replace("c, x)", "c, z)")),
    "first states exchanged": (loop("b = Tanh(s) r = Mul(a, k)", **TWO), loop("b = Tanh(s) r = Mul(a, k)", **{**TWO, "given": "z, x"})),
    "states exchanged": (loop("b = Tanh(s) r = Mul(a, k)", **TWO), loop("r = Tanh(s) b = Mul(a, k)", **TWO)),
    "which state comes out": (loop("b = Tanh(s) r = Mul(a, k)", **TWO), loop("b = Tanh(s) r = Mul(a, k)", **{**TWO, "made": "last, y"})),
    "state that reads another": (loop("b = Tanh(a) r = Mul(s, k)", **TWO), loop("b = Tanh(s) r = Mul(s, k)", **TWO)),
    "state for its first one": (loop("t = Tanh(a) b = Mul(t, x)"), loop("t = Tanh(x) b = Mul(t, a)")),
    "state that stays": (loop("b = Mul(x, k)"), loop("b = Mul(a, k)")),
    "step's number": (loop(NUMBER + "b = Mul(a, f)"), loop(NUMBER + "d = Add(f, one) b = Mul(a, d)")),
    "no step's number": (loop(NUMBER + "b = Add(a, f)"), loop("b = Add(a, one)")),
    "step's number for a state": (loop(NUMBER + "t = Mul(f, k) b = Add(a, t)"), loop("t = Mul(a, k) b = Add(a, t)")),
    "what is around": (loop("b = Mul(a, x)"), loop("b = Mul(a, z)")),
    "row by another number": (loop(PICKED), loop("j = Mul(i, i1) w = Gather<axis = 0>(rows, i1) b = Add(a, w)")),
    "what follows": (BASE + " w = Mul(y, k)", BASE + " w = Mul(y, one)"),
    "nested: which state": (nested("r = Mul(s, k)"), nested("r = Mul(a, k)")),
    "nested: level": (nested("r = Identity(a)", "b = Mul(v, k)"), loop("r = Identity(s)", "z", "float[2,4] s", "float[2,4] r", "w") + " " + loop("b = Mul(w, k)")),
    "nested: whose number": (nested("f = Cast<to = 1>(i) r = Mul(s, f)"), nested("f = Cast<to = 1>(j) r = Mul(s, f)")),
    "scan: slice for state": (SCANNED.format("b", "row", ""), SCANNED.format("a", "row", "")),
    "scan: which comes out": (SCANNED.format("b", "row", ""), SCANNED.format("s", "row", "")),
}  # fmt: skip


def pair_of(texts: tuple[str, str]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    scanned = f", float[{N},2,4] out" if "out =" in texts[0] else ""
    name = "w" if "w = Mul(y" in texts[0] else "y"
    a, b = (graph(text, outputs=f"float[2,4] {name}{scanned}") for text in texts)
    return a, b


@pytest.mark.parametrize("name", SAME)
def test_equal_bodies_are_one_function(name: str) -> None:
    a, b = pair_of(SAME[name])
    assert met(a, b) and met(b, a)


@pytest.mark.parametrize("name", APART)
def test_bodies_that_differ_are_not(name: str) -> None:
    a, b = pair_of(APART[name])
    assert met(a, a) and met(b, b)
    assert not met(a, b) and not met(b, a)


def test_counts_differ() -> None:
    a, b = graph(BASE), graph(BASE)
    b.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.asarray(N + 1, np.int64), "n"))
    assert not met(a, b)


def test_a_scan_is_no_loop() -> None:
    """What a Loop gives as its state and stacks, a Scan slices and gives as its state: they have the same operands."""
    text = loop("b = Identity(rows) t = Tanh(a)", "rows", f"float[{N},4] a", f"float[{N},4] b, float[{N},4] t", "y, out")
    stacked = graph(text, outputs=f"float[{N},4] y")
    body = f"l (float[{N},4] a, float[4] row) => (float[{N},4] t) {{ t = Tanh(a) }}"
    sliced = graph(f"y = Scan<num_scan_inputs = 1, body = {body}> (rows, rows)", outputs=f"float[{N},4] y")
    assert met(stacked, stacked) and met(sliced, sliced)
    assert not met(stacked, sliced) and not met(sliced, stacked)


SMALLEST = "m = Constant<value = float[1] {-inf}>() s = Constant<value = int64[2] {2, 4}>() w = Expand(m, s) "
NOT_WHOLE = {
    "the first step divides by 0": loop(NUMBER + "d = Div(f, f) b = Mul(a, d)"),
    "the logarithm of a state": loop("l = Log(a) m = Mul(l, k) b = Exp(m)"),
    "a state may be 0": loop("d = Div(a, a) b = Mul(x, d)"),
    "its root": loop("r = Sqrt(a) b = Mul(r, r)"),
    "an integer division": loop("q = Div(i1, i) f = Cast<to = 1>(q) b = Mul(a, f)"),
    "rows there are not": loop("j = Add(i, i1) p = Gather<axis = 0>(rows, j) b = Add(a, p)"),
    "it stops": loop("b = Mul(a, k)").replace("co = Identity(ci)", "h = Constant<value = int64 {9}>() co = Less(i, h)"),
    "-inf at first": SMALLEST + loop("t = Tanh(x) b = Max(a, t)", given="w"),
    "a state of constants overflows": "h = Constant<value = float[2,4] {1, 1, 1, 1, 1, 1, 1, 1}>() " + loop("b = Add(a, a)", given="h"),
    "a power of the number overflows": loop(NUMBER + "e = Exp(f) z = Sub(e, e) b = Add(a, z)"),
    "a product of the number and of what is made of it overflows": loop(NUMBER + "g = Add(f, k) p = Mul(g, f) q = Mul(p, f) r = Sub(q, q) b = Add(a, r)"),
    "a product of the number overflows": loop(NUMBER + "p = Mul(f, f) q = Mul(p, p) z = Sub(q, q) b = Add(a, z)"),
    "shapes that grow": loop("b = Concat<axis = 0>(a, x)", states="float[p,4] a", nexts="float[q,4] b"),
    "a Scan backwards": SCANNED.format("b", "row", ", scan_input_directions = [1]"),
    "a number that steers": "e = Constant<value = int64[1] {1}>() " + loop("j = Mod(i, i1) h = Reshape(j, e) v = Slice(a, h, h) t = ReduceSum(v) b = Add(a, t)"),
}


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_what_a_step_does_not_tell_is_followed(name: str) -> None:
    text = NOT_WHOLE[name]
    made = graph(text)
    if name in ("the first step divides by 0", "rows there are not"):
        with pytest.raises(Undecided, match=r"NaN|out of bounds"):
            traced(made, made)
    else:
        assert traced(made, made).algebra.wholes == 0


def test_few_steps_are_followed() -> None:
    assert wholes(BASE, _MANY) == 1 and wholes(BASE, _MANY - 1) == 0 and wholes(BASE, 0) == 0


@pytest.mark.parametrize("found", [1.0, 0.5])
def test_what_is_greater_than_zero(found: float) -> None:
    terms = Terms(RULES)
    x = terms.leaf(("x",), 4)
    power, count = terms.ew("exp", [(x, None)], 4), terms.const(np.asarray([found]))
    square = terms.ew("mul", [(x, None), (x, None)], 4)
    beyond = [power, count, terms.ew("add", [(square, None), (count, None)], 4), terms.sum(power, 2, 2)]
    assert all(above_zero(terms, c) for c in beyond)
    assert not any(above_zero(terms, c) for c in (x, square, terms.const(np.zeros(1)), terms.ew("add", [(x, None), (count, None)], 4)))


FREE = """<ir_version: 10, opset_import: ["" : 18]> g (float[N,4] x) => (float[N,4] y) <int64 n = {{{n}}}, bool c = {{1}}, float k = {{0.5}}>
{{ y = Loop (n, c, x) <body: graph = b (int64 i, bool ci, float[M,4] a) => (bool co, float[M,4] b) {{ co = Identity (ci) {body} }}> }}"""


def free(body: str, n: int = 100_000) -> onnx.ModelProto:
    return onnx.parser.parse_model(FREE.format(n=n, body=body))


def test_any_count_at_every_size() -> None:
    found = graphcheck.compare(free("t = Tanh(a) b = Mul(t, k)"), free("t = Tanh(a) b = Mul(k, t)"))
    assert found.verdict is Verdict.PROVED and "for every batch size" in found.reason


def test_a_loop_is_undecided_at_once_where_it_goes_on_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its steps are not followed up to the limit of 10,000."""
    followed, follow = list[Body](), Body.__call__

    def counted(self: Body, graph: ir.Graph, inputs: Sequence[Any]) -> list[Any]:
        followed.append(self)
        return follow(self, graph, inputs)

    monkeypatch.setattr(Body, "__call__", counted)
    found = graphcheck.compare(free("t = Tanh(a) b = Mul(t, k)"), free("t = Sin(a) b = Mul(t, k)"))
    assert found.verdict is Verdict.UNDECIDED and "Loop goes on beyond" in found.reason
    assert 0 < len(followed) < 1_000


def test_rows_that_meet_in_a_loop_are_seen() -> None:
    a, b = free("s = Softmax<axis = 1>(a) b = Mul(s, k)", N), free("s = Softmax<axis = 0>(a) b = Mul(s, k)", N)
    assert graphcheck.compare(a, b, run=False).verdict is not Verdict.PROVED


def test_what_the_steps_prove_is_proved_as_before() -> None:
    """Two states that are exchanged are equal step by step, not as a whole."""
    a, b = graph(loop("b = Tanh(s) r = Mul(a, s)", **TWO)), graph(loop("r = Tanh(a) b = Mul(s, a)", **{**TWO, "given": "z, x", "made": "last, y"}))
    assert not met(a, b)
    assert graphcheck.compare(a, b).verdict is Verdict.PROVED


def test_the_names_of_loops_tell_their_levels() -> None:
    """The state of the loop around is not that of a loop in the graph, though both stand at level 1."""
    loops = loop("r = Identity(s)", "z", "float[2,4] s", "float[2,4] r", "w") + " " + loop("b = Identity(w)")
    a, b = (graph(text.replace("Identity(ci)", "Identity(c)").replace("Identity(cj)", "Identity(c)")) for text in (loops, nested("r = Identity(a)", "b = Identity(v)")))
    for other, holds in ((a, True), (b, False)):
        pair = traced(a, other)
        prover = Prover(pair.terms, [], [], [], seed=0, target=1e-9)
        assert Segments(pair, prover, {}).everywhere([(0, 0)]).holds is holds
