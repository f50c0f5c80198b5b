"""Which elements of two constants face each other when they are seen through maps, and the room that a sum has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphcheck import compare, limits
from graphcheck.errors import Exhausted
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.proof import facing, room, rounding, summation
from graphcheck.kernel.proof.room import apart
from graphcheck.kernel.proof.rounding import _met
from graphcheck.kernel.terms.renewal import anew
from graphcheck.kernel.terms.rules import PULL, PUSH
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move
from graphcheck.verdict import Verdict

views = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=12)


@given(views)
def test_what_is_seen_at_the_same_place_faces_each_other(places: list[tuple[int, int]]) -> None:
    terms = Terms(PUSH)
    a, b = np.arange(1, 6, dtype=np.float32), np.arange(11, 15, dtype=np.float32)
    maps = [terms.maps.intern(np.asarray(index)) for index in zip(*[(p % 6, q) for p, q in places], strict=True)]
    one, two = _met(terms, (terms.const(a), maps[0]), (terms.const(b), maps[1]), len(places))
    padded_a, padded_b = np.concatenate([[0.0], a]), np.concatenate([[0.0], b])
    wanted = {(float(padded_a[p % 6]), float(padded_b[q])) for p, q in places}
    assert set(zip(elements(terms, one), elements(terms, two), strict=True)) == wanted


def test_layers_that_differ_in_their_constants_are_replaced_in_one_store(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = []
    monkeypatch.setattr(rounding, "anew", lambda *known: stores.append(known) or anew(*known))
    layers, ulps = 6, 3  # beyond a rounding: they face each other, layer after layer
    comparison = compare(chain(layers, 0), chain(layers, ulps), run=False)
    assert "the graphs are the same but for 6 constants" in comparison.reason
    assert len(stores) <= 3  # and not one for each layer


def test_a_new_store_is_not_made_beyond_the_time_limit() -> None:
    terms = Terms(PUSH)
    root = terms.ew("tanh", ((terms.leaf("x", 3), None),), 3)
    assert anew(terms, [root])[1]
    with limits.within(seconds=1e-9), pytest.raises(Exhausted, match="the time limit"):
        anew(terms, [root])


def test_few_elements_tell_most_constants_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for place in (rounding, facing):
        monkeypatch.setattr(place, "apart", lambda *pair, **options: seen.append(pair) or apart(*pair, **options))
    assert compare(chain(5, 0), chain(5, 3), run=False).verdict is Verdict.UNDECIDED
    assert len(seen) == 5  # for the record: none with the constants of other layers
    assert compare(chain(5, 0), chain(5, 1), run=False).verdict is Verdict.WITHIN_ROUNDING


def test_two_stored_constants_are_told_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, told = [], room.Sketches.apart
    monkeypatch.setattr(room.Sketches, "apart", lambda *known: seen.append(known[1:]) or told(*known))
    assert compare(chain(8, 0, "Tanh"), chain(8, 3, "Tanh"), run=False).verdict is Verdict.UNDECIDED
    assert len(seen) == 8 * 8  # not again for each layer that was replaced


def test_an_expression_and_a_stored_constant_are_told_apart_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless what the expression is made of has changed since."""
    seen, told = [], room.Sketches.apart
    monkeypatch.setattr(room.Sketches, "apart", lambda *known: seen.append(known[1:]) or told(*known))
    scaled = chain(6, 9, "Tanh")
    scaled.graph.initializer.append(numpy_helper.from_array(np.array([0.5, 2.0, 0.25, 4.0], np.float32), "s"))
    scale = [helper.make_node("Mul", [node.output[0], "s"], [f"{node.output[0]}_s"]) for node in scaled.graph.node[::2]]
    nodes = [node for both in zip(scaled.graph.node[::2], scale, scaled.graph.node[1::2], strict=True) for node in both]
    for node in nodes[2::3]:
        node.input[0] += "_s"
    del scaled.graph.node[:]
    scaled.graph.node.extend(nodes)
    for held in [scaled.graph.initializer[i] for i in range(6)]:
        value = numpy_helper.to_array(held) / np.array([0.5, 2.0, 0.25, 4.0], np.float32)
        held.CopyFrom(numpy_helper.from_array(value, held.name))
    assert "but for 6 constants" in compare(chain(6, 0, "Tanh"), scaled, run=False).reason
    assert len(seen) == len(set(seen))


