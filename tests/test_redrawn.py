"""Enlarged roundings, drawn at random: what they decide where no other bound is to be had, and what must never fool them.

Equal functions in two spellings, chaotic, cancelling or at a jump, may part in every evaluation by as much as there is. They
are never `different`.
"""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest

from graphcheck.files import model as model_
from graphcheck.interface.inputs import leaves_of
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair, build
from graphcheck.parting import difference, redrawn
from graphcheck.parting.difference import Deviation
from graphcheck.parting.rooms import largest
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

NUMBERS = {
    "zero": 0.0,
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "four": 4.0,
    "tenth": 0.1,
    "big": 1e6,
    "tiny": 1e-12,
    "vast": 1e12,
}
LOGISTIC = {  # 4 h (1 - h)
    "factored": "a{i} = Sub(one, h{i}) b{i} = Mul(h{i}, a{i}) h{j} = Mul(four, b{i})",
    "squared": "a{i} = Mul(h{i}, h{i}) b{i} = Sub(h{i}, a{i}) h{j} = Mul(b{i}, four)",
}
SQUARE = {  # h h - 2
    "plain": "a{i} = Mul(h{i}, h{i}) h{j} = Sub(a{i}, two)",
    "factored": "a{i} = Sub(h{i}, one) b{i} = Add(h{i}, one) c{i} = Mul(a{i}, b{i}) h{j} = Sub(c{i}, one)",
}
GROW = {  # h (2 - h / tiny): 0 stays 0 and is left by any rounding, tiny attracts
    "factored": "a{i} = Mul(h{i}, vast) b{i} = Sub(two, a{i}) h{j} = Mul(h{i}, b{i})",
    "expanded": "a{i} = Add(h{i}, h{i}) b{i} = Mul(h{i}, h{i}) c{i} = Mul(b{i}, vast) h{j} = Sub(a{i}, c{i})",
}
RESIDUE = {  # 0 over the reals
    "products": "p = Mul(x, tenth) q0 = Add(p, four) q1 = Sub(p, four) q = Mul(q0, q1) r0 = Mul(p, p) r1 = Mul(four, four) "
    "r = Sub(r0, r1) s = Sub(q, r)",
    "nothing": "p = Mul(x, tenth) s = Sub(p, p)",
}


def repeated(step: str, count: int) -> str:
    return " ".join(step.format(i=i, j=i + 1) for i in range(count))


TAILS = {
    "a steep Tanh": "d = Sub(h, half) e = Mul(d, big) y = Tanh(e)",
    "a steep Sigmoid": "d = Sub(h, half) e = Mul(d, vast) y = Sigmoid(e)",
    "a steep Clip": "d = Sub(h, half) e = Mul(d, vast) y = Clip(e, zero, one)",
    "a Clip far below 1": "d = Mul(h, tiny) e = Mul(half, tiny) f = Min(d, e) y = Mul(f, vast)",
    "a comparison": "g = Greater(h, half) y = Cast<to = 1>(g)",
    "float16": "d = Cast<to = 10>(h) e = Cast<to = 1>(d) f = Sub(e, half) g = Mul(f, vast) y = Tanh(g)",
    "nothing": "y = Identity(h)",
}
TENT = "a{i} = Add(h{i}, h{i}) b{i} = Sub(two, a{i}) h{j} = Min(a{i}, b{i})"  # without a rounding: 0 after 60 steps, always
CHAOS = {
    f"{name} {count} times, {tail}": (f"h0 = Sigmoid(x) {{}} h = Identity(h{count}) {TAILS[tail]}", steps, count)
    for name, steps, count in (("logistic", LOGISTIC, 60), ("logistic", LOGISTIC, 200), ("square", SQUARE, 80))
    for tail in (TAILS if count < 200 else ("nothing", "a steep Tanh"))
}
AT_AN_EDGE = {
    "== 0": "g = Equal(s, zero) y = Cast<to = 1>(g)",
    ">= 0": "g = GreaterOrEqual(s, zero) y = Cast<to = 1>(g)",
    "Floor": "t = Add(s, one) y = Floor(t)",
    "Round": "t = Add(s, half) y = Round(t)",
    "logarithm": "t = Abs(s) u = Log(t) v = Neg(vast) y = Max(u, v)",
    "root": "t = Abs(s) u = Sqrt(t) v = Mul(u, vast) y = Clip(v, zero, one)",
    "quotient": "t = Div(one, s) y = Tanh(t)",
    "doubled": "t0 = Abs(s) {doubled} y = Clip(t80, zero, one)",
}


