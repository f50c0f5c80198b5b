"""One draw of the roundings, carried by derivatives: what it is, that it doubts what is chaotic, and nothing of a layer."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from ops_support import model, trace, values
from test_real import LAYER
from test_redrawn import AT_AN_EDGE, CHAOS, GROW, LOGISTIC, RESIDUE, graph, repeated, traced
from test_sensitivity import derivatives

from graphcheck import processes
from graphcheck.interface.inputs import leaves_of
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Leaf, Term
from graphcheck.kernel.values import windows
from graphcheck.parting import slopes
from graphcheck.parting.slopes import Tape
from graphcheck.parting.tangents import Tangent, Tangents, _lose, _Sizes

SHAPES = {"x": (4, 16), "q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
NETS = {
    "layer": (LAYER, SHAPES),
    "conv": (
        "g (float[1,2,5,5] x, float[3,2,3,3] w) => (float[1,3] y) { c = Conv<pads=[1,1,1,1]>(x, w) r = Sigmoid(c) "
        "a = Constant<value_ints=[2,3]>() y = ReduceMax<keepdims=0>(r, a) }",
        {"x": (1, 2, 5, 5), "w": (3, 2, 3, 3)},
    ),
}


def net(name: str) -> tuple[Terms, int, dict[tuple[str], np.ndarray]]:
    text, shapes = NETS[name]
    feeds = {n: 0.3 * values(s, i) for i, (n, s) in enumerate(shapes.items())}  # no Gelu is saturated to a 0
    m, (y,) = trace(model(text, 20), feeds)
    return m.terms, y.cls, {(n,): x for n, x in feeds.items()}


def doubts(terms: Terms, root: int, inputs: dict[tuple[str], np.ndarray], seed: int = 0) -> bool:
    """Whether an element is in doubt."""
    tape = Tape(terms, inputs, [root], tangents=Tangents(terms, seed))
    return any(doubt(tape, root, at) for at in range(terms.size(root)))


def doubt(tape: Tape, root: int, at: int) -> bool:
    return math.isinf(tape.moved(at, root))


@pytest.mark.parametrize("name", NETS)
def test_a_tangent_is_the_derivative_along_a_direction(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, root, inputs = net(name)
    rng, made = np.random.default_rng(0), Tangents._made
    along = {key: rng.standard_normal(x.size).astype(np.float32) for key, x in inputs.items()}

    def started(self: Tangents, term: Term, *rest: object) -> Tangent:
        return along[term.verb.key] if isinstance(term.verb, Leaf) else made(self, term, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Tangents, "_made", started)
    monkeypatch.setattr(Tangents, "_drawn", lambda self, count: np.zeros(count, np.float32))
    tangents = Tangents(terms, 0)
    Tape(terms, inputs, [root], tangents=tangents)
    found = tangents.known[terms.find(root)]
    assert found is not None and not np.isnan(found).any()
    for index in (0, found.size - 1):
        slopes = derivatives(terms, inputs, root, index)
        wanted = sum(float(slopes[key] @ along[key]) for key in slopes)
        assert abs(found[index] - wanted) <= 1e-4 * max(1.0, abs(wanted))


@pytest.mark.parametrize("name", NETS)
def test_what_goes_forth_alone_keeps_nothing_and_says_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slopes, "_HELD", 10)
    terms, root, inputs = net(name)
    tapes = [Tape(terms, inputs, [root], tangents=Tangents(terms, 0), forth=forth) for forth in (False, True)]
    assert [any(tape.starts) for tape in tapes] == [True, False]
    assert np.array_equal(*(tape.value(root) for tape in tapes)) and len({tape.moved(0, root) for tape in tapes}) == 1


RELU = "g (float[1,2,9,9] x, float[3,2,3,3] w, float[3] b) => (float[1,3,7,7] y) { c = Conv(x, w, b) r = Relu(c) y = Exp(r) }"


def test_large_functions_of_elements_in_blocks_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that is seen through a map, and a step, which is kept as booleans."""
    feeds = {"x": values((1, 2, 9, 9)), "w": values((3, 2, 3, 3), 1), "b": values((3,), 2)}
    m, (y,) = trace(model(RELU, 20), feeds)
    inputs = {(name,): x for name, x in feeds.items()}

    def found() -> tuple[np.ndarray, list[float], list[float], Tape]:
        tape = Tape(m.terms, inputs, [y.cls], tangents=Tangents(m.terms, 0))
        each = range(m.terms.size(y.cls))
        return tape.value(y.cls), [tape.moved(at, y.cls) for at in each], [tape.bound(y.cls, at) for at in (0, 40)], tape

    whole = found()
    monkeypatch.setattr(slopes, "_LARGE", 4)
    monkeypatch.setattr(slopes, "BLOCK", 8)
    monkeypatch.setattr(windows, "BLOCK", 16)
    made: list[int] = []
    monkeypatch.setattr(Tape, "_in_blocks", lambda *args, real=Tape._in_blocks: made.append(args[1]) or real(*args))
    parts = found()
    assert np.array_equal(whole[0], parts[0]) and whole[1:3] == parts[1:3] and len(set(whole[1])) > 1
    kinds = [verb.fn for cls in made if isinstance(verb := m.terms.terms[cls].verb, Ew)]
    assert kinds[:4] == ["add", "pos", "mul", "exp"]