def test_a_constant_is_named_by_its_elements_in_any_layout() -> None:
    model = chain(3, 0)
    trace = Interpreter(ir.from_proto(model), Algebra(Terms(PUSH))).run({"x": np.ones((2, 4), np.float32)})
    names = rounding._Names(trace)
    one = numpy_helper.to_array(model.graph.initializer[1])
    assert names.of(one.T.astype(np.float64)) == "c1"
    assert names.of(np.nextafter(one, np.float32(np.inf))) is None
    swapped = one.astype(np.float64)
    swapped[0, 0] += 0.5
    swapped[0, 1] -= 0.5  # the same sum
    assert names.of(swapped) is None


def test_of_several_constants_at_one_place_each_faces_the_nearest() -> None:
    """HardSwish has x W + b, and (x W + b) / 6 + 1/2: a weight does not face the sixth of the other, nor a bias that sum."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((8, 3, 3, 3)).astype(np.float32), rng.standard_normal(8).astype(np.float32)

    def net(ulps: int) -> onnx.ModelProto:
        text = "g (float[1,3,9,9] x) => (float[1,8,7,7] y) { c = Conv(x, w, b) y = HardSwish(c) }"
        model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {text}')
        for name, held in (("w", weight), ("b", bias)):
            moved = (held.view(np.int32) + ulps).view(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(moved, name))
        return model

    found = compare(net(0), net(3), run=False)
    assert found.verdict is Verdict.UNDECIDED and "the same but for 2 constants" in found.reason
    assert sorted(c["a"] for c in found.evidence["constants"]) == ["b", "w"]
    assert all(c["ulps"] == 3 for c in found.evidence["constants"])


def chain(layers: int, ulps: int, function: str = "Sigmoid") -> onnx.ModelProto:
    """Sigmoids of products with weights, each so many ulps from what it is at 0."""
    constants = []
    nodes = []
    for i in range(layers):
        value = np.arange(1 + i, 17 + i, dtype=np.float32).reshape(4, 4) * np.float32(0.3)
        for _ in range(ulps):
            value = np.nextafter(value, np.float32(np.inf))
        constants.append(numpy_helper.from_array(value, f"c{i}"))
        nodes += [helper.make_node("MatMul", [f"s{i - 1}" if i else "x", f"c{i}"], [f"m{i}"])]
        nodes += [helper.make_node(function, [f"m{i}"], [f"s{i}"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in ("x", f"s{layers - 1}")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def elements(terms: Terms, cls: int) -> list[float]:
    """The values of a class that is a constant, or one constant's movement."""
    term = terms.terms[cls]
    if cls in terms.arrays:
        return [float(v) for v in np.broadcast_to(terms.arrays[cls], term.size)]
    source = np.concatenate([[0.0], *(terms.arrays[a] for a in term.args)])
    assert isinstance(term.verb, Move)
    return [float(v) for v in source[term.verb.map.index]]


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, k: rng.standard_normal(k),
    "positive": lambda rng, k: rng.random(k),
    "a wave": lambda rng, k: np.cos(2 * np.pi * (np.arange(k) / k + rng.random())),
    "alternating": lambda rng, k: 10.0 * (-1.0) ** np.arange(k) + rng.standard_normal(k),
    "sparse": lambda rng, k: rng.standard_normal(k) * (rng.random(k) < 0.1),
    "of many sizes": lambda rng, k: rng.standard_normal(k) * 10 ** rng.uniform(-3, 3, k),
}


def added(terms: np.ndarray) -> np.float32:
    return np.float32(np.cumsum(terms, dtype=np.float32)[-1]) if terms.size else np.float32(0)


