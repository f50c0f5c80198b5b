"""The normal forms keep the values: random Max, Min, clips, choices and roots, against numpy; Softmax and LogSumExp by hand."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import RULES, extremes, numbers
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

SHAPE = (3, 4)
NUMBERS = st.sampled_from([-2.0, -1.0, -0.25, 0.0, 0.25, 0.5, 1.0, 1.5, 2.0])

UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "neg": np.negative,
    "relu": lambda x: np.maximum(x, 0),
    "abs": np.abs,
    "root of the square": np.abs,
    "log of exp": lambda x: x,
    "transposed": lambda x: np.ascontiguousarray(x.reshape(SHAPE).T).reshape(SHAPE),
    "negative part": lambda x: np.where(x < 0, x, 0),
    "step times": lambda x: x * (x > 0),
}
WITH_NUMBER: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "add": np.add,
    "leaky max": lambda x, c: np.maximum(x, c * x),
    "leaky min": lambda x, c: np.minimum(c * x, x),
}
BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "max": np.maximum,
    "min": np.minimum,
    "add": np.add,
}

STEPS = st.lists(
    st.tuples(
        st.sampled_from([*UNARY, *(f"{name} number" for name in WITH_NUMBER), *(f"{name} both" for name in BINARY)]),
        st.integers(0, 99),
        st.integers(0, 99),
        NUMBERS,
    ),
    min_size=1,
    max_size=12,
)


def unary(m: Algebra, name: str, x: Tensor) -> Tensor:
    zero = np.zeros((), np.float32)
    made = {
        "neg": lambda: m.neg(x),
        "relu": lambda: m.relu(x),
        "abs": lambda: m.ew("abs", x),
        "root of the square": lambda: m.ew("sqrt", m.mul(x, x)),
        "log of exp": lambda: m.ew("log", m.exp(x)),
        "transposed": lambda: m.reshape(m.transpose(x, [1, 0]), SHAPE),
        "negative part": lambda: m.where(m.pos(m.neg(x)), x, zero),
        "step times": lambda: m.mul(x, m.pos(x)),
    }[name]()
    return m.lift(made)


def with_number(m: Algebra, name: str, x: Tensor, number: float) -> Tensor:
    c = np.asarray(number, np.float32)
    if name.startswith("leaky"):
        return m.lift(m.ew(name.removeprefix("leaky "), m.mul(c, x), x))
    return m.lift(m.ew(name, x, c))


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_normal_forms_keep_the_values(steps: list[tuple[str, int, int, float]]) -> None:
    m = Algebra(Terms(RULES))
    random = np.random.default_rng(0)
    given_ = {(name,): np.concatenate([[0.0, -1.0, 1.0], random.standard_normal(9)]) for name in "xy"}
    made = [(Tensor(m.terms.leaf(key, 12), SHAPE, np.dtype(np.float32)), value) for key, value in given_.items()]
    for name, i, j, number in steps:
        (x, a), (y, b) = made[i % len(made)], made[j % len(made)]
        if np.abs(a).max() > 50:
            continue  # Exp
        if name in UNARY:
            made.append((unary(m, name, x), UNARY[name](a).reshape(-1)))
        elif name.endswith(" number"):
            name = name.removesuffix(" number")
            made.append((with_number(m, name, x, number), WITH_NUMBER[name](a, number)))
        else:
            name = name.removesuffix(" both")
            made.append((m.lift(m.ew(name, x, y)), BINARY[name](a, b)))
    values = evaluate(m.terms, Float64(given_, bounds=False), [x.cls for x, _ in made])
    for x, expected in made:
        found = np.broadcast_to(values[m.terms.find(x.cls)].value, expected.shape)
        assert np.allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shifted", [False, True])
def test_softmax_and_log_sum_exp_by_hand(axis: int, shifted: bool) -> None:
    m = Algebra(Terms(RULES))
    value = np.random.default_rng(1).standard_normal((2, 3, 4))
    x = Tensor(m.terms.leaf(("x",), 24), (2, 3, 4), np.dtype(np.float32))
    d = m.sub(x, m.extreme("max", x, [axis])) if shifted else x
    total = m.sum(m.exp(d), [axis])
    softmax, log = m.div(m.exp(d), total), m.sub(d, m.ew("log", total))
    values = evaluate(m.terms, Float64({("x",): value}, bounds=False), [m.lift(softmax).cls, m.lift(log).cls])
    power = np.exp(value)
    expected = power / power.sum(axis=axis, keepdims=True)
    for made, wanted in ((softmax, expected), (log, np.log(expected))):
        assert np.allclose(values[m.terms.find(m.lift(made).cls)].value, wanted.reshape(-1), rtol=1e-12, atol=1e-12)
    assert shifted or m.terms.find(m.lift(softmax).cls) == m.terms.find(m.along("softmax", x, axis).cls)


def test_a_number_is_looked_at_once_and_of_few_bits() -> None:
    terms = Terms(RULES)
    cls = terms.leaf(("x",), 1)
    for _ in range(200):  # each the square of the one before: 2**200 ways down
        cls = terms.ew("mul", [(cls, None), (cls, None)], 1)
    assert numbers.number(terms, cls) is None
    square = terms.ew("add", [(terms.const(np.array([3.0]), 0), None), (terms.const(np.array([0.1]), 0), None)], 1)
    assert numbers.number(terms, square) == Fraction(3) + Fraction(0.1)
    for _ in range(20):
        square = terms.ew("mul", [(square, None), (square, None)], 1)
    assert numbers.number(terms, square) is None


PLAIN = ["leaf", "add", "exp", "pos", "recip", "sqrt"]


@pytest.mark.parametrize("kind", [*PLAIN, "transposed", "integers", "mul", "neg", "relu", "max", "min", "scalar"])
def test_a_plain_relu_is_the_same_class_by_the_short_way_and_the_long_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    m, long = Algebra(Terms(RULES)), list[object]()
    shape = (1, 1) if kind == "scalar" else SHAPE
    x = Tensor(m.terms.leaf((kind,), int(np.prod(shape))), shape, np.dtype(np.float32))
    if kind == "integers":
        m.terms.integers[x.cls] = 0.0, 255.0
    x = with_number(m, kind, x, 0.5) if kind in ("add", "mul", "max", "min") else x
    x = m.lift(m.ew(kind, x)) if kind in PLAIN[2:] else unary(m, kind, x) if kind in ("neg", "relu", "transposed") else x
    monkeypatch.setattr(extremes, "_parts", lambda *given, parts=extremes._parts: long.append(given) or parts(*given))
    zero = np.zeros((), np.float32)
    asked = len(m.terms._asked)
    short = m.ew("max", x, zero)
    assert bool(long) == (kind not in PLAIN)
    assert kind not in PLAIN or len(m.terms._asked) == asked + 1, "no rule is asked for pos(x), nor for the product"
    assert m.lift(short).cls == m.lift(m.ew("max", zero, x)).cls and long


def test_a_maximum_behind_hundreds_of_functions() -> None:
    """Rows are taken through them in a loop, not by recursion: against numpy, and against the maximum of x itself."""
    m, value = Algebra(Terms(RULES)), np.random.default_rng(2).standard_normal(SHAPE)
    x = Tensor(m.terms.leaf(("x",), 12), SHAPE, np.dtype(np.float32))
    deep, least, expected = x, m.extreme("min", x, [1]), value
    for _ in range(401):
        for fn, number in (("add", 0.25), ("max", -3.0), ("mul", -1.0)):
            deep, expected = with_number(m, fn, deep, number), WITH_NUMBER[fn](expected, number)
    found = m.lift(m.extreme("max", deep, [1]))
    assert np.allclose(
        evaluate(m.terms, Float64({("x",): value.reshape(-1)}, bounds=False), [found.cls])[m.terms.find(found.cls)].value,
        expected.max(axis=1),
    )
    below = {m.terms.find(m.lift(least).cls)}
    assert below <= set(m.terms.order([found.cls])), "the minimum of x is what is left of the rows"