def test_what_is_let_go_of_goes_back_to_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    terms, root, inputs = net("layer")
    returned: list[int] = []
    monkeypatch.setattr(processes, "return_memory", lambda: returned.append(1))
    Tape(terms, inputs, [root])
    assert not returned  # one without tangents is small, or has another beside it
    Tape(terms, inputs, [root], tangents=Tangents(terms, 0))
    assert len(returned) == 1
    monkeypatch.setattr(slopes, "_FREED", 256)
    Tape(terms, inputs, [root], tangents=Tangents(terms, 0))
    assert len(returned) > 3


def test_an_overflow_in_a_block_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Terms(RULES)
    root = terms.ew("exp", [(terms.leaf(("x",), 32), None)], 32)
    monkeypatch.setattr(slopes, "_LARGE", 4)
    monkeypatch.setattr(slopes, "BLOCK", 8)
    for at in (0, 31):
        x = np.zeros(32)
        assert not Tape(terms, {("x",): x}, [root]).domain.broken
        x[at] = 1e4
        assert Tape(terms, {("x",): x}, [root]).domain.broken


def test_a_large_relu_takes_no_more_than_its_operand_and_its_result() -> None:
    terms, size = Terms(RULES), 2**21
    x = terms.leaf(("x",), size)
    root = terms.ew("mul", [(x, None), (terms.ew("pos", [(x, None)], size), None)], size)
    inputs = {("x",): np.ones(size, np.float32)}
    tracemalloc.start()
    try:
        assert Tape(terms, inputs, [root], forth=True).value(root).all()
        assert tracemalloc.get_traced_memory()[1] < 20 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", NETS)
def test_nothing_is_in_doubt_in_a_layer(name: str) -> None:
    terms, root, inputs = net(name)
    assert not any(doubts(terms, root, inputs, seed) for seed in range(20))


@pytest.mark.parametrize("at", [-2e4, 2e4])
def test_a_saturated_sigmoid_is_in_no_doubt(at: float) -> None:
    """Its Exp, of 200, and the error of that lie beyond float32."""
    pair, roots = traced(*(graph(f"u = Mul(x, tenth) v = Mul(u, tenth) s = Sigmoid(v) y = Mul(s, {n})") for n in ("two", "four")))
    x = leaves_of({"x": np.full(8, at, np.float32)})
    assert not any(doubts(pair.terms, root, x, seed) for root in roots for seed in range(3))


GELU = "e = Mul(x, tenth) f = Erf(e) g = Add(f, one) h = Mul(x, g)"  # at -120 a rounding, times 120: 0 but for that


@pytest.mark.parametrize(
    ("tail", "lost"),
    [
        ("m = ReduceMean<axes=[0], keepdims=1>(h) y = Add(m, x)", 0),
        ("s = Abs(x) n = MatMul(h, s) y = Add(n, x)", 0),
        ("y = Add(h, x)", 0),
        ("y = Mul(h, vast)", 4),
        ("y = Sub(h, x) y0 = Identity(y)", 0),
        ("a = Sub(h, x) b = Add(a, x) y = Mul(b, vast)", 4),  # the large number is gone again
        ("y = Tanh(h)", 4),
        ("y = Relu(h)", 4),
    ],
)
def test_a_saturated_gelu_is_in_doubt_until_it_is_added_to_other_numbers(tail: str, lost: int) -> None:
    pair, roots = traced(graph(f"{GELU} {tail}"), graph("y = Identity(x)"))
    x = leaves_of({"x": np.array([3, 5, 7, 9, -56, -57, -58, -59], np.float32)})  # 1 + erf(-5.6) is 15 roundings
    tape = Tape(pair.terms, x, roots[:1], tangents=Tangents(pair.terms, 0))
    assert [doubt(tape, roots[0], at) for at in range(8)] == [False] * (8 - lost) + [True] * lost


@pytest.mark.parametrize("name", CHAOS)
def test_what_is_chaotic_is_in_doubt_whatever_stands_behind_it(name: str) -> None:
    body, steps, count = CHAOS[name]
    pair, roots = traced(*(graph(body.format(repeated(step, count))) for step in steps.values()))
    x = leaves_of({"x": np.random.default_rng(0).standard_normal(8).astype(np.float32)})
    assert all(doubts(pair.terms, root, x, seed) for root in roots for seed in range(3))


