"""-inf in masks: it absorbs, Exp of it is 0, maxima forget it, and a row that is masked throughout is undecided."""

from __future__ import annotations

import numpy as np
import pytest
from ops_support import assert_agrees, float64, model, values

from graphcheck.errors import Undecided
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms

FEEDS = {"x": values((3, 4))}


def graph(body: str, out: str = "float[3,4]") -> str:
    # the text format has no -inf: -1 / 0 is folded to it
    minus = "one = Constant<value = float {-1}>() zero = Constant<value = float {0}>() inf = Div(one, zero)"
    where = "c = Constant<value = bool[3,4] {0,1,0,0, 0,0,1,1, 0,0,0,0}>() m = Where(c, inf, zero)"
    return f"g (float[3,4] x) => ({out} y) {{ {minus} {where} {body} }}"


@pytest.mark.parametrize(
    ("body", "out"),
    [
        ("s = Add(x, m) y = Softmax(s)", "float[3,4]"),
        ("s = Where(c, inf, x) y = Softmax(s)", "float[3,4]"),
        ("s = Where(c, inf, x) y = Exp(s)", "float[3,4]"),
        ("s = Where(c, inf, x) y = ReduceMax<keepdims = 0>(s)", "float"),
        (
            "s = Where(c, inf, x) r = ReduceMax<axes = [1]>(s) d = Sub(s, r) e = Exp(d) t = ReduceSum(e) y = Div(e, t)",
            "float[3,4]",
        ),
        ("s = Where(c, inf, x) r = ReduceMax<axes = [1]>(s) y = Mul(r, r)", "float[3,1]"),
        ("s = Where(c, inf, x) y = Max(s, x)", "float[3,4]"),
        ("h = Constant<value = float {0.5}>() s = Add(x, m) t = Mul(s, h) y = Softmax(t)", "float[3,4]"),
        ("s = Add(x, m) y = IsInf(s)", "bool[3,4]"),
        ("s = Add(x, m) y = IsInf<detect_negative = 0>(s)", "bool[3,4]"),
        ("s = Add(x, m) y = Equal(s, inf)", "bool[3,4]"),
        ("s = Add(x, m) y = Greater(s, inf)", "bool[3,4]"),
        ("s = Add(x, m) t = Transpose(s) u = Softmax(t) y = Transpose(u)", "float[3,4]"),
        ("y = IsNaN(x)", "bool[3,4]"),
    ],
)
def test_masks_as_onnxruntime_has_them(body: str, out: str) -> None:
    assert_agrees(model(graph(body, out), 13), FEEDS)
    assert_agrees(model(graph(body, out), 13), FEEDS, normalize=False)


def test_a_padded_max_pool_leaves_no_mask_behind() -> None:
    text = """g (float[1,2,6,6] x) => (float[1,2,2,2] y) {
      p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)
      w = Constant<value = float[2,2,2,2] {1,2,3,4, 4,3,2,1, -1,-2,-3,-4, 1,-1,1,-1}>()
      y = Conv(p, w)
    }"""
    assert_agrees(model(text), {"x": values((1, 2, 6, 6))})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("s = Add(x, inf) y = Softmax(s)", "every entry of a softmax row is masked"),
        ("s = Add(x, m) y = Mul(s, x)", "depends on signs"),
        ("s = Add(x, m) y = Neg(s)", "depends on signs"),
        ("p = Neg(inf) y = Add(x, p)", "NaN or [+]inf"),
        ("n = Mul(zero, inf) y = Add(x, n)", "NaN or [+]inf"),
    ],
)
def test_what_a_mask_may_not_reach_is_undecided(body: str, reason: str) -> None:
    with pytest.raises(Undecided, match=reason):
        float64(model(graph(body), 13), FEEDS)


def test_two_masks_are_told_apart() -> None:
    other = graph("s = Add(x, m) y = Softmax(s)").replace("0,1,0,0,", "0,0,1,0,")
    one, two = (float64(model(text, 13), FEEDS)[0].value for text in (graph("s = Add(x, m) y = Softmax(s)"), other))
    assert np.abs(one - two).max() > 0.01


def test_what_has_no_meaning_stops_a_proof_each_time_that_it_is_asked_for() -> None:
    m = Algebra(Terms(RULES))
    x = Tensor(m.terms.leaf(("x",), 2), (2,), np.dtype(np.float32))
    masked = m.add(x, np.array([-np.inf, 0], np.float32))
    for _ in range(2):
        with pytest.raises(Undecided, match="depends on signs"):
            m.neg(masked)
    assert isinstance(later := m.exp(x), Tensor) and m.masked(masked).tolist() == [True, False]
    assert len(m.terms.neginf) == len(m.terms.terms) and not m.masked(later).any()