def in_pairs(terms: np.ndarray) -> np.float32:
    while terms.size > 1:
        terms = np.append(terms, np.float32(0)) if terms.size % 2 else terms
        terms = terms[::2] + terms[1::2]
    return np.float32(terms[0])


ORDERS: dict[str, Callable[[np.ndarray], np.float32]] = {
    "forth": added,
    "back": lambda t: added(t[::-1]),
    "in pairs": in_pairs,
    **{f"{n} lanes": lambda t, n=n: added(np.array([added(t[i::n]) for i in range(n)])) for n in (4, 8, 16, 64)},
    **{
        f"blocks of {n}": lambda t, n=n: added(np.array([added(t[i : i + n]) for i in range(0, t.size, n)]))
        for n in (4, 32, 256)
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 7, 100, 1500])
def test_the_room_of_a_sum_holds_every_order_of_a_runtime_and_little_more(kind: str, k: int) -> None:
    rng = np.random.default_rng([k, list(KINDS).index(kind)])
    terms = np.stack([KINDS[kind](rng, k) for _ in range(20)]).astype(np.float32)
    exact = terms.astype(np.float64)
    room = summation.room_of_sums(exact) * 2.0**-24 + 2.0**-24 * np.abs(exact.sum(axis=1))
    for name, order in ORDERS.items():
        off = np.abs([float(order(t)) for t in terms] - exact.sum(axis=1))
        assert (off <= room).all(), name
    worst = k * np.abs(exact).sum(axis=1) * 2.0**-24
    assert (room <= 1.001 * worst + 2.0**-23 * np.abs(exact.sum(axis=1))).all()
    if k == 1500 and kind == "normal":
        assert (room < worst / 20).all()


def test_the_room_of_a_product_is_that_of_its_sums_and_of_the_products_roundings() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((3, 4, 200)), rng.standard_normal((1, 200, 500))
    room = summation.room_of_products(a, b)
    one = (a[1, 2] * b[0, :, 7])[None]
    assert room.shape == (3, 4, 500)
    squares = (room[1, 2, 7] / summation.LAMBDA) ** 2 - (summation.room_of_sums(one)[0] / summation.LAMBDA) ** 2
    assert squares == pytest.approx(np.square(one).sum())


def test_the_room_of_a_very_large_product_is_no_wider_for_terms_without_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.standard_normal((1, 30, 300)), rng.standard_normal((1, 300, 40))
    followed = summation.room_of_products(a, b)
    monkeypatch.setattr(summation, "_MOST", 0)
    random = summation.room_of_products(a, b)
    assert 0.3 < np.median(random / followed) <= 1.0


def test_a_float32_that_no_float16_holds_has_no_room_of_a_float16() -> None:
    rng = np.random.default_rng(8)
    w, s = rng.standard_normal(20).astype(np.float16), rng.standard_normal(20).astype(np.float32)
    honest = w.astype(np.float32) * s
    wrong = honest.copy()
    wrong[3] *= np.float32(1 + 4e-4)  # less than an ulp of float16
    within = []
    for stored in (honest, wrong, honest.astype(np.float16), honest.astype(np.float16).astype(np.float32)):
        terms = Terms(PUSH)
        expression = terms.ew("mul", [(terms.const(w), None), (terms.const(s), None)], 20)
        both = (expression, terms.const(stored))
        within.append([apart(terms, *pair)["within"] for pair in (both, both[::-1])])
    assert within == [[True, True], [False, False], [True, True], [True, True]]


@pytest.mark.parametrize(("scale", "factor"), [(2.0**-22, 1 + 2**-5), (2.0**20, 1 + 2**-10)])
def test_a_float32_of_few_bits_beyond_the_range_of_float16_has_no_room_of_a_float16(scale: float, factor: float) -> None:
    w, s = np.array([1, 2, 3, 4], np.float16), np.full(1, scale, np.float32)
    honest = w.astype(np.float32) * s
    within = []
    for stored in (honest, honest * np.array([factor, 1, 1, 1], np.float32)):
        terms = Terms(PUSH)
        expression = terms.ew("mul", [(terms.const(w), None), (terms.const(s), None)], 4)
        within.append(apart(terms, expression, terms.const(stored))["within"])
    assert within == [True, False]