@pytest.mark.parametrize("name", AT_AN_EDGE)
def test_what_is_0_but_for_rounding_is_in_doubt(name: str) -> None:
    tail = AT_AN_EDGE[name].replace("{doubled}", repeated("t{j} = Add(t{i}, t{i})", 80))
    pair, roots = traced(*(graph(f"{residue} {tail}") for residue in RESIDUE.values()))
    x = leaves_of({"x": np.random.default_rng(0).standard_normal(8).astype(np.float32)})
    assert all(doubts(pair.terms, roots[0], x, seed) for seed in range(3))


GROWN = {  # as sums along an axis, too, which take in what may be 0
    **GROW,
    "summed": "a{i} = Add(h{i}, h{i}) b{i} = Mul(h{i}, h{i}) c{i} = Mul(b{i}, vast) d{i} = Neg(c{i}) "
    "e{i} = Concat<axis=0>(a{i}, d{i}) f{i} = Constant<value_ints=[2,8]>() g{i} = Reshape(e{i}, f{i}) "
    "n{i} = Constant<value_ints=[0]>() h{j} = ReduceSum<keepdims=0>(g{i}, n{i})",
    "multiplied": "b{i} = Mul(h{i}, h{i}) e{i} = Concat<axis=0>(h{i}, b{i}) f{i} = Constant<value_ints=[2,8]>() "
    "g{i} = Reshape(e{i}, f{i}) w{i} = Constant<value_floats=[2.0,-1000000000000.0]>() h{j} = MatMul(w{i}, g{i})",
}


@pytest.mark.parametrize("step", GROWN)
def test_an_unstable_0_is_in_doubt_where_its_derivative_is_gone(step: str) -> None:
    body = f"{RESIDUE['products']} h0 = Abs(s) {repeated(GROWN[step], 80)} y = Mul(h80, vast)"
    pair, roots = traced(graph(body), graph("y = Identity(x)"))
    x = leaves_of({"x": np.random.default_rng(0).standard_normal(8).astype(np.float32)})
    assert all(doubts(pair.terms, roots[0], x, seed) for seed in range(3))


def test_what_is_not_followed_is_in_doubt() -> None:
    terms = Terms(RULES)
    x = terms.leaf(("x",), 4)
    root = terms.rows("argmax", terms.ew("exp", [(x, None)], 4), 1, 4)
    inputs = {("x",): np.array([0.1, 0.7, 0.3, 0.2])}
    assert doubts(terms, root, inputs)
    assert not doubts(terms, terms.ew("exp", [(x, None)], 4), inputs)
    assert doubts(terms, terms.opaque(("Unknown",), (x,), 4), inputs)


def test_what_may_be_0_is_in_doubt_beside_large_numbers_too() -> None:
    size = np.array([2.0**20, 2.0**-16, 3.0])
    for second in (0.0, 2.0**29):
        _lose(t := np.array([2.0**29, second, 0.0], np.float32), 2.0**29, _Sizes(size), 2.0**20, 1.0)
        assert np.isnan(t).tolist() == [False, second > 0, False]


def test_doubt_is_of_the_elements_that_depend_on_it_alone() -> None:
    """Of 8 elements one is chaotic; the largest of a pair may be the other one, by rounding."""
    steps = repeated(LOGISTIC["factored"], 60)
    body = f"h0 = Sigmoid(x) {steps} y = {{}}"
    inputs = leaves_of({"x": np.array([0.3, *[-1e4] * 7], np.float32)})  # 0 stays 0 elsewhere
    pair, (root, other) = traced(*(graph(body.format(tail)) for tail in ("Tanh(h60)", "Max(h60, two)")))
    tapes = [Tape(pair.terms, inputs, [cls], tangents=Tangents(pair.terms, 0)) for cls in (root, other)]
    assert [[doubt(tape, cls, at) for at in range(8)] for tape, cls in zip(tapes, (root, other), strict=True)] == [
        [True, *[False] * 7]
    ] * 2


def test_what_is_moved_away_from_large_numbers_is_in_doubt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.003 is little beside 100,000, and is not beside 1, whether it comes there by a Slice or not."""
    made = Tangents._made
    along = np.array([0.0, 0.0, 0.0, 1e11], np.float32)  # in units of float64's roundings, enlarged

    def started(self: Tangents, term: Term, *rest: object) -> Tangent:
        return along if isinstance(term.verb, Leaf) else made(self, term, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Tangents, "_made", started)
    terms = Terms(RULES)
    x = terms.leaf(("x",), 4)
    part = terms.move((x,), terms.maps.intern(np.array([3, 4])))
    found = [terms.ew("tanh", [(part, None)], 2), part, x]
    tape = Tape(terms, {("x",): np.array([1e5, 1.0, 1.0, 1.0])}, found, tangents=Tangents(terms, 0))
    assert [[doubt(tape, cls, at) for at in range(terms.size(cls))] for cls in found] == [[False, True], [False] * 2, [False] * 4]
