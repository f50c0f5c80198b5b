"""Inputs that show a difference: thresholds, ties, bounds, signs that random inputs never meet; and pairs with no such input."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from graphcheck.files import model as model_
from graphcheck.interface.inputs import leaves_of, save_npz
from graphcheck.kernel.proof.pair import build
from graphcheck.parting import difference, witness
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare
from graphcheck.verdicts.executions import Executions

FLOATS, BOOLS, PLACE = (f"(float[N,6] x) => ({kind} y)" for kind in ("float[N,6]", "bool[N,6]", "int64[N]"))
INTS = "(int64[N,6] x) => (int64[N,6] y)"
H = "h = Constant<value_float = {}>()"
BAND = "a = Greater({0},l) b = Less({0},u) e = And(a,b) y = Where(e, s, {0})"
WEIGHT = "w = Constant<value = float[6,2] {1,2,3,4,-1,0.5,0.25,-2,1,1,-1,3}>() m = MatMul(x,w)"
SUM = "n = Constant<value_ints = [1]>() t = ReduceSum<keepdims=0>(x, n)"
ENDS = "l = Constant<value_float = 2.5>() u = Constant<value_float = 2.51>() s = Constant<value_float = 9.0>()"

# name: interface, A, B (with H for a constant)
DIFFERENT = {
    "round or half up": (FLOATS, "y = Round(x)", f"{H.format(0.5)} a = Add(x, h) y = Floor(a)"),
    "round or half away": (
        FLOATS,
        "y = Round(x)",
        f"{H.format(0.5)} s = Sign(x) m = Abs(x) a = Add(m, h) f = Floor(a) y = Mul(s, f)",
    ),
    "ceil or floor + 1": (FLOATS, "y = Ceil(x)", f"{H.format(1.0)} f = Floor(x) y = Add(f, h)"),
    "clip far away": (FLOATS, "y = Abs(x)", f"{H.format('1e7')} a = Abs(x) y = Clip(a,,h)"),
    "clip behind squares": (FLOATS, "y = Mul(x,x)", f"{H.format('1e12')} a = Mul(x,x) y = Clip(a,,h)"),
    "clip farther away": (FLOATS, "y = Abs(x)", f"{H.format('1e20')} a = Abs(x) y = Clip(a,,h)"),
    "clip below": (FLOATS, "y = Identity(x)", f"{H.format(-54321.0)} y = Clip(x,h,)"),
    "> or >=": (BOOLS, f"{H.format(0.25)} y = Greater(x, h)", f"{H.format(0.25)} y = GreaterOrEqual(x, h)"),
    "> or >= 0.3": (BOOLS, f"{H.format(0.3)} y = Greater(x, h)", f"{H.format(0.3)} y = GreaterOrEqual(x, h)"),
    "> or >= of two": (
        "(float[N,6] x, float[N,6] z) => (bool[N,6] y)",
        "y = Greater(x, z)",
        "y = GreaterOrEqual(x, z)",
    ),
    "> or >= behind a product": (
        "(float[N,6] x) => (bool[N,2] y)",
        f"{WEIGHT} {H.format(3.0)} y = Greater(m, h)",
        f"{WEIGHT} {H.format(3.0)} y = GreaterOrEqual(m, h)",
    ),
    "== or never": (BOOLS, f"{H.format(0.75)} y = Equal(x, h)", "y = IsNaN(x)"),
    "one value": (FLOATS, "y = Identity(x)", f"{H.format(0.75)} e = Equal(x, h) n = Neg(x) y = Where(e, n, x)"),
    "a narrow band": (FLOATS, "y = Identity(x)", f"{ENDS} {BAND.format('x')}"),
    "a narrow band of sums": (
        "(float[N,6] x) => (float[N] y)",
        f"{SUM} y = Identity(t)",
        f"{SUM} {ENDS} {BAND.format('t')}",
    ),
    "clip behind a product": (
        "(float[N,6] x) => (float[N,2] y)",
        f"{WEIGHT} y = Identity(m)",
        f"{WEIGHT} {H.format(5e5)} y = Clip(m,,h)",
    ),
    "argmax first or last": (
        PLACE,
        "y = ArgMax<axis=1,keepdims=0>(x)",
        "y = ArgMax<axis=1,keepdims=0,select_last_index=1>(x)",
    ),
    "argmin first or last": (
        PLACE,
        "y = ArgMin<axis=1,keepdims=0>(x)",
        "y = ArgMin<axis=1,keepdims=0,select_last_index=1>(x)",
    ),
    "mod or fmod": ("(int64[N,6] x, int64[N,6] z) => (int64[N,6] y)", "y = Mod(x, z)", "y = Mod<fmod=1>(x, z)"),
    "mod or fmod of 3": (
        INTS,
        "k = Constant<value_int = 3>() y = Mod(x, k)",
        "k = Constant<value_int = 3>() y = Mod<fmod=1>(x, k)",
    ),
    "integer division or shift": (
        INTS,
        "k = Constant<value_int = 2>() y = Div(x, k)",
        f"{H.format(0.5)} f = Cast<to=1>(x) m = Mul(f,h) l = Floor(m) y = Cast<to=7>(l)",
    ),
    "large integers": (
        INTS,
        "k = Constant<value_int = 100000000>() y = Add(x, k)",
        "k = Constant<value_int = 100000001>() y = Add(x, k)",
    ),
    "abs of integers": (INTS, "y = Abs(x)", "y = Identity(x)"),
    "clip of integers": (
        INTS,
        "y = Identity(x)",
        "l = Constant<value_int=0>() h = Constant<value_int=100>() y = Clip(x,l,h)",
    ),
    "sign at 0": (
        FLOATS,
        "y = Sign(x)",
        f"{H.format(1.0)} z = Constant<value_float = 0.0>() m = Neg(h) g = GreaterOrEqual(x,z) y = Where(g,h,m)",
    ),
    "thresholded relu": (
        FLOATS,
        "y = ThresholdedRelu<alpha=1.5>(x)",
        f"{H.format(1.5)} z = Constant<value_float = 0.0>() g = GreaterOrEqual(x,h) y = Where(g,x,z)",
    ),
    "shrink": (
        FLOATS,
        "y = Shrink<lambd=0.625>(x)",
        f"{H.format(0.625)} z = Constant<value_float = 0.0>() a = Abs(x) g = GreaterOrEqual(a,h) y = Where(g,x,z)",
    ),
    "ties of quantization": (
        "(float[N,6] x) => (int8[N,6] y)",
        "s = Constant<value_float = 0.5>() z = Constant<value = int8 {0}>() y = QuantizeLinear(x,s,z)",
        f"{H.format(0.5)} m = Div(x,h) a = Add(m,h) f = Floor(a) l = Constant<value_float = -128.0>() "
        "u = Constant<value_float = 127.0>() k = Clip(f,l,u) y = Cast<to=3>(k)",
    ),
    "truncated or rounded": ("(float[N,6] x) => (int8[N,6] y)", "y = Cast<to=3>(x)", "r = Floor(x) y = Cast<to=3>(r)"),
    "undefined on one side": (FLOATS, "y = Sqrt(x)", "a = Abs(x) y = Sqrt(a)"),
    "infinite on one side": (
        FLOATS,
        "y = Reciprocal(x)",
        f"{H.format(0.5)} m = Abs(x) g = Max(m,h) s = Sign(x) d = Reciprocal(g) y = Mul(s,d)",
    ),
}
# The same over the reals where both are defined; what floats make of ties, overflow and saturation is no witness.
NOT_DIFFERENT = {
    "max by where": (
        "(float[N,6] x, float[N,6] z) => (float[N,6] y)",
        "y = Max(x,z)",
        "g = Greater(x,z) y = Where(g,x,z)",
    ),
    "tie of a rounded third": (
        FLOATS,
        f"{H.format(3.0)} q = Div(x, h) a = Mul(q, h) y = Round(a)",
        "y = Round(x)",
    ),
    "floor of minus": (FLOATS, "n = Neg(x) f = Floor(n) y = Neg(f)", "y = Ceil(x)"),
    "saturation": (
        BOOLS,
        "t = Tanh(x) h = Constant<value_float = 1.0>() y = Less(t, h)",
        "z = Sub(x, x) h = Constant<value_float = 1.0>() y = Less(z, h)",
    ),
    "logarithm of an exponential": (FLOATS, "e = Exp(x) y = Log(e)", "y = Identity(x)"),
    "place of the largest exponential": (
        PLACE,
        "e = Exp(x) y = ArgMax<axis=1,keepdims=0>(e)",
        "y = ArgMax<axis=1,keepdims=0>(x)",
    ),
    "selected root": (
        FLOATS,
        "z = Sub(x,x) g = Greater(x,z) r = Sqrt(x) y = Where(g,r,z)",
        "z = Sub(x,x) m = Max(x,z) y = Sqrt(m)",
    ),
    "artanh where tanh saturates": (FLOATS, "t = Tanh(x) y = Atanh(t)", "y = Identity(x)"),
    "arccos of one but for rounding": (
        FLOATS,
        "n = Constant<value_ints = [1]>() q = Mul(x,x) s = ReduceSum(q, n) r = Sqrt(s) u = Div(x,r) w = Mul(u,u) "
        "t = ReduceSum(w, n) a = Acos(t) z = Sub(x,x) y = Add(a,z)",
        f"{H.format(1.0)} n = Constant<value_ints = [1]>() q = Mul(x,x) s = ReduceSum(q, n) r = Sqrt(s) u = Div(x,r) "
        "w = Mul(u,u) v = ReduceSum(w, n) t = Min(v,h) a = Acos(t) z = Sub(x,x) y = Add(a,z)",
    ),
    "an unknown operator": (
        "(float[N,4] x) => (float[N,1] y)",
        "k = Constant<value_ints = [1]>() y, i = TopK(x,k)",
        "k = Constant<value_ints = [1]>() y = ReduceMax(x,k)",
    ),
    "integers beyond their type": (
        "(int32[N,4] x) => (int32[N,4] y)",
        "k = Constant<value = int32 {65536}>() a = Mul(x,k) y = Mul(a,k)",
        "k = Constant<value = int32 {0}>() y = Mul(x,k)",
    ),
    "casts beyond their type": (
        "(float[N,4] x) => (bool[N,4] y)",
        "k = Constant<value = int32 {128}>() a = Cast<to=3>(x) b = Cast<to=6>(a) c = Abs(b) y = LessOrEqual(c,k)",
        "y = Equal(x,x)",
    ),
    "underflow of the declared type": (
        FLOATS,
        f"{H.format('1e-30')} a = Mul(x,h) y = Mul(a,h)",
        f"{H.format('1e-30')} a = Mul(x,h) b = Mul(a,h) y = Add(b,b)",
    ),
    "a folded exponential": (
        BOOLS,
        f"{H.format(0.25)} y = LessOrEqual(h, x)",
        f"{H.format(0.25)} e = Exp(h) l = Log(e) y = LessOrEqual(l, x)",
    ),
    "a folded exponential as a bound": (
        FLOATS,
        f"{H.format(0.25)} y = Min(h, x)",
        f"{H.format(0.25)} e = Exp(h) l = Log(e) y = Min(l, x)",
    ),
    "square of a root of squares": (FLOATS, "q = Mul(x,x) r = Sqrt(q) y = Mul(r,r)", "y = Mul(x,x)"),
}


def pair(row: tuple[str, str, str]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    head = '<ir_version: 10, opset_import: ["" : 20]> g'
    a, b = (onnx.parser.parse_model(f"{head} {row[0]} {{ {body} }}") for body in row[1:])
    return a, b


def checked(a: onnx.ModelProto, b: onnx.ModelProto, folder: Path) -> Comparison:
    """``different``, by a saved input that replays."""
    found = compare(a, b, witness=folder, timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT, found.reason
    again = compare(a, b, inputs=found.evidence["witness"]["path"], timeout=60.0)
    assert again.verdict is Verdict.DIFFERENT, again.reason
    assert again.evidence["witness"]["kind"] == "given"
    return found


@pytest.mark.parametrize("name", sorted(DIFFERENT))
def test_a_difference_is_found_and_replayed(name: str, tmp_path: Path) -> None:
    a, b = pair(DIFFERENT[name])
    for found in (checked(a, b, tmp_path), checked(b, a, tmp_path)):
        assert found.evidence["witness"]["bound_kind"] in ("running error bound", "defined on one side alone")


@pytest.mark.parametrize("run", [True, False])
@pytest.mark.parametrize("name", sorted(NOT_DIFFERENT))
def test_equal_functions_have_no_witness(name: str, run: bool) -> None:
    a, b = pair(NOT_DIFFERENT[name])
    for found in (compare(a, b, timeout=60.0, run=run), compare(b, a, timeout=60.0, run=run)):
        assert found.verdict is not Verdict.DIFFERENT, found.reason


def test_a_crash_of_onnxruntime_ends_one_trial_and_not_the_search() -> None:
    """Division of integers by 0, which halves and integers may bring, ends the process."""
    a, b = pair(
        (
            "(int64[N,6] x, int64[N,6] z) => (int64[N,6] y)",
            "q = Div(x,z) l = Constant<value_int = 40>() y = Min(q,l)",
            "y = Div(x,z)",
        )
    )
    assert compare(a, b, timeout=60.0).verdict is Verdict.DIFFERENT


def test_floor_and_truncation_of_integers_part_below_zero() -> None:
    """TorchScript exports x // 3 as Div, which truncates; dynamo as a floor."""
    a, b = pair(
        (
            INTS,
            "k = Constant<value_int = 3>() y = Div(x,k)",
            "k = Constant<value_int = 3>() m = Mod(x,k) d = Sub(x,m) y = Div(d,k)",
        )
    )
    assert compare(a, b, timeout=60.0).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("value", "verdict"), [(0.75, Verdict.DIFFERENT), (4.0, Verdict.UNDECIDED)])
