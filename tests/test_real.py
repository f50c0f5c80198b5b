"""The float64 domain's error bounds against the same terms in 60 decimal digits: the true value lies within."""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from ops_support import model, trace, values
from test_maps import Chain, chains

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real

CONTEXT = decimal.Context(prec=60, Emin=-decimal.MAX_EMAX, Emax=decimal.MAX_EMAX)
ONE = Decimal(1)


@pytest.fixture(autouse=True, scope="module")
def sixty_digits() -> Iterator[None]:
    with decimal.localcontext(CONTEXT):
        yield


def exact(x: float) -> Decimal:
    """A float64 as the decimal that it is, to 60 digits."""
    return CONTEXT.create_decimal(Decimal(float(x)))


def series(first: Decimal, ratio: Any) -> Decimal:
    """A sum whose next term is the last times ``ratio(n)``."""
    total = term = first
    n = 1
    while term and abs(term) > abs(total) * Decimal("1e-70"):
        term = CONTEXT.multiply(term, ratio(n))
        total = CONTEXT.add(total, term)
        n += 1
    return total


def erf(x: Decimal) -> Decimal:
    """2/Sqrt(pi) times the Taylor series of Exp(-t^2), integrated: in enough digits for |x| < 8."""
    wide = decimal.Context(prec=160)
    if abs(x) > 8:
        return ONE.copy_sign(x)
    total = term = x
    n = 0
    while abs(term) > Decimal("1e-75"):
        n += 1
        term = wide.divide(wide.multiply(wide.multiply(term, -x * x), Decimal(2 * n - 1)), Decimal(n * (2 * n + 1)))
        total = wide.add(total, term)
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
    return CONTEXT.divide(wide.multiply(Decimal(2), total), wide.sqrt(pi))


def tanh(x: Decimal) -> Decimal:
    e = CONTEXT.exp(-2 * abs(x))
    wide = decimal.Context(prec=120)
    return (wide.divide(wide.subtract(ONE, decimal.Context(prec=120).exp(-2 * abs(x))), ONE + e)).copy_sign(x)


def sine(x: Decimal) -> Decimal:
    wide = decimal.Context(prec=120)
    total = term = x
    n = 0
    while term and abs(term) > Decimal("1e-90"):
        n += 1
        term = wide.divide(wide.multiply(term, -x * x), Decimal(2 * n * (2 * n + 1)))
        total = wide.add(total, term)
    return total


FUNCTIONS: dict[str, Any] = {
    "add": lambda a, b: CONTEXT.add(a, b),
    "mul": lambda a, b: CONTEXT.multiply(a, b),
    "recip": lambda a: CONTEXT.divide(ONE, a),
    "exp": lambda a: CONTEXT.exp(a),
    "log": lambda a: CONTEXT.ln(a),
    "sqrt": lambda a: CONTEXT.sqrt(a),
    "pos": lambda a: ONE if a > 0 else Decimal(0),
    "abs": lambda a: a.copy_abs(),
    "max": lambda *xs: max(xs),
    "min": lambda *xs: min(xs),
    "erf": erf,
    "tanh": tanh,
    "sin": sine,
    "sinh": lambda a: (CONTEXT.exp(a) - CONTEXT.exp(-a)) / 2,
    "cosh": lambda a: (CONTEXT.exp(a) + CONTEXT.exp(-a)) / 2,
    "pow": lambda a, b: CONTEXT.power(a, b),
    "round": lambda a: a.to_integral_value(decimal.ROUND_HALF_EVEN),
    "floor": lambda a: a.to_integral_value(decimal.ROUND_FLOOR),
    "ceil": lambda a: a.to_integral_value(decimal.ROUND_CEILING),
}

Digits = list[Decimal]