def graph(body: str) -> onnx.ModelProto:
    constants = ", ".join(f"float {name} = {{{value:.12f}}}" for name, value in NUMBERS.items())
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[8] x) => (float[8] y) <{constants}> {{ {body} }}'
    )


def traced(a: onnx.ModelProto, b: onnx.ModelProto) -> tuple[Pair, list[int]]:
    pair = build(model_.read(a), model_.read(b), {"x": ("x", (8,))}, {})
    values = [trace.outputs[0] for trace in (pair.a, pair.b)]
    return pair, [v.cls for v in values if isinstance(v, Tensor)]


def judged(a: onnx.ModelProto, b: onnx.ModelProto, x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Deviation:
    """The deviation at x without the running bound, beside onnxruntime."""
    monkeypatch.setattr(difference, "_RIGOROUS_ELEMENTS", 0)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [onnxruntime.InferenceSession(m.SerializeToString(), options) for m in (a, b)]
    pair, (left, right) = traced(a, b)

    def executed() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = [np.asarray(s.run(None, {"x": x})[0], np.float64) for s in sessions]
        return {"y": (found[0], found[1])}

    known = (pair.terms, [("y", left, right)], leaves_of({"x": x}), 2.0**-24, 0)
    (found,) = difference.judge(*known, executed=executed, redraw=True)
    return found


def never_different(a: onnx.ModelProto, b: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both orders, on normal and on large, round inputs."""
    x = np.random.default_rng(0).standard_normal(8).astype(np.float32)
    for values in (x, np.rint(400 * x) / np.float32(4)):
        for pair in ((a, b), (b, a)):
            found = judged(*pair, values, monkeypatch)
            assert not found.gross, found


@pytest.mark.parametrize("name", CHAOS)
def test_a_chaotic_function_in_two_spellings_is_never_different(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, steps, count = CHAOS[name]
    never_different(*(graph(body.format(repeated(step, count))) for step in steps.values()), monkeypatch)


@pytest.mark.parametrize("name", AT_AN_EDGE)
def test_what_stands_at_an_edge_but_for_rounding_is_never_different(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = AT_AN_EDGE[name].replace("{doubled}", repeated("t{j} = Add(t{i}, t{i})", 80))
    never_different(*(graph(f"{residue} {tail}") for residue in RESIDUE.values()), monkeypatch)


LOST = "u = Mul(x, x) v = Mul(u, vast) e = Mul(v, vast) "
ENDS = ("c = Clip(e, zero, one)", "p = Relu(e) q = Sub(e, one) r = Relu(q) c = Sub(p, r)")


@pytest.mark.parametrize("tail", ["y = Identity(c)", "d = Sub(c, half) y = Relu(d)", "d = Mul(c, c) y = Sub(d, one)"])
def test_what_is_lost_beside_a_large_number_is_never_different(tail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """10^24 - 1 is 10^24 in every evaluation, off by much less than its spacing."""
    a, b = (graph(f"{LOST} {ends} {tail}") for ends in ENDS)
    never_different(a, b, monkeypatch)
    assert compare(a, b).verdict is not Verdict.DIFFERENT


@pytest.mark.parametrize("power", ["Abs(s)", "Mul(s, s)"])
def test_an_unstable_zero_that_every_evaluation_leaves_on_one_side_is_never_different(
    power: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = f"t = {power} h0 = Mul(t, tiny) {{}} y = Mul(h90, vast)"
    graphs = [
        graph(f"{residue} {tail.format(repeated(step, 90))}")
        for residue, step in zip(RESIDUE.values(), GROW.values(), strict=True)
    ]
    never_different(*graphs, monkeypatch)


def test_a_chaotic_pair_is_undecided_by_the_whole_of_compare() -> None:
    body, steps, count = CHAOS["logistic 60 times, a steep Tanh"]
    a, b = (graph(body.format(repeated(steps[name], count))) for name in ("factored", "squared"))
    assert compare(a, b, timeout=60.0).verdict is not Verdict.DIFFERENT


SIGMOID = "w = Mul(x, big) s = Sigmoid(w) {} y = Mul(t, four)"
UNIT = "n = Neg(w) p = Exp(n) q = Add(p, two) s = Div(two, q) {}"
SATURATED = f"w = Mul(x, big) {UNIT} h = Cast<to = 10>(t) e = Cast<to = 1>(h) y = Mul(e, four)"
DOUBLE = f"c = Mul(two, big) u = Mul(x, tenth) v = Mul(u, big) w = Sub(v, c) {UNIT} y = Mul(t, four)"


def test_saturated_units_and_casts_to_float16_are_decided_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (graph(SATURATED.format(t)) for t in ("t = Identity(s)", "t = Sub(one, s)"))
    found = judged(a, b, np.linspace(-2, 2.1, 8).astype(np.float32), monkeypatch)
    assert found.kind == "redrawn" and found.gross and found.deviation == 4.0 and found.bound < 1e-9


def test_an_exponent_that_errs_by_little_is_in_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 500, of 2,000,000 less 1,999,500: Exp errs by 1e-7 of itself, and the unit is saturated all the same."""
    a, b = (graph(DOUBLE.format(t)) for t in ("t = Identity(s)", "t = Sub(one, s)"))
    x = np.array([19.995, *[19.99] * 7], np.float32)
    found = judged(a, b, x, monkeypatch)
    assert found.kind == "redrawn" and found.at == 0 and found.gross and found.bound < 1e-9


def test_saturated_sigmoids_have_a_first_order_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the Exp in them is beyond the range of float64; what reads 1 + Exp otherwise has none."""
    a, b = (graph(SIGMOID.format(t)) for t in ("t = Identity(s)", "t = Sub(one, s)"))
    x = np.linspace(-2, 2.1, 8).astype(np.float32)
    found = judged(a, b, x, monkeypatch)
    assert found.kind == "drawn" and found.gross and found.bound < 1e-2
    monkeypatch.setattr(difference, "ONCE", math.inf)
    found = judged(a, b, x, monkeypatch)
    assert found.kind == "first-order" and found.gross and found.deviation == 4.0 and found.bound < 1e-9
    a, b = (graph(f"w = Mul(x, big) e = Exp(w) s = Add(e, {n}) t = Log(s) y = Mul(t, four)") for n in ("one", "two"))
    assert judged(a, b, np.linspace(-2, 2.1, 8).astype(np.float32), monkeypatch).kind == "redrawn"


def test_onnxruntime_has_to_show_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (graph(SATURATED.format(t)) for t in ("t = Identity(s)", "t = Sub(one, s)"))
    monkeypatch.setattr(difference, "_SEEN_SAME", -1.0)
    found = judged(a, b, np.linspace(-2, 2.1, 8).astype(np.float32), monkeypatch)
    assert found.kind == "first-order" and not found.certain


@pytest.mark.parametrize(
    ("body", "certain"),
    [
        ("y = Floor(x)", True),
        ("t = Mul(x, tenth) y = Tanh(t)", True),
        ("t = Mul(x, tenth) u = Sub(t, t) y = Equal(u, zero)", True),
        (f"{RESIDUE['products']} y = Equal(s, zero)", False),
        (f"{RESIDUE['products']} t = Abs(s) y = Log(t)", False),
        (
            f"{RESIDUE['products']} t = Abs(s) h0 = Mul(t, tiny) {repeated(GROW['factored'], 90)} y = Mul(h90, vast)",
            False,
        ),
        (f"{RESIDUE['products']} t = Mul(s, vast) u = Add(t, big) y = Tanh(u)", False),
        ("t = Mul(x, vast) u = Mul(t, vast) v = Sin(u) y = Tanh(v)", False),
        ("t = Mul(x, vast) u = Exp(t) y = Sqrt(u)", False),
        (
            "s = Mul(x, tenth) t = Mul(s, tenth) u = Mul(x, vast) v = Concat<axis = 0>(t, u) h0 = Clip(v, zero, one) "
            f"{repeated(TENT, 70)} y, z = Split<axis = 0>(h70)",
            False,
        ),
    ],
)
def test_an_element_is_lost_where_a_decision_or_a_value_is_in_doubt(body: str, certain: bool) -> None:
    text = body.replace("y = Equal", "z = Equal") + (" y = Cast<to = 1>(z)" if "Equal" in body else "")
    pair, (left, _) = traced(graph(text), graph("y = Identity(x)"))
    x = np.full(8, 0.7, np.float32)
    found = redrawn.moved(pair.terms, leaves_of({"x": x}), [left], 0, 0)
    assert found < 1e-9 if certain else found > 0.5, found


LARGE = "p = Mul(x, tenth) q = Mul(p, tenth) h0 = Mul(q, big) " + repeated("h{j} = Mul(h{i}, four)", 7)


@pytest.mark.parametrize(
    "tail", ["y = Clip(d, zero, one)", "y = Tanh(d)", "y = Sigmoid(d)", "e = Mul(d, half) y = Abs(e)"]
)
def test_what_errs_by_little_beside_the_numbers_that_it_was_cut_from_is_not_in_doubt(tail: str) -> None:
    """As in untrained networks: of numbers of 10^8 what lies between 0 and 1."""
    pair, (left, _) = traced(graph(f"{LARGE} f = Floor(h7) d = Sub(h7, f) {tail}"), graph("y = Identity(x)"))
    assert 2e-7 < redrawn.moved(pair.terms, leaves_of({"x": np.full(8, 0.31415, np.float32)}), [left], 0, 0) < 1e-4


def test_a_first_order_bound_stands_beside_a_value_that_errs_by_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root of 10^12 and a square loses ten digits, which is nothing beside a difference of the size of x."""
    root = "b = Mul(x, x) c = Add(b, vast) d = Sqrt(c) f = Sub(d, big)"
    a, b = graph(f"{root} y = Add(f, x)"), graph(f"{root} y = Sub(f, x)")
    found = judged(a, b, np.linspace(3, 10, 8).astype(np.float32), monkeypatch)
    assert found.kind == "first-order" and found.gross and found.bound < 1e-8


def test_draws_are_made_in_groups_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, (left, _) = traced(graph("t = Mul(x, tenth) y = Tanh(t)"), graph("y = Identity(x)"))
    leaves = leaves_of({"x": np.full(8, 1.7, np.float32)})
    made: list[int] = []
    plain = redrawn.Redrawn

    def counted(inputs: object, pairs: int, seed: int, doubt: float) -> redrawn.Redrawn:
        made.append(pairs)
        return plain(leaves, pairs, seed)

    monkeypatch.setattr(redrawn, "Redrawn", counted)
    monkeypatch.setattr(redrawn, "_HELD", 48)
    assert 0 < redrawn.moved(pair.terms, leaves, [left], 0, 0, enough=1e-12) < 1e-12
    assert made == [1, 3, 3, 1]
    assert redrawn.moved(pair.terms, leaves, [left], 0, 0, enough=0.0) == math.inf and made[4:] == [1]
    assert redrawn.moved(pair.terms, leaves, [left], 0, 0, enough=1.0) > 0 and made[5:] == [1, 3]  # far below it


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        ("e = Tanh(x) s = Mul(e, two) y = Add(s, {})", 0),  # no jump: onnxruntime's run tells
        ("e = Tanh(x) f = Sub(e, two) g = Greater(f, zero) c = Cast<to=1>(g) s = Add(e, c) y = Add(s, {})", 1),  # far from 0
        ("e = Tanh(x) f = Sub(e, e0) g = Greater(f, zero) c = Cast<to=1>(g) s = Add(e, c) y = Add(s, {})", 4),
        ("e = Tanh(x) r = Round(e) s = Add(e, r) y = Add(s, {})", 1),
        ("e = Tanh(x) i = ArgMax<axis=0>(e) c = Cast<to=1>(i) s = Add(e, c) y = Add(s, {})", 4),
    ],
)
def test_one_run_with_noise_is_enough_where_no_jump_is_near(
    body: str, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = np.linspace(0.25, 0.75, 8, dtype=np.float32)
    models = [graph(body.format(name)) for name in ("one", "two")]
    for each in models:  # an element lies at the threshold, but for rounding
        each.graph.initializer.append(onnx.numpy_helper.from_array(np.tanh(x[3]) - np.float32(3e-8), "e0"))
    seen, evaluate = [], difference._Judge._evaluate
    monkeypatch.setattr(
        difference._Judge, "_evaluate", lambda self, **known: seen.append(known) or evaluate(self, **known)
    )
    assert judged(*models, x, monkeypatch).gross or runs == 4
    assert len([known for known in seen if "unit" in known]) == runs


@pytest.mark.parametrize(
    ("values", "most"),
    [(np.uint8([3, 255]), 255.0), (np.int8([-128, 3]), 128.0), (np.float64([0.5, -0.25]), 1.0), (np.float64([-3.0, -1e300]), 3.0),
     (np.float64([np.nan, 7.0]), 7.0), (np.zeros(0, np.uint8), 1.0), (np.array([True]), 1.0)],
)  # fmt: skip
def test_the_largest_magnitude_of_any_type(values: np.ndarray, most: float) -> None:
    """Quantized tensors are unsigned; masks, and what is not known, are left out."""
    assert largest(values) == most
