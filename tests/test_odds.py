"""The tracked degrees and heights bound the true ones, and the risk is the sum over all that could be confused."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from graphcheck.kernel.proof.lookalikes import Lookalikes, Marks
from graphcheck.kernel.proof.odds import Degrees, Risk
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.residues import LOW, PRIME_COUNT
from graphcheck.verdicts.compare import compare
from tests.test_cases import read

Poly = list[Fraction]  # coefficients by power of the one symbol
Quotient = tuple[Poly, Poly]


def _trim(p: Poly) -> Poly:
    while p and p[-1] == 0:
        p = p[:-1]
    return p


def _times(a: Poly, b: Poly) -> Poly:
    out = [Fraction(0)] * (len(a) + len(b))
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return _trim(out)


def _plus(a: Poly, b: Poly) -> Poly:
    n = max(len(a), len(b))
    return _trim(
        [x + y for x, y in zip(a + [Fraction(0)] * (n - len(a)), b + [Fraction(0)] * (n - len(b)), strict=True)]
    )


def _divide(a: Poly, b: Poly) -> tuple[Poly, Poly]:
    quotient = [Fraction(0)] * max(len(a) - len(b) + 1, 0)
    while len(a) >= len(b):
        factor, at = a[-1] / b[-1], len(a) - len(b)
        quotient[at] = factor
        a = _plus(a, [Fraction(0)] * at + [-factor * c for c in b])
    return _trim(quotient), a


def _reduced(p: Poly, q: Poly) -> Quotient:
    a, b = p, q
    while b:
        a, b = b, _divide(a, b)[1]
    return (_divide(p, a)[0], _divide(q, a)[0]) if a else (p, q)


def _difference(x: Quotient, y: Quotient) -> Poly:
    """The numerator of the difference, reduced, with coprime integers for coefficients."""
    top = _plus(_times(x[0], y[1]), [-c for c in _times(y[0], x[1])])
    top = _reduced(top, _times(x[1], y[1]))[0]
    if not top:
        return top
    whole = math.lcm(*(c.denominator for c in top))
    common = math.gcd(*(int(c * whole) for c in top))
    return [c * whole / common for c in top]


NUMBERS = st.sampled_from([1.0, 2.0, 3.0, 0.75, 10.0, 1e-3, 1e5, 0.1])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "mul", "recip", "sum"]), st.integers(0, 99), st.integers(0, 99)),
                 min_size=1, max_size=9)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(NUMBERS, min_size=3, max_size=3), STEPS)
def test_degrees_and_heights_bound_the_reduced_numerator_of_every_difference(numbers: list[float], steps: list) -> None:
    terms = Terms(RULES)
    one = [Fraction(1)]
    pair = np.asarray(numbers[:2], np.float32)
    values: list[tuple[int, list[Quotient]]] = [
        (terms.leaf(("x",), 1), [([Fraction(0), Fraction(1)], one)]),
        (terms.const(np.asarray(numbers[2:], np.float32)), [([Fraction(float(np.float32(numbers[2])))], one)]),
    ]
    if pair[0] != pair[1]:
        values.append((terms.const(pair), [([Fraction(float(c))], one) for c in pair]))
    for fn, i, j in steps:
        (a, x), (b, y) = values[i % len(values)], values[j % len(values)]
        size = max(len(x), len(y)) if fn in ("add", "mul") else len(x)
        if fn == "sum":
            if len(x) == 1:
                continue
            total = (_plus(_times(x[0][0], x[1][1]), _times(x[1][0], x[0][1])), _times(x[0][1], x[1][1]))
            values.append((terms.sum(a, 1, 2), [_reduced(*total)]))
        elif fn == "recip":
            assume(all(p for p, _ in x))
            values.append((terms.ew("recip", [(a, None)], size), [(q, p) for p, q in x]))
        else:
            wide = [v * (size // len(v)) for v in (x, y)]
            out = []
            for (p, q), (r, s) in zip(*wide, strict=True):
                top = _times(p, r) if fn == "mul" else _plus(_times(p, s), _times(r, q))
                out.append(_reduced(top, _times(q, s)))
            values.append((terms.ew(fn, [(a, None), (b, None)], size), out))
    degrees = Degrees(terms)
    for a, x in values:
        for b, y in values:
            if len(x) != len(y):
                continue
            degree = degrees.size(a).degree + degrees.size(b).degree
            height = degrees.size(a).height + degrees.size(b).height
            for numerator in map(_difference, x, y):
                if numerator:
                    assert len(numerator) - 1 <= degree
                    assert min(abs(int(c)).bit_length() for c in numerator if c) <= height + 1


def test_residual_sums_do_not_double_the_height() -> None:
    terms = Terms(RULES)
    x = terms.leaf(("x",), 4)
    weights = [terms.const(np.arange(16.0, dtype=np.float32) + i) for i in range(40)]
    for w in weights:
        x = terms.ew("add", [(x, None), (terms.contract(x, w, (1, 1), 1, 4, 4, kn=True), None)], 4)
    assert Degrees(terms).size(x).height < 40 * 20


def test_a_denominator_that_all_terms_share_counts_once() -> None:
    terms = Terms(RULES)
    x, third = terms.leaf(("x",), 512), terms.ew("recip", [(terms.const(np.array([3.0])), None)], 1)
    mean = terms.sum(terms.ew("mul", [(x, None), (third, None)], 512), 1, 512)
    assert Degrees(terms).size(mean).height < 20
    many = terms.ew("recip", [(terms.const(np.arange(1.0, 513.0)), None)], 512)
    assert Degrees(terms).size(terms.sum(terms.ew("mul", [(x, None), (many, None)], 512), 1, 512)).height > 512


def test_the_risk_counts_pairs_of_fingerprints_and_of_arguments() -> None:
    terms = Terms(RULES)
    x, y = (terms.leaf((name,), 8) for name in "xy")
    risk = Risk(Degrees(terms))
    risk.compared(x, y)
    one = risk.log2(3)
    chance = 2 * (3 / LOW + 2 / 21 / PRIME_COUNT)
    assert one == math.log2(chance**3 + 2.0**-128)
    risk.evaluated([terms.ew("exp", [(x, None)], 8)])
    assert risk.log2(3) > one
    running = Risk(Degrees(terms), 3)
    running.compared(x, y)
    running.evaluated([terms.ew("exp", [(x, None)], 8)])
    assert math.log2(running.so_far) == risk.log2(3)
    assert risk.log2(6) < risk.log2(3) - 40
    assert risk.primes(1e-30, 16) is not None
    assert risk.primes(1e-60, 16) is None  # 128 bits of hash are no more


def test_arguments_of_functions_count_though_their_values_are_symbols() -> None:
    terms = Terms(RULES)
    x = terms.leaf(("x",), 2)
    high = x
    for _ in range(10):
        high = terms.ew("mul", [(high, None), (high, None)], 2)
    power = terms.ew("exp", [(high, None)], 2)
    degrees = Degrees(terms)
    assert degrees.size(power).degree < 10 < 1024 <= degrees.size(high).degree
    risk = Risk(degrees)
    risk.evaluated(terms.order([power]))
    assert risk.worst.degree >= 1024


def test_the_primes_depend_on_the_models_so_that_none_can_hold_them() -> None:
    def seed(value: float) -> int:
        terms = Terms(RULES)
        x = terms.leaf(("x",), 2)
        y = terms.ew("mul", [(x, None), (terms.const(np.array([value])), None)], 2)
        return Prover(terms, [x], [y], [2], seed=0, target=1e-9).seed

    assert seed(3.0) == seed(3.0) != seed(5.0)


def test_the_error_probability_asked_for_is_kept_or_the_verdict_is_undecided() -> None:
    _, a, b = read("proved-softmax-by-hand")
    for asked in (1e-9, 1e-25):
        found = compare(a, b, error_probability=asked, run=False)
        assert found.verdict == "proved"
        assert 0 < found.evidence["proof"]["error_probability"] <= asked
    _, a, b = read("proved-from-the-inputs")
    assert 0 < compare(a, b, run=False).evidence["proof"]["error_probability"] <= 1e-9
    assert compare(a, b, error_probability=1e-100, run=False).verdict == "undecided"  # a hash has 128 bits


def test_poles_by_other_steps_of_the_same_scalars_count_each() -> None:
    terms = Terms(RULES)
    x, c = terms.leaf(("x",), 4), terms.const(np.array([3.0]))
    parts = []
    for steps in itertools.product(("add", "mul"), repeat=6):  # 64 chains, no two of which are zero at the same place
        y = x
        for fn in steps:
            y = terms.ew(fn, [(y, None), (c, None)], 4)
        parts.append(terms.ew("recip", [(y, None)], 4))
    total = functools.reduce(lambda a, b: terms.ew("add", [(a, None), (b, None)], 4), parts)
    assert Degrees(terms).size(total).degree > 40
    both = terms.ew("add", [(c, None), (terms.ew("exp", [(x, None)], 4), None)], 4)
    other = terms.ew("add", [(c, None), (terms.ew("recip", [(terms.ew("exp", [(x, None)], 4), None)], 4), None)], 4)
    poles = [Degrees(terms).of(terms.ew("recip", [(y, None)], 4)).poles for y in (both, other)]
    assert poles[0].keys() != poles[1].keys()


def loops(trips: int) -> tuple[list[int], int]:
    """The rows of two loops whose values vanish that were evaluated exactly, and how many classes were walked over."""
    walked, seen = 0, list[int]()

    def order(self: Terms, *what: Any) -> list[int]:
        nonlocal walked
        walked += len(found := ordered(self, *what))
        return found

    terms = Terms(RULES)
    half, roots = terms.const(np.full(1, 0.5)), []
    for fn in ("tanh", "sin"):
        x = terms.leaf(("input", "x"), 8)
        for _ in range(trips):
            x = terms.ew("mul", [(terms.ew(fn, [(x, None)], 8), None), (half, None)], 8)
        roots.append([x])
    ordered = Terms.order
    with pytest.MonkeyPatch.context() as patched:
        of = Marks.of
        patched.setattr(Marks, "of", lambda self, row: of(self, row) if not seen.append(row) else None)
        prover = Prover(terms, *roots, [2], seed=0, target=2.0**-40)
        patched.setattr(Terms, "order", order)
        assert not prover.by_rows()
    return seen, walked


def test_rows_walk_over_what_is_evaluated_once() -> None:
    (few, short), (many, long) = loops(60), loops(120)
    assert len(set(many)) > 1.5 * len(set(few)) > 60, "tanh(x) looks like x once x is small"
    assert long < 2.3 * short


SKETCHED = st.floats(-2, 2) | st.just(math.nan) | st.just(math.inf) | st.sampled_from([1.0, 1.0 + 1e-9, 1.0 + 1e-8, 0.0])


@given(st.lists(SKETCHED, max_size=12))
def test_lookalikes_are_those_within_rounding_in_the_order_they_came(numbers: list[float]) -> None:
    found, weight = Lookalikes(), math.cos(0.5)
    for i, number in enumerate(numbers):
        near = 1e-9 * abs(number)
        alike = [
            (j, 0) for j, other in enumerate(numbers[:i])
            if not (math.isfinite(number) and math.isfinite(other)) or abs(weight * other - weight * number) <= near
        ]  # fmt: skip
        assert found.of(1, np.array([number]), (i, 0)) == alike