class Exact:
    """The verbs in 60-digit arithmetic."""

    def __init__(self, inputs: dict[tuple[Any, ...], np.ndarray]) -> None:
        self.inputs = inputs

    def const(self, array: np.ndarray) -> Digits:
        return [Decimal(int(v)) if array.dtype.kind in "iu" else exact(v) for v in array.reshape(-1)]

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Digits:
        return self.const(self.inputs[key])

    def move(self, sources: Sequence[Digits], map_: Map) -> Digits:
        laid = [Decimal(0), *(v for s in sources for v in s)]
        return [laid[i] for i in map_.index]

    def ew(self, fn: str, operands: Sequence[Digits], maps: Sequence[Map | None], size: int) -> Digits:
        seen = [v if m is None else [v[i - 1] for i in m.index] for v, m in zip(operands, maps, strict=True)]
        return [FUNCTIONS[fn](*(v[i if len(v) > 1 else 0] for v in seen)) for i in range(size)]

    def contract(self, a: Digits, b: Digits, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Digits:
        out = []
        for batch in range(max(batches)):
            ia, ib = min(batch, batches[0] - 1) * m * k, min(batch, batches[1] - 1) * n * k
            for i in range(m):
                for j in range(n):
                    at = [ib + (c * n + j if kn else j * k + c) for c in range(k)]
                    out.append(self._total([CONTEXT.multiply(a[ia + i * k + c], b[at[c]]) for c in range(k)]))
        return out

    def _total(self, parts: Digits) -> Digits | Any:
        total = Decimal(0)
        for part in parts:
            total = CONTEXT.add(total, part)
        return total

    def sum(self, a: Digits, rows: int, k: int) -> Digits:
        return [self._total(a[r * k : (r + 1) * k]) for r in range(rows)]

    def rows(self, fn: str, a: Digits, rows: int, k: int, size: int) -> Digits:
        out: Digits = []
        for r in range(rows):
            row = a[r * k : (r + 1) * k]
            if fn == "softmax":
                top = max(row)
                power = [CONTEXT.exp(v - top) for v in row]
                total = self._total(power)
                out += [CONTEXT.divide(v, total) for v in power]
            else:
                out.append(max(row) if fn == "max" else min(row))
        return out

    def opaque(self, key: tuple[Any, ...], args: Sequence[Digits], size: int) -> Digits:
        raise NotImplementedError


def assert_within(found: Real, truth: Digits, most: float = math.inf) -> None:
    """Each true value within the bound of its float64 value, and no bound above ``most``."""
    for value, error, wanted in zip(found.value.tolist(), found.error.tolist(), truth, strict=True):
        if math.isfinite(error):
            assert abs(Decimal(value) - wanted) <= Decimal(error), (value, error, wanted)
            assert error <= most


def both(m: Any, cls: int, inputs: dict[tuple[Any, ...], np.ndarray]) -> tuple[Real, Digits]:
    root = m.terms.find(cls)
    return evaluate(m.terms, Float64(inputs), [root])[root], evaluate(m.terms, Exact(inputs), [root])[root]


@settings(max_examples=200)
@given(chains(arithmetic=True), st.sampled_from([1e-3, 1.0, 30.0]))
def test_random_graphs(chain: Chain, scale: float) -> None:
    assume(math.prod(chain.shape) <= 200)
    x = values(chain.start) * np.float32(scale)
    m, (y,) = trace(chain.model(), {"x": x})
    assert_within(*both(m, m.lift(y).cls, {("x",): x}))


@pytest.mark.parametrize("fn", sorted(set(FUNCTIONS) - {"add", "mul", "max", "min", "pow"}))
@pytest.mark.parametrize("scale", [1e-8, 1e-2, 1.0, 5.0])
def test_functions_of_inexact_arguments(fn: str, scale: float) -> None:
    """The argument is a product, so that it carries an error of its own."""
    terms = Terms(RULES)
    a, b = (np.abs(values((64,), seed, np.float64)) + 1e-3 for seed in (1, 2))
    sign = 1.0 if fn in ("log", "sqrt") else np.where(np.arange(64) % 2, 1.0, -1.0)
    inputs = {("a",): a * scale * sign, ("b",): b}
    x = terms.ew("mul", [(terms.leaf(("a",), 64), None), (terms.leaf(("b",), 64), None)], 64)
    y = terms.ew(fn, [(x, None)], 64)
    found = evaluate(terms, Float64(inputs), [y])[y]
    truth = evaluate(terms, Exact(inputs), [y])[y]
    assert_within(found, truth, 1e-12 * max(1.0, float(np.abs(found.value).max())))
    assert bool(np.isfinite(found.error).all())


@pytest.mark.parametrize("exponent", [-1.5, 0.3, 2.5])
def test_powers(exponent: float) -> None:
    terms = Terms(RULES)
    a = np.abs(values((64,), 1, np.float64)) + 1e-3
    x = terms.ew("sqrt", [(terms.leaf(("a",), 64), None)], 64)
    y = terms.ew("pow", [(x, None), (terms.const(np.asarray([exponent])), None)], 64)
    inputs = {("a",): a}
    assert_within(evaluate(terms, Float64(inputs), [y])[y], evaluate(terms, Exact(inputs), [y])[y], 1e-9)


def test_rational_arithmetic_against_fractions() -> None:
    """The checker's own arithmetic: 60 digits against Fractions, on a matrix product of quotients."""
    a, b = values((3, 5), 1), values((5, 2), 2)
    terms = Terms(RULES)
    x, y = terms.leaf(("a",), 15), terms.leaf(("b",), 10)
    r = terms.ew("recip", [(y, None)], 10)
    z = terms.contract(x, terms.move((r,), terms.maps.transpose((5, 2), (1, 0))), (1, 1), 3, 2, 5)
    inputs = {("a",): a, ("b",): b}
    found, truth = (evaluate(terms, d, [z])[terms.find(z)] for d in (Float64(inputs), Exact(inputs)))
    wanted = [
        sum(Fraction(float(a[i, c])) / Fraction(float(b[c, j])) for c in range(5)) for i in range(3) for j in range(2)
    ]
    for value, error, digits, fraction in zip(found.value, found.error, truth, wanted, strict=True):
        assert abs(Fraction(float(value)) - fraction) <= Fraction(float(error))
        assert abs(Fraction(digits) - fraction) <= abs(fraction) * Fraction(1, 10**50) + Fraction(1, 10**50)


LAYER = """
  g (float[4,16] x, float[16,16] q, float[16,16] k, float[16,16] v, float[16,32] up, float[32,16] down) => (float[4,16] y) {
    one = Constant<value = float[16] {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>()
    n = LayerNormalization(x, one)
    a = MatMul(n, q) b = MatMul(n, k) c = MatMul(n, v)
    bt = Transpose(b) s = MatMul(a, bt) quarter = Constant<value = float {0.25}>() t = Mul(s, quarter)
    p = Softmax(t) o = MatMul(p, c) r = Add(x, o)
    m = LayerNormalization(r, one) h = MatMul(m, up) e = Gelu(h) d = MatMul(e, down) y = Add(r, d)
  }"""


def test_a_transformer_layer_is_bounded_closely() -> None:
    shapes = {"x": (4, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
    feeds = {n: values(s, i) * np.float32(1.0 if n == "x" else 0.25) for i, (n, s) in enumerate(shapes.items())}
    m, (y,) = trace(model(LAYER, 20), feeds)
    found, truth = both(m, y.cls, {(n,): x for n, x in feeds.items()})
    assert_within(found, truth, 3e-11)


@pytest.mark.parametrize("case", ["underflow", "overflow", "negative root", "zero denominator", "nearby step"])
def test_what_cannot_be_bounded_says_so(case: str) -> None:
    """No finite bound where float64 leaves its range or a step may lie on either side; NaN and 0 where there is no value."""
    terms = Terms(RULES)
    a = terms.leaf(("a",), 1)
    tiny, huge = terms.const(np.asarray([1e-200])), terms.const(np.asarray([1e200]))
    small = terms.ew("mul", [(a, None), (tiny, None)], 1)
    if case == "underflow":
        y = terms.ew("mul", [(small, None), (terms.ew("mul", [(small, None), (a, None)], 1), None)], 1)
        for _ in range(2):
            y = terms.ew("mul", [(y, None), (huge, None)], 1)
        found = evaluate(terms, Float64({("a",): np.asarray([1.5])}), [y])[y]
        assert found.error[0] >= 1.5**3 - found.value[0]
        return
    if case == "overflow":
        y = terms.ew("mul", [(terms.ew("mul", [(a, None), (huge, None)], 1), None), (huge, None)], 1)
    elif case == "negative root":
        y = terms.ew("sqrt", [(terms.ew("mul", [(a, None), (terms.const(np.asarray([-1.0])), None)], 1), None)], 1)
    else:
        third = terms.ew("recip", [(terms.const(np.asarray([3.0])), None)], 1)
        sum_ = terms.ew(
            "add", [(terms.ew("mul", [(a, None), (third, None)], 1), None), (terms.const(np.asarray([-0.5])), None)], 1
        )
        y = terms.ew("recip" if case == "zero denominator" else "pos", [(sum_, None)], 1)
    found = evaluate(terms, Float64({("a",): np.asarray([1.5])}), [y])[terms.find(y)]
    if case == "negative root":
        assert math.isnan(found.value[0]) and found.error[0] == 0
        selected = terms.ew("mul", [(y, None), (terms.leaf(("zero",), 1), None)], 1)
        step = terms.ew("pos", [(y, None)], 1)
        for unknown in (selected, step):  # 0 times nothing, and the sign of nothing
            inputs = {("a",): np.asarray([1.5]), ("zero",): np.zeros(1)}
            found = evaluate(terms, Float64(inputs), [unknown])[terms.find(unknown)]
            assert found.error[0] >= 1.0
        return
    assert found.error[0] >= (1.0 if case == "nearby step" else math.inf)


@pytest.mark.parametrize("error", [1e-3, 0.9, 2.0, 900.0, math.inf])
@pytest.mark.parametrize("at", [-800.0, -1.0, 0.0, 3.0])
def test_a_wide_error_goes_through_exp_and_softmax(error: float, at: float) -> None:
    """The ends of the interval must lie within the bound, also where the value itself underflows."""
    domain = Float64({})
    found = domain.ew("exp", [Real(np.asarray([at]), np.asarray([error]))], [None], 1)
    if math.isinf(error):
        assert found.error[0] == math.inf
    else:
        assert CONTEXT.exp(exact(at) + exact(error)) - Decimal(float(found.value[0])) <= Decimal(float(found.error[0]))
        assert Decimal(float(found.value[0])) - CONTEXT.exp(exact(at) - exact(error)) <= Decimal(float(found.error[0]))
    soft = domain.rows("softmax", Real(np.asarray([at, 0.0]), np.asarray([error, error])), 1, 2, 2)
    shift = exact(at) + 2 * exact(error) if math.isfinite(error) else Decimal(1000)
    most = CONTEXT.divide(CONTEXT.exp(shift), 1 + CONTEXT.exp(shift))
    assert most - Decimal(float(soft.value[0])) <= Decimal(float(soft.error[0]))


DYADIC = st.builds(lambda m, e: m * 2.0**e, st.integers(-40, 40), st.sampled_from([-8, -2, 0, 1, 24, 30]))


@settings(max_examples=300)
@example([0.5, 1.0, 2.0, -3.0, 4.5, 0.0], [1.0, 2.0, 0.5, -1.5, 3.0, 7.0])
@given(st.lists(DYADIC, min_size=6, max_size=6), st.lists(DYADIC, min_size=6, max_size=6))
def test_no_error_is_claimed_only_where_nothing_rounds(left: list[float], right: list[float]) -> None:
    """Sums, products and sums of products of numbers of few digits, near and far apart."""
    terms = Terms(RULES)
    a, b = terms.leaf(("a",), 6), terms.leaf(("b",), 6)
    inputs = {("a",): np.asarray(left), ("b",): np.asarray(right)}
    both = [(a, None), (b, None)]
    roots = [
        terms.ew("add", both, 6),
        terms.ew("mul", both, 6),
        terms.sum(a, 2, 3),
        terms.contract(a, b, (1, 1), 2, 2, 3),
    ]
    roots.append(terms.ew("mul", [(roots[0], None), (roots[1], None)], 6))
    roots.append(terms.ew("add", [(roots[4], None), (roots[1], None)], 6))
    found, truth = evaluate(terms, Float64(inputs), roots), evaluate(terms, Exact(inputs), roots)
    for root in map(terms.find, roots):
        assert_within(found[root], truth[root])
    if max(map(abs, left + right)) <= 80 and all(x == round(2 * x) / 2 for x in left + right):
        assert not any(found[root].error.any() for root in map(terms.find, roots))
        noise = evaluate(terms, Float64(inputs, bounds=False, unit=2.0**-24, seed=1), roots[:4])
        assert all((noise[root].value == found[root].value).all() for root in map(terms.find, roots[:4]))


def test_an_overflown_maximum_is_not_exact() -> None:
    wide = Real(np.asarray([np.inf, 1.0]), np.asarray([np.inf, 0.0]))
    assert Float64({}).rows("max", wide, 1, 2, 1).error[0] == math.inf
    one, two = (Real(wide.value[i : i + 1], wide.error[i : i + 1]) for i in (1, 0))
    assert Float64({}).ew("max", [one, two], [None, None], 1).error[0] == math.inf


def test_large_integers_carry_their_rounding() -> None:
    terms = Terms(RULES)
    cls = terms.const(np.asarray([2**53 + 1, 2**62 + 1], np.int64))
    found = evaluate(terms, Float64({}), [cls])[cls]
    for value, error, wanted in zip(found.value, found.error, (2**53 + 1, 2**62 + 1), strict=True):
        assert 0 < abs(int(value) - wanted) <= error


def test_the_checker_sees_a_bound_that_is_too_small() -> None:
    """A bound of one tenth of the true error must fail."""
    truth = [Decimal(1) / 3]
    honest = Real(np.asarray([1 / 3]), np.asarray([2.0**-54]))
    assert_within(honest, truth)
    with pytest.raises(AssertionError):
        assert_within(Real(honest.value, np.asarray([1e-18])), truth)


@pytest.mark.parametrize(
    ("source", "to", "value", "wanted"),
    [
        ("cast", "int8", 3.7, 3),
        ("cast", "int8", -3.7, -3),
        ("wrap", "int8", 130, -126),
        ("wrap", "uint8", -1, 255),
        ("wrap", "uint32", -1, 2**32 - 1),
        ("saturate", "int8", 130, 127),
        ("saturate", "uint8", -5, 0),
        ("saturate", "int4", 9, 7),
        ("cast", "float8_e4m3fn", 1000, 448),
        ("cast", "float16", 1 + 2**-12, 1),
    ],
)
def test_casts(source: str, to: str, value: float, wanted: float) -> None:
    terms = Terms(RULES)
    y = terms.ew(f"{source}:{to}", [(terms.leaf(("a",), 1), None)], 1)
    found = evaluate(terms, Float64({("a",): np.asarray([value])}), [y])[y]
    assert found.value[0] == wanted and found.error[0] == 0


def test_a_cast_out_of_range_is_not_known() -> None:
    terms = Terms(RULES)
    y = terms.ew("cast:int8", [(terms.leaf(("a",), 1), None)], 1)
    assert evaluate(terms, Float64({("a",): np.asarray([300.0])}), [y])[y].error[0] == math.inf
