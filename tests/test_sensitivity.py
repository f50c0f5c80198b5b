"""First-order error bounds of one element: derivatives against differences, the bound against 60 digits."""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from ops_support import model, trace, values
from test_maps import Chain, chains
from test_real import CONTEXT, LAYER, Exact

from graphcheck.kernel.terms.functions import FUNCTIONS
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.parting import slopes as sensitivity
from graphcheck.parting.rooms import Rooms, largest
from graphcheck.parting.slopes import Tape, derivatives
from graphcheck.parting.tangents import Tangents


@pytest.fixture(autouse=True, scope="module")
def sixty_digits() -> Iterator[None]:
    with decimal.localcontext(CONTEXT):
        yield


def element_bound(terms: Terms, inputs: dict[tuple[Any, ...], np.ndarray], root: int, index: int) -> tuple[float, float]:
    """(value, first-order error bound) of one element of a class; inf where no derivative is known."""
    tape = Tape(terms, inputs, [root])
    return float(tape.value(root)[index]), tape.bound(root, index)


def assert_derivatives(terms: Terms, root: int, inputs: dict[tuple[Any, ...], np.ndarray], index: int) -> None:
    """Central differences in float64: right to about 1e-6 of the largest."""
    root = terms.find(root)
    found = derivatives(terms, inputs, root, index)
    for key, slope in found.items():
        x = inputs[key].astype(np.float64).reshape(-1)
        for i in range(0, x.size, max(1, x.size // 6)):
            step = 1e-5 * max(1.0, abs(x[i]))
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[i] += sign * step
                ends.append(evaluate(terms, Float64({**inputs, key: moved}, bounds=False), [root])[root].value[index])
            wanted = (ends[0] - ends[1]) / (2 * step)
            assert abs(slope[i] - wanted) <= 1e-5 * max(1.0, np.abs(slope).max(), abs(wanted))


@pytest.mark.parametrize("fn", sorted(name for name, record in FUNCTIONS.items() if record.slope is not None))
def test_derivatives_of_functions(fn: str) -> None:
    terms = Terms(RULES)
    a = np.linspace(0.1, 0.9, 8) + (1.0 if fn == "acosh" else 0.0)
    leaf = terms.leaf(("a",), 8)
    other = terms.leaf(("b",), 1)
    operands = [(leaf, None), (other, None)] if FUNCTIONS[fn].arity == 2 else [(leaf, None)]
    y = terms.ew(fn, operands, 8)
    for index in (0, 5) if fn != "masking" else (5,):  # it is -inf below a half
        assert_derivatives(terms, y, {("a",): a, ("b",): np.asarray([1.7])}, index)


@settings(max_examples=100)
@given(chains(arithmetic=True))
def test_derivatives_of_graphs(chain: Chain) -> None:
    assume(0 < math.prod(chain.shape) <= 200)
    x = values(chain.start, 4)
    m, (y,) = trace(chain.model(), {"x": x})
    kinks = {"Relu", "Abs", "Max", "ReduceMax"} & {n.op_type for n in chain.nodes}
    assume(not kinks)
    assert_derivatives(m.terms, m.lift(y).cls, {("x",): x}, math.prod(chain.shape) // 2)


@settings(max_examples=150)
@given(chains(arithmetic=True))
def test_the_true_value_lies_within(chain: Chain) -> None:
    size = math.prod(chain.shape)
    assume(0 < size <= 200)
    inputs = {("x",): values(chain.start)}
    m, (y,) = trace(chain.model(), {"x": inputs[("x",)]})
    root = m.terms.find(m.lift(y).cls)
    truth = evaluate(m.terms, Exact(inputs), [root])[root]
    for index in {0, size // 2, size - 1}:
        value, bound = element_bound(m.terms, inputs, root, index)
        assert math.isinf(bound) or abs(Decimal(value) - truth[index]) <= Decimal(bound)


def test_a_transformer_layer_is_bounded_to_its_rounding() -> None:
    shapes = {"x": (4, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
    feeds = {n: values(s, i) * np.float32(1.0 if n == "x" else 0.25) for i, (n, s) in enumerate(shapes.items())}
    m, (y,) = trace(model(LAYER, 20), feeds)
    inputs = {(n,): x for n, x in feeds.items()}
    root = m.terms.find(y.cls)
    truth = evaluate(m.terms, Exact(inputs), [root])[root]
    running = evaluate(m.terms, Float64(inputs), [root])[root]
    for index in range(0, 64, 7):
        value, bound = element_bound(m.terms, inputs, root, index)
        assert abs(Decimal(value) - truth[index]) <= Decimal(bound)
        assert bound <= 1e-12 and bound <= running.error[index] / 10
    assert_derivatives(m.terms, root, inputs, 9)


@pytest.mark.parametrize(("shift", "finite"), [(0.3, True), (1e-12, False)])
def test_a_step_close_to_its_jump_has_no_bound(shift: float, finite: bool) -> None:
    """What a sum of products errs by is assumed, not derived."""
    terms = Terms(RULES)
    product = terms.contract(terms.leaf(("a",), 2), terms.const(np.asarray([1.0, -0.7])), (1, 1), 1, 1, 2)
    y = terms.ew("pos", [(product, None)], 1)
    assert math.isfinite(element_bound(terms, {("a",): np.asarray([0.7 + shift, 1.0])}, y, 0)[1]) == finite


def third_times_three(terms: Terms) -> int:
    """x / 3 * 3 - x, which is 0 but for rounding, at three places."""
    leaf = terms.leaf(("a",), 3)
    third = terms.ew("recip", [(terms.const(np.asarray([3.0])), None)], 1)
    part = terms.ew("mul", [(leaf, None), (third, None)], 3)
    whole = terms.ew("add", [(part, None), (terms.ew("add", [(part, None), (part, None)], 3), None)], 3)
    minus = terms.ew("mul", [(leaf, None), (terms.const(np.asarray([-1.0])), None)], 3)
    return terms.ew("add", [(whole, None), (minus, None)], 3)


@pytest.mark.parametrize("kink", ["abs", "relu", "max", "rows", "where"])
@pytest.mark.parametrize("at", [(0.1, 0.7, 1.3), (1.1, 5.3, 0.3)])
def test_a_kink_that_rounding_may_cross_is_bounded(kink: str, at: tuple[float, ...]) -> None:
    terms = Terms(RULES)
    near = third_times_three(terms)
    tilted = terms.ew("mul", [(near, None), (terms.const(np.asarray([-0.75])), None)], 3)
    match kink:
        case "abs":
            y = terms.ew("abs", [(near, None)], 3)
        case "relu":
            y = terms.ew("mul", [(near, None), (terms.ew("pos", [(near, None)], 3), None)], 3)
        case "max":
            y = terms.ew("max", [(near, None), (tilted, None)], 3)
        case "rows":
            both = terms.move((near, tilted), terms.maps.intern(np.asarray([1, 4, 2, 5, 3, 6])))
            y = terms.rows("max", both, 3, 2)
        case _:
            y = terms.ew("mul", [(tilted, None), (terms.ew("pos", [(near, None)], 3), None)], 3)
    inputs = {("a",): np.asarray(at)}
    truth = evaluate(terms, Exact(inputs), [y])[terms.find(y)]
    for index in range(3):
        value, bound = element_bound(terms, inputs, y, index)
        assert abs(Decimal(value) - truth[index]) <= Decimal(bound)
        assert math.isinf(bound) == (kink == "where")  # a jump that close is no kink


def test_pieces_of_a_tape_give_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"x": (4, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
    feeds = {n: values(s, i) for i, (n, s) in enumerate(shapes.items())}
    m, (y,) = trace(model(LAYER, 20), feeds)
    inputs = {(n,): x for n, x in feeds.items()}
    whole = element_bound(m.terms, inputs, y.cls, 9)
    monkeypatch.setattr(sensitivity, "_HELD", 100)
    monkeypatch.setattr(sensitivity, "_COSTLY", 16)
    products = sum(isinstance(m.terms.terms[c].verb, Contract) for c in m.terms.order([y.cls]))
    made: list[int] = []
    contract = Float64.contract
    monkeypatch.setattr(Float64, "contract", lambda self, *args: made.append(args[3]) or contract(self, *args))
    for kept, again in ((0, products), (4 * 16, products - 1), (10**6, 1)):  # elements; the scores sum over 4 alone
        made.clear()
        monkeypatch.setattr(sensitivity, "_PRODUCTS", kept)
        assert element_bound(m.terms, inputs, y.cls, 9) == whole
        assert len(made) == products + again


def test_rooms_are_followed_where_something_is_near_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    of = Rooms.of
    monkeypatch.setattr(Rooms, "of", lambda self, *place: asked.append(place[0]) or of(self, *place))
    far, near = {("x",): np.array([3.0, 0.0])}, {("x",): np.array([9.9e3, 0.0])}
    for inputs in (far, near):  # 1 / (1/2 + x * x), beside a large number of the same tensor
        terms = Terms(RULES)
        x = terms.leaf(("x",), 2)
        square = terms.ew("mul", [(x, None), (x, None)], 2)
        root = terms.ew("recip", [(terms.ew("add", [(square, None), (terms.const(np.full(1, 0.5)), None)], 2), None)], 2)
        asked.clear()
        assert math.isfinite(element_bound(terms, inputs, root, 1)[1])
        assert bool(asked) is (inputs is near)


def test_an_unknown_function_has_no_bound() -> None:
    m, (y,) = trace(model("g (float[3,4] x) => (float[3,4] y) { y = Hardmax(x) }"), {"x": values((3, 4))})
    assert element_bound(m.terms, {("x",): values((3, 4))}, y.cls, 0)[1] == math.inf


def test_a_padded_window_has_the_bound_of_its_elements() -> None:
    """The -inf of padding is exact and never the maximum."""
    text = (
        "g (float[1,1,4,5] x, float[1,1,5,5] w) => (float[1,1,4,5] y) "
        "{ c = MatMul(x, w) y = MaxPool<kernel_shape=[3,3],pads=[1,1,1,1]>(c) }"
    )
    feeds = {"x": values((1, 1, 4, 5)), "w": values((1, 1, 5, 5), 1)}
    m, (y,) = trace(model(text), feeds)
    inputs = {(n,): x for n, x in feeds.items()}
    truth = evaluate(m.terms, Exact(inputs), [y.cls])[m.terms.find(y.cls)]
    for index in range(20):
        value, bound = element_bound(m.terms, inputs, y.cls, index)
        assert abs(Decimal(value) - truth[index]) <= Decimal(bound) < Decimal("1e-13")


def test_a_mask_that_rounding_made_is_not_exact() -> None:
    """Log(Relu(x)) where x is 0 but for rounding: the true number may be any."""
    terms = Terms(RULES)
    near = terms.contract(terms.leaf(("a",), 2), terms.const(np.asarray([1.0, -3.0])), (1, 1), 1, 1, 2)
    low = terms.ew("log", [(terms.ew("max", [(near, None), (terms.const(np.zeros(1)), None)], 1), None)], 1)
    y = terms.rows("max", terms.move((low, terms.leaf(("b",), 1)), terms.maps.intern(np.asarray([1, 2]))), 1, 2)
    for a, finite in (((-1.0, -1 / 3), False), ((4.0, 1.0), True)):
        inputs = {("a",): np.asarray(a), ("b",): np.asarray([-40.0])}
        assert math.isfinite(element_bound(terms, inputs, y, 0)[1]) == finite


@pytest.mark.parametrize("act", ["Sigmoid(p)", "Swish(p)", "Softplus(p)"])
def test_a_saturated_unit_leaves_the_others_their_bounds(act: str) -> None:
    """Exp(-x) is 1e26 at one unit, 1 at another, and nobody is near the pole of 1 / (1 + Exp(-x))."""
    feeds = {"x": values((2, 6)), "w": values((6, 6), 1)}
    feeds["w"][:, 0] = -60 * np.sign(feeds["x"][0])
    body = act.replace("Swish(p)", "Mul(p, s)")
    m, (y,) = trace(
        model(f"g (float[2,6] x, float[6,6] w) => (float[2,6] y) {{ p = MatMul(x, w) s = Sigmoid(p) y = {body} }}"), feeds
    )
    inputs = {(n,): x for n, x in feeds.items()}
    truth = evaluate(m.terms, Exact(inputs), [y.cls])[m.terms.find(y.cls)]
    for index in range(12):
        value, bound = element_bound(m.terms, inputs, y.cls, index)
        assert abs(Decimal(value) - truth[index]) <= Decimal(bound) < Decimal("1e-11")


def test_a_pole_that_a_value_may_reach_has_no_bound() -> None:
    """1 / (Exp(x) - 1) at x near 0, beside an element where Exp(x) is large."""
    terms = Terms(RULES)
    x = terms.contract(terms.leaf(("a",), 4), terms.const(np.asarray([1.0, -1.0])), (1, 1), 2, 1, 2)
    less = terms.ew("add", [(terms.ew("exp", [(x, None)], 2), None), (terms.const(np.asarray([-1.0])), None)], 2)
    y = terms.ew("recip", [(less, None)], 2)
    for apart, finite in ((1e-10, False), (0.1, True)):
        inputs = {("a",): np.asarray([1.0 + apart, 1.0, 30.0, 0.0])}
        assert [math.isfinite(element_bound(terms, inputs, y, i)[1]) for i in (0, 1)] == [finite, True]


@settings(max_examples=100)
@given(chains(arithmetic=True))
def test_the_true_difference_of_two_ends_lies_within(chain: Chain) -> None:
    """Both are made of the same steps, each of which is rounded once."""
    size = math.prod(chain.shape)
    assume(0 < size <= 200)
    inputs = {("x",): values(chain.start)}
    m, (y,) = trace(chain.model(), {"x": inputs[("x",)]})
    root = m.terms.find(m.lift(y).cls)
    other = m.terms.ew("sin", [(m.terms.ew("mul", [(root, None), (m.terms.const(np.array([0.7])), None)], size), None)], size)
    ends = [root, m.terms.find(other)]
    truth = evaluate(m.terms, Exact(inputs), ends)
    tape = Tape(m.terms, inputs, ends)
    for index in {0, size // 2, size - 1}:
        x, y = (float(tape.value(end)[index]) for end in ends)
        bound, alone = tape.bound(ends[0], index, ends[1]), sum(tape.bound(end, index) for end in ends)
        exact = truth[ends[0]][index] - truth[ends[1]][index]
        assert math.isinf(bound) or abs(Decimal(x) - Decimal(y) - exact) <= Decimal(bound)
        assert bound <= alone * (1 + 1e-9) or math.isinf(alone)


def shared() -> tuple[Terms, int, dict[tuple[Any, ...], np.ndarray]]:
    """A long sum that rounds by much beside 1."""
    terms = Terms(RULES)
    inputs = {("a",): 1e6 * values((64,), 1).astype(np.float64), ("b",): values((64,), 2).astype(np.float64)}
    product = terms.contract(terms.leaf(("a",), 64), terms.leaf(("b",), 64), (1, 1), 1, 1, 64)
    return terms, product, inputs


def test_what_both_sides_share_rounds_for_neither() -> None:
    terms, product, inputs = shared()
    more = terms.ew("add", [(product, None), (terms.const(np.array([1e-6])), None)], 1)
    tape = Tape(terms, inputs, [product, more])
    apart = abs(float(tape.value(more)[0] - tape.value(product)[0]))
    assert tape.bound(product, 0, more) < apart < tape.bound(product, 0) + tape.bound(more, 0)


def test_equal_functions_of_what_is_shared_stay_within_their_bound() -> None:
    """(h + p) + q and h + (p + q) round otherwise: what is shared is no reason to take that for a difference."""
    terms, product, inputs = shared()
    seen = 0
    for p in np.linspace(0.1, 0.9, 9):
        p_, q = (terms.const(np.array([v])) for v in (p, p / 3))
        left = terms.ew("add", [(terms.ew("add", [(product, None), (p_, None)], 1), None), (q, None)], 1)
        right = terms.ew("add", [(product, None), (terms.ew("add", [(p_, None), (q, None)], 1), None)], 1)
        tape = Tape(terms, inputs, [left, right])
        apart = abs(float(tape.value(left)[0] - tape.value(right)[0]))
        assert apart <= tape.bound(left, 0, right)
        seen += apart > 0
    assert seen


@pytest.mark.parametrize(("shift", "finite"), [(0.3, True), (1e-12, False)])
def test_a_shared_step_close_to_its_jump_leaves_no_bound(shift: float, finite: bool) -> None:
    terms = Terms(RULES)
    product = terms.contract(terms.leaf(("a",), 2), terms.const(np.asarray([1.0, -0.7])), (1, 1), 1, 1, 2)
    step = terms.ew("pos", [(product, None)], 1)
    ends = [terms.ew("mul", [(step, None), (terms.leaf((name,), 1), None)], 1) for name in "pq"]
    inputs = {("a",): np.asarray([0.7 + shift, 1.0]), ("p",): np.asarray([2.0]), ("q",): np.asarray([3.0])}
    assert math.isfinite(Tape(terms, inputs, ends).bound(ends[0], 0, ends[1])) == finite


def test_work_on_another_core_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"x": (4, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
    m, (y,) = trace(model(LAYER, 20), {n: 0.3 * values(s, i) for i, (n, s) in enumerate(shapes.items())})
    inputs = {(n,): 0.3 * values(s, i) for i, (n, s) in enumerate(shapes.items())}
    aside, told = sensitivity._aside, []
    for large in (True, False):
        monkeypatch.setattr(sensitivity, "_aside", lambda _, large=large: aside(large))
        tape = Tape(m.terms, inputs, [y.cls], tangents=Tangents(m.terms, 0))
        told.append([(tape.bound(y.cls, at), tape.moved(at, y.cls)) for at in range(0, 64, 9)])
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("values", "most"),
    [([1e9, 3.0, -5.0], 5.0), ([np.inf, -np.inf, 0.5], 1.0), ([np.nan, -7e7, 1e20], 7e7), ([1e8, 2.0], 2.0), ([], 1.0)],
)
def test_masks_say_nothing_of_the_size_of_a_tensor(values: list[float], most: float) -> None:
    assert largest(np.array(values)) == most
