"""Values moved through strided views, against a gather by the map's elements; and no tables where none are needed."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ops_support import assert_agrees, model, trace, values

from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import build
from graphcheck.kernel.proof.rows import RowReducer
from graphcheck.kernel.terms import maps as maps_
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.rules import RULES, selections
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move, Rows
from graphcheck.kernel.values import gather

steps = st.tuples(st.integers(1, 5), st.integers(-6, 6))  # a digit: how many values, and its stride
weights = st.lists(st.integers(-2, 2), min_size=4, max_size=4)
guards = st.lists(st.tuples(weights, st.integers(-6, 6), st.integers(0, 6)), max_size=3)


@example([(3, 1), (4, 5)], [], 2, 1)
@given(st.lists(steps, min_size=1, max_size=4), guards, st.integers(1, 3), st.sampled_from([1, 2, 32]))
def test_views_give_what_a_gather_by_elements_gives(
    digits: list[tuple[int, int]], bounds: Any, rows: int, strip: int
) -> None:
    start = -sum(min(0, stride * (count - 1)) for count, stride in digits)
    span = start + 1 + sum(max(0, stride * (count - 1)) for count, stride in digits)
    limited = [(tuple(c[: len(digits)]), low, low + more) for c, low, more in bounds]
    form = strided.normal([n for n, _ in digits], start, [s for _, s in digits], limited)
    if form is None:
        return
    table = np.arange(1.0, 1 + rows * span).reshape(rows, span)
    wanted = np.concatenate([np.zeros((rows, 1)), table], axis=1)[:, form.index()]
    with mock.patch.object(gather, "_STRIP", strip):
        found = gather._viewed(table, (form,))
    assert found is not None and np.array_equal(found, wanted)


@given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 3))
def test_padded_windows_are_views(image: Any, kernel: int, stride: int, dilation: int, pad: int) -> None:
    attributes = {"pads": [pad, 0, 0, pad], "strides": [stride, 1], "dilations": [dilation, 1]}
    window = Window.resolve(attributes, image[1:], (kernel, kernel))
    if min(window.out_shape(image[1:])) < 1:
        return
    form = im2col_form((2, *image), window, 1)
    if form is None:  # nothing but padding
        return
    table = np.arange(1.0, 1 + 2 * math.prod(image))
    wanted = np.concatenate([[0.0], table])[form.index()]
    assert np.array_equal(gather.picked([table], Maps().of(form)), wanted)


def test_views_of_windows_make_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    form = im2col_form((1, 2, 6, 6), Window.resolve({"pads": [1] * 4}, (6, 6), (3, 3)), 1)
    map_ = Maps().of(form)
    monkeypatch.setattr(Map, "index", property(no_table))
    assert gather.picked([np.ones(72), np.ones(0)], map_).sum() == 2 * 16**2


def test_rows_that_are_not_alike_are_told_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Terms(RULES)
    image, window = (1, 1, 64, 64), Window.resolve({"pads": [1] * 4}, (64, 64), (3, 3))
    map_ = terms.maps.of(im2col_form(image, window, 1))
    reducer = RowReducer(terms, 64, lambda cls: True)
    monkeypatch.setattr(Map, "index", property(no_table))
    assert reducer._split(map_, 64 * 64) == ("neither", None)
    blocks = terms.maps.box((64, 8, 8), (64, 1, 8))  # each row of 64 transposed
    assert reducer._split(blocks, 64 * 64) == ("block", terms.maps.box((8, 8), (1, 8)))
    assert reducer._split(terms.maps.box((64, 8, 8), (0, 1, 8)), 64) == ("same", terms.maps.box((8, 8), (1, 8)))


@given(st.lists(st.integers(0, 12), min_size=6, max_size=6), st.integers(0, 4))
def test_rows_of_a_table_are_split_as_their_elements_say(first: list[int], step: int) -> None:
    terms, count, width = Terms(RULES), 3, 4
    rows = np.asarray([[v and v + step * r for v in first] for r in range(count)])
    kind, one = RowReducer(terms, count, lambda cls: True)._split(terms.maps.intern(rows), count * width)
    alike = bool((rows == rows[0]).all())
    block = step == width and max(first) <= width
    assert kind == ("same" if alike else "block" if block else "neither")
    assert one is None if kind == "neither" else np.array_equal(one.index, first)  # type: ignore[union-attr]


def test_a_map_over_sources_in_order_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Terms(RULES)
    sources = [terms.leaf(("input", str(i)), 32) for i in range(2)]
    map_ = terms.maps.of(im2col_form((1, 4, 4, 4), Window.resolve({"pads": [1] * 4}, (4, 4), (3, 3)), 1))
    both = terms.move(sources, terms.maps.whole(64))
    with monkeypatch.context() as patched:
        patched.setattr(Map, "index", property(no_table))
        assert terms.move((both,), map_) == terms.move(sources, map_)
    swapped = terms.terms[terms.move(sources[::-1], map_)]
    assert swapped.args == tuple(sources) and swapped.verb != terms.terms[terms.move(sources, map_)].verb


def test_a_nearest_resize_makes_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "g (float[1,2,3,4] x) => (float[1,2,6,12] y) <float[4] s = {1,1,2,3}> { y = Resize<mode=\"nearest\">(x, , s) }"
    with monkeypatch.context() as patched:
        patched.setattr(Maps, "intern", lambda self, index: no_table(self.whole(index.size)))
        m, (y,) = trace(model(text), {"x": np.zeros((1, 2, 3, 4), np.float32)})
    table = np.arange(1, 25).reshape(1, 2, 3, 4).repeat(2, axis=2).repeat(3, axis=3)
    verb = m.terms.terms[y.cls].verb
    assert isinstance(verb, Move) and y.shape == table.shape and np.array_equal(verb.map.index, table.reshape(-1))


def test_maxima_of_maxima_are_told_once_for_both_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>"
    text = f"g (float[2,3,7,6] x) => (float[2,3,7,6] y, float[2,3,7,6] z) {{ a = {pool}(x) y = {pool}(a) b = Neg(x) c = Neg(b)"
    made, nested = list[int](), selections._nested
    monkeypatch.setattr(selections, "_nested", lambda *tables: made.append(1) or nested(*tables))
    _, (y, z) = trace(model(text + f" d = {pool}(c) z = {pool}(d) }}"), {"x": np.zeros((2, 3, 7, 6), np.float32)})
    assert y.cls == z.cls and made == [1]
    _, (y, z) = trace(model(text + f" d = {pool}(b) z = {pool}(d) }}"), {"x": np.zeros((2, 3, 7, 6), np.float32)})
    assert y.cls != z.cls and made == [1, 1], "of another tensor by the same maps"


def test_pools_in_a_row_behind_a_transposition_make_no_table_of_all_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, x = "MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>", values((1, 7, 6, 5))
    nodes = f"t = Transpose<perm=[0,3,1,2]>(x) a = {pool}(t) b = {pool}(a) y = {pool}(b)"
    made = model(f"g (float[1,7,6,5] x) => (float[1,5,7,6] y) {{ {nodes} }}")
    with monkeypatch.context() as patched:
        patched.setattr(maps_, "_repeated", lambda *_: pytest.fail("a table of all channels was made"))
        m, (y,) = trace(made, {"x": x})
    verb = m.terms.terms[m.terms.find(y.cls)].verb
    assert isinstance(verb, Rows) and verb.rows == 5 * 7 * 6, "one maximum"
    assert_agrees(made, {"x": x})


@given(st.integers(1, 3), st.integers(1, 3), st.data())
def test_the_elements_of_rows_of_rows_are_told_from_blocks_as_from_tables(k: int, width: int, data: st.DataObject) -> None:
    maps, rows = Maps(), 4
    blocks, others = data.draw(st.sampled_from([(2, 2), (3, 3), (2, 3), (1, 2)]))
    low = data.draw(st.lists(st.integers(1, 9), min_size=rows * width, max_size=rows * width))
    below = maps.repeated(np.asarray(low), data.draw(st.integers(1, 9)), others)
    step = data.draw(st.sampled_from([rows, rows, 2]))
    most = rows * others - step * (blocks - 1)
    high = data.draw(st.lists(st.integers(1, most), min_size=2 * k, max_size=2 * k))
    above = maps.repeated(np.asarray(high), step, blocks)
    found = selections._nested(above, k, below, width)
    assert found is not None
    table = maps.repeated(*found).index.reshape(2 * blocks, -1)
    wanted = below.index.reshape(-1, width)[above.index.reshape(-1, k) - 1].reshape(2 * blocks, -1)
    assert [set(row) for row in table.tolist()] == [set(row) for row in wanted.tolist()]


def test_rows_that_reach_over_two_blocks_are_told_from_tables() -> None:
    maps = Maps()
    below, above = maps.repeated(np.asarray([5, 2, 9]), 10, 2), maps.repeated(np.asarray([1, 3, 2]), 3, 2)
    found = selections._nested(maps.whole(3), 3, below, 2)
    assert found is not None and maps.repeated(*found).index.tolist() == [2, 5, 9, 12, 15, 19]
    found = selections._nested(above, 2, maps.repeated(np.asarray([5, 2, 9]), 10, 2), 1)
    assert found is not None and maps.repeated(*found).index.reshape(3, 2).tolist() == [[5, 9], [2, 15], [12, 19]]


@pytest.mark.parametrize("size", [3, 5])
def test_stores_of_one_comparison_share_their_maps(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ends, made, nested = "g (float[2,3,7,6] x) => (float[2,3,7,6] y)", list[int](), selections._nested
    monkeypatch.setattr(selections, "_nested", lambda *tables: made.append(1) or nested(*tables))
    pools = [f"MaxPool<kernel_shape=[{k},{k}], pads=[{k // 2},{k // 2},{k // 2},{k // 2}]>" for k in (3, size)]
    a = ir.from_proto(model(f"{ends} {{ a = {pools[0]}(x) y = {pools[0]}(a) }}"))
    b = ir.from_proto(model(f"{ends} {{ a = {pools[0]}(x) y = {pools[1]}(a) }}"))
    maps = Maps()
    for count in (1, 2):
        pair = build(a, b, {"x": ("x", (2, 3, 7, 6))}, {}, maps=maps)
        y, z = (trace.outputs[0] for trace in (pair.a, pair.b))
        assert isinstance(y, Tensor) and isinstance(z, Tensor)
        assert (y.cls == z.cls) == (size == 3)
        assert count == 1 or len(made) == (1 if size == 3 else 2), "the second store found them"


def no_table(map_: Map) -> np.ndarray:
    raise AssertionError(f"a table of {map_.size} elements was made")