def test_a_range_bounds_where_a_witness_may_lie(value: float, verdict: Verdict) -> None:
    a, b = pair((FLOATS, "y = Abs(x)", f"{H.format(value)} a = Abs(x) y = Clip(a,,h)"))
    found = compare(a, b, ranges={"x": (-1.0, 1.0)}, timeout=60.0)
    assert found.verdict is verdict, found.reason


def test_given_inputs_are_tried_first_and_the_search_goes_on(tmp_path: Path) -> None:
    """NaN at the given -1 shows a difference; nothing at 3 does, but there are others."""
    a, b = pair((FLOATS, "y = Log(x)", f"{H.format('1e-6')} m = Max(x, h) y = Log(m)"))
    x = np.full((1, 6), 2.0, np.float32)
    for at, given in ((-1.0, True), (3.0, False)):
        x[0, 2] = at
        save_npz(tmp_path / "x.npz", {"x": x})
        found = compare(a, b, inputs=tmp_path / "x.npz", timeout=60.0)
        assert found.verdict is Verdict.DIFFERENT, found.reason
        assert (found.evidence["witness"]["kind"] == "given") == given


def test_overflow_on_one_side_is_no_difference(tmp_path: Path) -> None:
    """Exp overflows in float32 and in float64, and over the reals both are the same."""
    a, b = pair((FLOATS, "e = Exp(x) y = Log(e)", "y = Identity(x)"))
    for size in (100.0, 1000.0):
        save_npz(tmp_path / "x.npz", {"x": np.full((1, 6), size, np.float32)})
        assert compare(a, b, inputs=tmp_path / "x.npz", timeout=60.0).verdict is Verdict.UNDECIDED