def test_an_expression_of_constants_stands_behind_in_a_product_however_old_it_is() -> None:
    """So that a weight times a scale faces the other side's, whichever was made before what they are multiplied with."""
    terms = Terms(PUSH)
    weight, scale = (terms.const(np.array(v, np.float32)) for v in ([[1, 2], [3, 5]], [[7, 11], [13, 17]]))
    old = terms.ew("mul", [(weight, None), (scale, None)], 4)
    x, y = (terms.leaf(("input", name), 6) for name in "xy")
    new = terms.ew("add", [(weight, None), (scale, None)], 4)
    for constants in (old, new):
        product = terms.contract(x, constants, (1, 1), 3, 2, 2)
        assert terms.term(product).args == (x, constants)
        (swapped,) = terms.term(terms.contract(constants, x, (1, 1), 2, 3, 2)).args
        assert swapped == product
    (swapped,) = terms.term(terms.contract(y, x, (1, 1), 3, 3, 2)).args
    assert terms.term(swapped).args == (x, y)  # of two computed ones the older is first


@pytest.mark.parametrize(
    ("attributes", "kernel"), [("strides = [2, 2], pads = [1, 1, 1, 1]", 4), ("strides = [2, 2]", 2), ("", 3)]
)
def test_a_scale_is_folded_into_a_transposed_convolution(attributes: str, kernel: int) -> None:
    drawn = np.random.default_rng(3)
    weight = drawn.standard_normal((3, 4, kernel, kernel)).astype(np.float32)
    scale, shift = (drawn.standard_normal((4, 1, 1)).astype(np.float32) for _ in "st")

    def model(body: str, **stored: np.ndarray) -> onnx.ModelProto:
        made = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 17]> g (float[N,3,5,4] x) => (float[N,4,h,v] y) {{ {body} }}'
        )
        made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
        return made

    attributes = f"<{attributes}>" if attributes else ""
    a = model(f"c = ConvTranspose {attributes} (x, w) d = Mul (c, s) y = Add (d, t)", w=weight, s=scale, t=shift)
    folded = weight * scale[None, :, :, :1]
    b = model(f"y = ConvTranspose {attributes} (x, w, t)", w=folded, t=shift.reshape(-1))
    assert compare(a, b, run=False).verdict is Verdict.WITHIN_ROUNDING
    folded[1, 2, 1, 0] *= np.float32(1 + 1e-6)
    wrong = compare(a, model(f"y = ConvTranspose {attributes} (x, w, t)", w=folded, t=shift.reshape(-1)), run=False)
    assert wrong.verdict is Verdict.UNDECIDED and "the same but for 1 constant" in wrong.reason


@pytest.mark.parametrize(("factor", "same"), [("half", True), ("other", False)])
def test_a_scalar_inside_of_a_product_is_gathered_behind_the_next_one(factor: str, same: bool) -> None:
    """x (0.5 s) W c, as BiasGelu has it, beside x s 0.5 W c, where a scale by channel stands behind the product."""
    head = """<ir_version: 8, opset_import: ["": 17]> g (float[4,3] x) => (float[4,2] y)
    <float one = {1}, float half = {0.5}, float other = {0.25}, float[3,2] w = {1, 2, 3, 4, 5, 7}, float[2] c = {3, 7}>
    { e = Erf(x) s = Add(e, one) """
    tail = "m = MatMul(q, w) y = Mul(m, c) }"
    algebra = Algebra(Terms(PULL))
    given = {"x": Tensor(algebra.terms.leaf(("input", "x"), 12), (4, 3), np.dtype(np.float32))}
    found = []
    for body in ("p = Mul(x, s) q = Mul(p, half) ", f"p = Mul({factor}, s) q = Mul(x, p) "):
        model = ir.from_onnx_text(head + body + tail)
        (value,) = Interpreter(model, algebra).run(given).outputs
        assert isinstance(value, Tensor)
        found.append(algebra.terms.find(value.cls))
    assert (found[0] == found[1]) is same
