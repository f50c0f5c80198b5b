"""What a few elements are made of: the values that they have among all, of fewer elements; and what a search sees of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_support import model, trace, values

from graphcheck.errors import Oversized
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values import windows
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.parting import cone as cone_
from graphcheck.parting import difference, witness
from graphcheck.parting.budget import work
from graphcheck.parting.cone import Cone, Part
from graphcheck.parting.slopes import Tape
from graphcheck.parting.tangents import Tangents
from graphcheck.verdicts.compare import compare

IMAGE, FILTER = {"x": (1, 3, 8, 10)}, {"w": (4, 3, 3, 3)}
NETS: dict[str, tuple[str, Mapping[str, tuple[int, ...]]]] = {
    "pooled and enlarged": (
        "c = Conv<pads=[1,1,1,1]>(x, w) r = Relu(c) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) "
        "d = Conv<pads=[1,1,1,1]>(p, v) s = Sigmoid(d) t = ConvTranspose<strides=[2,2]>(s, u) j = Concat<axis=1>(t, r) "
        "y = Conv<pads=[2,2,2,2], dilations=[2,2]>(j, q)",
        {**IMAGE, **FILTER, "v": (5, 4, 3, 3), "u": (5, 3, 2, 2), "q": (2, 7, 3, 3)},
    ),
    "channels one by one": (
        "c = Conv<pads=[2,2,2,2], group=3>(x, w) m = GlobalAveragePool(c) s = Sigmoid(m) e = Mul(c, s) "
        "y = AveragePool<kernel_shape=[3,3], strides=[2,1], pads=[1,0,1,0]>(e)",
        {**IMAGE, "w": (3, 1, 5, 5)},
    ),
    "attention": (
        "h = MatMul(x, w) r = Constant<value_ints=[1,6,2,4]>() a = Reshape(h, r) t = Transpose<perm=[0,2,1,3]>(a) "
        "k = Transpose<perm=[0,2,3,1]>(a) s = MatMul(t, k) p = Softmax<axis=-1>(s) o = MatMul(p, t) "
        "b = Transpose<perm=[0,2,1,3]>(o) f = Constant<value_ints=[1,6,8]>() y0 = Reshape(b, f) y = Add(y0, h)",
        {"x": (1, 6, 5), "w": (5, 8)},
    ),
    "patches": (
        "r = Constant<value_ints=[1,3,4,2,5,2]>() a = Reshape(x, r) t = Transpose<perm=[0,2,4,1,3,5]>(a) "
        "f = Constant<value_ints=[1,20,12]>() p = Reshape(t, f) m = MatMul(p, w) "
        "o = Constant<value_ints=[1]>() s = ReduceSum<keepdims=1>(m, o) y = Sub(m, s)",
        {**IMAGE, "w": (12, 4)},
    ),
    "moved about": (
        "a = Transpose<perm=[0,1,3,2]>(x) b0 = Constant<value_ints=[0,0,1,2,0,0,0,-1]>() z = Constant<value_float=0.0>() "
        "b = Pad(a, b0, z) i = Constant<value_ints=[7,0,3,3,9]>() c = Gather<axis=2>(b, i) "
        "v0 = Constant<value_ints=[-1]>() v1 = Constant<value_ints=[-99]>() v2 = Constant<value_ints=[3]>() "
        "v3 = Constant<value_ints=[-2]>() d = Slice(c, v0, v1, v2, v3) l = ReduceMax<keepdims=0>(d, v2) y = Exp(l)",
        IMAGE,
    ),
    "one after the other": (
        "e = Identity(x) n = Constant<value_ints=[1]>() l0 = Squeeze(e, n) y0, y = LSTM<hidden_size=4>(x, w, u)",
        {"x": (3, 1, 5), "w": (1, 16, 5), "u": (1, 16, 4)},
    ),
}  # fmt: skip


def traced(text: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Terms, int, dict[tuple[str], np.ndarray]]:
    inputs = ", ".join(f"float[{','.join(map(str, shape))}] {name}" for name, shape in shapes.items())
    feeds = {name: values(shape, i) for i, (name, shape) in enumerate(shapes.items())}
    m, (y,) = trace(model(f"g ({inputs}) => (float[?] y) {{ {text} }}"), feeds)
    return m.terms, m.terms.find(y.cls), {(name,): x for name, x in feeds.items()}


def run(terms: Terms, root: int, inputs: Mapping[tuple[str], np.ndarray]) -> np.ndarray:
    return evaluate(terms, Float64(inputs, bounds=False), [root])[terms.find(root)].value


def wrong(terms: Terms, root: int, inputs: Mapping[tuple[str], np.ndarray], length: int) -> list[int]:
    """The elements from which on a cone has other values than the whole expression."""
    whole, found = run(terms, root, inputs), []
    for start in range(whole.size - length + 1):
        cone = Cone(terms, [root], range(start, start + length))
        here = run(cone, cone.ends[root], inputs)
        if here.shape != (length,) or not np.allclose(here, whole[start : start + length], rtol=1e-12, atol=1e-12):
            found.append(start)
    return found


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_elements_alone_have_the_values_that_they_have_among_all(name: str, length: int) -> None:
    assert wrong(*traced(*NETS[name]), length) == []


@pytest.mark.parametrize("name", NETS)
def test_the_draw_is_carried_along_windows_that_are_left_to_be_read_by_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "LARGE", 0)
    monkeypatch.setattr(windows, "GROWTH", 0)
    terms, root, inputs = traced(*NETS[name])
    whole = run(terms, root, inputs)
    for start in range(0, whole.size - 2, 5):
        cone = Cone(terms, [root], range(start, start + 2))
        tape = Tape(cone, inputs, [cone.ends[root]], tangents=Tangents(cone, 0))
        assert np.allclose(tape.value(cone.ends[root]), whole[start : start + 2], rtol=1e-12, atol=1e-12)
        assert tape.moved(0, cone.ends[root]) >= 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_windows_of_any_geometry_are_cut_rightly(data: st.DataObject) -> None:
    size, kernel = data.draw(st.tuples(*[st.integers(3, 9)] * 2)), data.draw(st.tuples(*[st.integers(1, 3)] * 2))
    strides, dilations, pads = (data.draw(st.tuples(*[st.integers(low, 2)] * 2)) for low in (1, 1, 0))
    geometry = f"kernel_shape={list(kernel)}, strides={list(strides)}, dilations={list(dilations)}, pads={[*pads, *pads]}"
    dense = all(n + 2 * p > d * (k - 1) for n, p, d, k in zip(size, pads, dilations, kernel, strict=True))
    if not dense:
        return
    text = f"c = Conv<{geometry}>(x, w) r = Tanh(c) t = ConvTranspose<strides={list(strides)}>(r, v) y = Mul(t, t)"
    terms, root, inputs = traced(text, {"x": (2, 2, *size), "w": (3, 2, *kernel), "v": (3, 2, 2, 2)})
    whole = run(terms, root, inputs)
    start = data.draw(st.integers(0, whole.size - 1))
    some = range(start, min(start + data.draw(st.integers(1, 7)), whole.size))
    cone = Cone(terms, [root], some)
    assert np.allclose(run(cone, cone.ends[root], inputs), whole[some.start : some.stop], rtol=1e-12, atol=1e-12)


def test_an_element_of_a_map_is_made_of_a_patch_of_the_image() -> None:
    layers = " ".join(f"h{i + 1} = Conv<pads=[1,1,1,1]>(h{i}, w)" for i in range(4))
    terms, root, inputs = traced(f"h0 = Tanh(x) {layers} y = Relu(h4)", {"x": (1, 2, 40, 40), "w": (2, 2, 3, 3)})
    middle = 20 * 40 + 20
    cone = Cone(terms, [root], range(middle, middle + 1))
    tanh = [term.size for term in cone.terms if getattr(term.verb, "fn", "") == "tanh"]
    assert tanh == [2 * 9 * 9]  # four windows of 3 deep
    assert np.allclose(run(cone, cone.ends[root], inputs), run(terms, root, inputs)[middle])


MISTAKES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a range too short": ("_covering", lambda f: lambda *a: _less(f(*a))),
    "a step too large": ("steps", lambda f: lambda radices: [2 * step for step in f(radices)]),
    "cut where it is not made": ("_own", lambda _: lambda _term: []),
    "placed an element further": (
        "_placed", lambda f: lambda *a: [dataclasses.replace(form, start=form.start + 1) for form in f(*a)],
    ),
}  # fmt: skip


def _less(part: Part) -> Part:
    return Part(part.radices, tuple(some[:-1] if len(some) > 1 else some for some in part.ranges))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at, change = MISTAKES[name]
    monkeypatch.setattr(cone_, at, change(getattr(cone_, at)))
    net = traced(*NETS["pooled and enlarged"])
    try:
        seen = bool(wrong(*net, 3))
    except (AssertionError, ValueError, IndexError):
        seen = True
    assert seen


CONVS = """<ir_version: 8, opset_import: ["": 18]> g (float[1,2,24,24] x) => (float[1,2,24,24] y)
  <float[2,2,3,3] w = {{{weights}}}> {{ a = Conv<pads=[1,1,1,1]>(x, w) b = Tanh(a) y = Conv<pads=[1,1,1,1]>(b, w) }}"""


def convs(last: float) -> onnx.ModelProto:
    weights = [*np.round(np.random.default_rng(0).standard_normal(35), 3).tolist(), last]
    return onnx.parser.parse_model(CONVS.format(weights=", ".join(map(str, weights))))


@pytest.fixture
def cones(monkeypatch: pytest.MonkeyPatch) -> list[Cone]:
    """The cones that searches make, of small models too."""
    made: list[Cone] = []

    class Kept(Cone):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(witness, "Cone", Kept)
    monkeypatch.setattr(witness, "_QUICK", 0)
    monkeypatch.setattr(witness, "_AROUND", 2)
    return made


def test_a_search_judges_the_elements_around_the_largest_deviation(cones: list[Cone]) -> None:
    result = compare(convs(0.5), convs(1.5))
    shown = result.evidence["witness"]
    assert result.verdict == "different" and len(cones) == 1
    assert shown["max_abs"] > shown["bound"] and shown["max_abs"] == pytest.approx(shown["onnxruntime_max_abs"], rel=1e-3)


def test_where_one_draw_leaves_elements_in_doubt_all_are_judged(cones: list[Cone], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    bound, moved = Tape.bound, Tape.moved
    monkeypatch.setattr(difference, "_RIGOROUS_ELEMENTS", 0)
    monkeypatch.setattr(
        Tape, "moved", lambda self, at, *roots: math.inf if isinstance(self.terms, Cone) else moved(self, at, *roots)
    )
    monkeypatch.setattr(Tape, "bound", lambda self, *rest: asked.append(isinstance(self.terms, Cone)) or bound(self, *rest))
    result = compare(convs(0.5), convs(1.5))
    assert result.verdict == "different" and len(cones) == 1
    assert True not in asked  # derivatives back are asked of the whole alone


def test_where_a_table_would_be_large_all_are_judged(cones: list[Cone], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cone_, "_TABLE", 1)
    gathered = [m.SerializeToString() for m in (convs(0.5), convs(1.5))]
    graphs = [onnx.load_from_string(m) for m in gathered]
    for m in graphs:
        places = onnx.helper.make_node("Constant", [], ["places"], value_ints=[5, 3, 8, 2, 2, 17, 0, 11, 23, 4, 9, 1] * 2)
        m.graph.node[-1].input[0] = "some"
        m.graph.node.insert(2, onnx.helper.make_node("Gather", ["b", "places"], ["some"], axis=2))
        m.graph.node.insert(2, places)
    assert compare(*graphs).verdict == "different"
    assert not cones


def test_where_elements_alone_show_nothing_all_are_judged(cones: list[Cone]) -> None:
    assert compare(convs(0.5), convs(0.5 + 2**-20)).verdict == "different"  # no 1e-3 of the output
    assert not cones


def test_a_cone_of_too_much_work_is_given_up() -> None:
    terms, root, inputs = traced("h = Tanh(x) y = Conv<pads=[1,1,1,1]>(h, w)", {"x": (1, 2, 40, 40), "w": (2, 2, 3, 3)})
    whole = sum(work(terms.terms[cls]) for cls in terms.order([root]))
    some = range(800, 803)
    cone = Cone(terms, [root], some, most=0.9 * whole)
    assert np.allclose(run(cone, cone.ends[root], inputs), run(terms, root, inputs)[some.start : some.stop])
    with pytest.raises(Oversized):
        Cone(terms, [root], range(3200), most=0.9 * whole)