APART = (FLOATS, "y = Mul(x,x)", "y = Add(x,x)")


def test_what_a_run_shows_plainly_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a session was made")

    monkeypatch.setattr(witness, "RemoteSession", refused)
    monkeypatch.setattr(witness.Search, "_shrink", lambda self, arrays, output: arrays)  # other inputs are run
    found = compare(*pair(APART), timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT
    assert found.evidence["witness"]["onnxruntime_max_abs"] == pytest.approx(found.evidence["witness"]["max_abs"])


def test_no_session_waits_beside_an_evaluation_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    idle: list[int] = []
    judged, end = witness.judge, witness.end_idle
    monkeypatch.setattr(witness, "_QUICK", 0)
    monkeypatch.setattr(witness, "end_idle", lambda: idle.append(1) or end())
    monkeypatch.setattr(witness, "judge", lambda *args, **rest: (rest["executed"](), idle and judged(*args, **rest))[1])
    assert compare(*pair(APART), timeout=60.0).verdict is Verdict.DIFFERENT and idle


@pytest.mark.parametrize("shown", [np.zeros(12), np.array([np.nan] * 12), np.linspace(-1e6, 1e6, 12)])
def test_a_run_that_shows_something_else_is_made_again_without_optimizations(
    shown: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with optimizations may be wrong: then what it shows is neither a difference, nor the last word on one."""
    made = []
    session = witness.RemoteSession
    monkeypatch.setattr(witness, "RemoteSession", lambda *a, **k: made.append(k["optimizations"]) or session(*a, **k))
    monkeypatch.setattr(Executions, "shown", lambda self, arrays: {"y": (shown, -shown)})
    found = compare(*pair(APART), timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT and made[:2] == ["off", "off"]
    same = compare(*pair(next(iter(NOT_DIFFERENT.values()))), timeout=60.0)
    assert same.verdict is not Verdict.DIFFERENT


def test_a_deep_network_rests_on_the_first_order_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The running bound says nothing behind many layers; neither bound lets one ulp at the input pass for certain."""
    monkeypatch.setattr(difference, "_RIGOROUS_ELEMENTS", 0)
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 16)).astype(np.float32) * 0.6 for _ in range(12)]

    def deep(factor: float) -> onnx.ModelProto:
        lines = [f"m{i} = MatMul(e{i}, w{i}) t{i} = Tanh(m{i}) e{i + 1} = Add(t{i}, e{i})" for i in range(12)]
        text = f"g (float[2,16] x) => (float[2,16] y) {{ e0 = Identity(x) {' '.join(lines)} y = Identity(e12) }}"
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
        for i, w in enumerate(weights):
            changed = w.copy()
            changed[3, 3] *= np.float32(factor if i == 2 else 1.0)
            model.graph.initializer.append(onnx.numpy_helper.from_array(changed, f"w{i}"))
        return model

    found = compare(deep(1.0), deep(1.5), timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT and "as far as drawn roundings show" in found.reason
    assert found.evidence["float64"][0]["kind"] == "drawn" and "one draw" in found.evidence["witness"]["bound_kind"]
    monkeypatch.setattr(difference, "ONCE", math.inf)
    found = compare(deep(1.0), deep(1.5), timeout=60.0)
    assert found.verdict is Verdict.DIFFERENT and "to first order" in found.reason
    (row,) = found.evidence["float64"]
    assert row["kind"] == "first-order" and 0 < row["bound"] < 1e-9 < row["deviation"]
    assert "if no value errs by more than" in found.evidence["witness"]["bound_kind"]


def test_a_search_needs_both_bound_and_spread() -> None:
    sure = difference.Deviation("y", 1.0, 1e-3, 1e-3, "running")
    assert sure.gross and sure.certain
    assert not difference.Deviation("y", 1.0, 2.0, 1e-3, "running").gross
    assert not difference.Deviation("y", 1.0, 1e-3, 0.5, "running").gross
    assert set(witness._BOUNDS) == {"running", "first-order", "redrawn", "drawn", "undefined", "none"}


@pytest.mark.parametrize("name", ["a narrow band of sums", "clip farther away", "ties of quantization"])
def test_a_slow_machine_finds_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets count work: a clock that runs away at every look changes neither witness nor headline."""
    a, b = pair(DIFFERENT[name])
    usual = compare(a, b, timeout=1e9)
    looks = itertools.count()
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 20.0 * next(looks))
    slow = compare(a, b, timeout=1e9)
    assert slow.verdict is Verdict.DIFFERENT and slow.reason == usual.reason
    assert slow.evidence["witness"] == usual.evidence["witness"]


def test_a_time_limit_ends_a_search_and_says_so() -> None:
    a, b = pair(DIFFERENT["clip farther away"])
    found = compare(a, b, timeout=1e-3)
    assert found.verdict is Verdict.UNDECIDED and "the time limit of 0.001 s was reached" in found.reason


@pytest.mark.parametrize(("moved", "gross"), [(3, True), (500, False)])
def test_a_few_elements_at_a_threshold_do_not_hide_many_that_deviate(moved: int, gross: bool) -> None:
    """Rounding moves some elements by as much as all deviate: what sixteen times as many do counts."""
    nets = [
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[2048] x) => (float[2048] y) {{ t = Tanh(x) y = {op}(t) }}'
        )
        for op in ("Identity", "Neg")
    ]
    pair = build(*map(model_.read, nets), {"x": ("x", (2048,))}, {})
    roots = [trace.outputs[0].cls for trace in (pair.a, pair.b)]
    x = np.full(2048, 3.0)
    shown = np.tanh(x) - np.where(np.arange(2048) < moved, 1.0, 0.0)
    (found,) = difference.judge(
        pair.terms, [("y", *roots)], leaves_of({"x": x}), 2.0**-24, 0, executed=lambda: {"y": (shown, -np.tanh(x))}
    )
    assert found.gross is gross
    assert found.deviation == pytest.approx(2 * math.tanh(3.0))


@pytest.mark.parametrize(("told", "bounded"), [(True, ["y"]), (False, ["y", "z"])])
def test_bounds_are_told_up_to_the_first_output_that_differs(
    told: bool, bounded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output that differs most comes first; where its bound tells nothing, the next one has its bound, too."""
    monkeypatch.setattr(difference, "_RIGOROUS_ELEMENTS", 0)
    nets = [
        onnx.parser.parse_model(
            f'<ir_version: 8, opset_import: ["": 17]> g (float[8] x) => (float[8] z, float[8] y) '
            f"{{ t = Tanh(x) s = Sin(t) y = {op}(t) z = Add(s, y) }}"
        )
        for op in ("Sin", "Cos")
    ]
    pair = build(*map(model_.read, nets), {"x": ("x", (8,))}, {})
    outputs = [(name, pair.a.outputs[i].cls, pair.b.outputs[i].cls) for i, name in enumerate("zy")]
    x = np.linspace(0.1, 0.4, 8)
    a, b = (each(np.tanh(x)) for each in (np.sin, np.cos))
    shown, bound = {"z": (a + a, a + b), "y": (a, b)}, difference.Tape.bound
    worst = math.inf if not told else 0.0
    monkeypatch.setattr(
        difference.Tape, "bound", lambda *known: bound(*known) + (worst if known[1] == outputs[1][1] else 0.0)
    )
    found = difference.judge(pair.terms, outputs, leaves_of({"x": x}), 2.0**-24, 0, executed=lambda: shown)
    assert sorted(d.output for d in found if d.kind == "first-order") == bounded


@pytest.mark.parametrize("cut", [False, True])
def test_a_side_that_is_not_defined_is_different_where_what_onnxruntime_gives_is_another(cut: bool) -> None:
    """onnxruntime's Concat passes over a tensor without elements, of whatever height, and leaves its place unwritten."""
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[N,2,h,4] x) => (float[N,c,h,4] y)'
    head += " <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>"
    start = "n = Shape<start = 2, end = 3>(x) e = {} s = Slice(x, zero, e, two) q = Concat<axis = 1>(x, s)"
    end = "y = Slice(q, zero, two, one)" if cut else "y = Identity(q)"
    a, b = (onnx.parser.parse_model(f"{head} {{ {start.format(each)} {end} }}") for each in ("Identity(n)", "Mod(n, two)"))
    for first, second, side in ((a, b, "B"), (b, a, "A")):
        found = compare(first, second, graphs=False)
        assert found.verdict is (Verdict.UNDECIDED if cut else Verdict.DIFFERENT), found.reason
        assert cut or f"at x=2x2x224x4 {side} alone is not defined by its operators' definitions" in found.reason
        assert "Concat" in found.reason and compare(first, second, graphs=False, run=False).verdict is Verdict.UNDECIDED
