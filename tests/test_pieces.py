"""Movement in pieces: every operation on pieces is the same operation on the array that they stand for."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ops_support import model, trace

from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.proof.rows import RowReducer
from graphcheck.kernel.terms import guards, pieces, strided
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.pieces import Pieces
from graphcheck.kernel.terms.rules import RULES, columns, flattening
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided
from graphcheck.kernel.terms.verbs import Move
from graphcheck.kernel.values import windows as values
from graphcheck.kernel.values.gather import picked
from graphcheck.parting import windows

unshrunk = settings(phases=[Phase.generate], max_examples=150)  # every example is small, and planted errors make many fail


def through(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], inner])[outer]


def table(found: Pieces) -> np.ndarray:
    """The map by its pieces one by one; no place has two."""
    each = np.stack([form.index() for form in found])
    assert ((each > 0).sum(axis=0) <= 1).all()
    return np.asarray(each.sum(axis=0), np.int64)


@st.composite
def broken(draw: st.DrawFn) -> tuple[list[Strided], np.ndarray]:
    """Forms over one box, each for its part of a digit, and the array; one may be missing, and some may run on."""
    box = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    at = draw(st.integers(0, len(box) - 1))
    ends = sorted({0, box[at], *draw(st.lists(st.integers(0, box[at]), max_size=2))})
    forms, array = [], np.zeros(box, np.int64)
    strides, start, digits = [1] * len(box), 0, np.indices(box)
    for low, high in itertools.pairwise(ends):
        if not draw(st.integers(0, 2)) or not forms:
            strides = [draw(st.integers(0, 5)) for _ in box]
            start = draw(st.integers(0, 3))
        if draw(st.integers(0, 3)) or not forms:
            row = tuple(int(j == at) for j in range(len(box)))
            form = strided.normal(box, start, strides, [(row, low, high - 1)])
            assert form is not None
            forms.append(form)
            here = (digits[at] >= low) & (digits[at] < high)
            array += here * (start + 1 + sum(s * d for s, d in zip(strides, digits, strict=True)))
    return forms, array.reshape(-1)


@unshrunk
@given(broken())
def test_joined_pieces_are_the_same_map(given_: tuple[list[Strided], np.ndarray]) -> None:
    forms, array = given_
    found = pieces.joined(forms)
    assert found is not None and np.array_equal(table(found), array)
    assert len(found) <= len(forms) and np.array_equal(pieces.index(found), array)
    assert pieces.held(found) == np.count_nonzero(array) and all(pieces.reach(form) >= form.index().max() for form in found)
    map_ = Maps().of(found)
    assert map_.has_zero == bool((array == 0).any()) and map_.empty == (not array.any())
    assert np.array_equal(map_.index, array) and np.array_equal(map_.at(np.arange(array.size)), array)
    assert map_.identity == np.array_equal(array, np.arange(1, array.size + 1))
    source = np.arange(10.0, 11 + array.max())
    assert np.array_equal(picked([source[:2], source[2:]], map_), through(source, array))


@unshrunk
@given(broken(), broken())
def test_composition_is_that_of_the_arrays(a: tuple[list[Strided], np.ndarray], b: tuple[list[Strided], np.ndarray]) -> None:
    inner, outer = pieces.joined(a[0]), pieces.joined(b[0])
    assert inner is not None and outer is not None
    if b[1].max() <= a[1].size:
        found = pieces.compose(inner, outer)
        assert found is None or np.array_equal(table(found) if found else np.zeros(b[1].size), through(a[1], b[1]))


@unshrunk
@given(broken(), st.integers(0, 12), st.integers(0, 12))
def test_what_reads_a_source_is_its_part(given_: tuple[list[Strided], np.ndarray], begin: int, size: int) -> None:
    forms, array = given_
    whole = pieces.joined(forms)
    ends = [0, begin, begin + size, begin + size + 3]
    parts = pieces.parted(whole or (), np.diff(ends))
    for (low, high), found in zip(itertools.pairwise(ends), parts, strict=True):
        wanted = np.where((array > low) & (array <= high), array - low, 0)
        assert found is not None and np.array_equal(table(found) if found else np.zeros(array.size), wanted)


@unshrunk
@given(broken(), broken())
def test_two_are_the_same_where_the_arrays_are(
    a: tuple[list[Strided], np.ndarray], b: tuple[list[Strided], np.ndarray]
) -> None:
    one, two = pieces.joined(a[0]), pieces.joined(b[0])
    assert one is not None and two is not None and pieces.same(one, one) is True
    if a[1].size == b[1].size:
        found = pieces.same(one, two)
        assert found is None or found == np.array_equal(a[1], b[1])
        maps = Maps()
        assert (maps.of(one) is maps.of(two)) == np.array_equal(a[1], b[1])
        assert maps.intern(a[1]) is maps.of(one)


@unshrunk
@given(broken(), st.data())
def test_forms_refined_are_over_one_box(a: tuple[list[Strided], np.ndarray], data: st.DataObject) -> None:
    found = pieces.refined(a[0])
    if found is not None:
        assert len({form.box for form in found}) == 1
        assert all(np.array_equal(x.index(), y.index()) for x, y in zip(a[0], found, strict=True))


shapes = st.tuples(st.integers(1, 3), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 3))


@unshrunk
@given(shapes)
def test_side_by_side_is_concatenation(sizes: tuple[int, list[int], int]) -> None:
    outer, each, inner = sizes
    parts, at = [], 1
    for n in each:
        parts.append(np.arange(at, at + outer * n * inner).reshape(outer, n, inner))
        at += outer * n * inner
    found = pieces.laid([part.shape for part in parts], 1)
    assert found is not None and np.array_equal(table(found), np.concatenate(parts, axis=1).reshape(-1))
    assert outer > 1 or found == (strided.identity(at - 1),)


@unshrunk
@given(shapes, st.integers(1, 3))
def test_a_short_array_is_recognised_in_pieces(sizes: tuple[int, list[int], int], stride: int) -> None:
    outer, each, inner = sizes
    starts = np.cumsum([1, *(n * inner for n in each)])[:-1]
    runs = [start + stride * np.arange(n) for start, n in zip(starts, each, strict=True)]
    even = np.stack([start + stride * np.arange(outer * inner) for start in starts])
    for index in (np.concatenate(runs), even.reshape(-1), even.T.reshape(-1), np.stack([even, even + 9]).reshape(-1)):
        found = pieces.recognised(index)
        assert found is not None and np.array_equal(table(found), index)


@unshrunk
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_an_array_that_is_recognised_is_those_pieces(index: list[int]) -> None:
    found = pieces.recognised(np.asarray(index))
    assert found is None or table(found).tolist() == index


@unshrunk
@given(st.data())
def test_columns_are_in_one_order_whatever_theirs_is(data: st.DataObject) -> None:
    """Columns of several sources, and of rows that are all alike: any two orders of them become one."""
    counts = data.draw(st.lists(st.sampled_from([2, 3, 4, 6]), min_size=1, max_size=3))
    ends = tuple(np.cumsum([20] * len(counts)).tolist())
    row = np.concatenate([20 * i + 1 + 3 * np.arange(n) + data.draw(st.integers(0, 1)) for i, n in enumerate(counts)])
    row = row + np.arange(row.size) % 2
    maps, seen = Maps(), []
    for _ in range(2):
        mixed = row[np.asarray(data.draw(st.permutations(range(row.size))))]
        found = columns.order(maps.intern(mixed), row.size, ends)
        ordered = mixed if found is None else mixed[found]
        assert sorted(ordered.tolist()) == sorted(row.tolist())
        again = columns.order(maps.intern(ordered), row.size, ends)
        assert again is None or np.array_equal(ordered[again], ordered)
        seen.append(ordered.tolist())
    assert seen[0] == seen[1]


@unshrunk
@given(st.integers(1, 2), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(2, 3), st.integers(1, 3), st.booleans())
def test_a_window_over_an_enlarged_image_is_in_pieces(
    batch: int, side: tuple[int, int], times: int, kernel: int, channels_last: bool
) -> None:
    """Images of which each element is repeated: a window runs over the edge of a repetition, at which the sum is cut."""
    shape = (batch, 2, side[0] * times, side[1] * times)
    box = (batch, 2, side[0], times, side[1], times)
    steps = (2 * side[0] * side[1], side[0] * side[1], side[1], 0, 1, 0)
    large = strided.normal(box, 0, steps)
    window = Window((kernel, kernel), (1, 1), (kernel // 2,) * 4, (1, 1))
    ahead = im2col_form(shape, window)
    assert large is not None and ahead is not None
    found = pieces.compose((large,), (ahead,))
    assert found is not None and np.array_equal(table(found), through(large.index(), ahead.index()))
    if channels_last:
        order = np.arange(2 * kernel**2).reshape(2, -1).T.reshape(-1)
        maps = Maps()
        turned = maps.compose(maps.of(found), maps.picked(ahead.size // order.size, order.size, order))
        assert turned is not None and turned.pieces is not None
        assert np.array_equal(turned.index.reshape(-1, order.size), table(found).reshape(-1, order.size)[:, order])


@unshrunk
@given(broken(), st.integers(1, 3))
def test_blocks_of_rows_are_all_rows(given_: tuple[list[Strided], np.ndarray], width: int) -> None:
    forms, array = given_
    found = pieces.joined(forms)
    assert found is not None
    if array.size > 1 and array.size % width == 0:
        map_, source = Maps().of(found), np.arange(1.0, 1 + array.max())
        late = windows.Late(source, map_)
        for block in (1, 4, 10**6):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(values, "BLOCK", block)
                rows = [part for _, part in late.rows(width)]
            assert np.array_equal(np.concatenate(rows).reshape(-1), array.astype(np.float64))
        slope = np.arange(1.0, 1 + array.size)
        (back,) = windows.pulled(map_, slope, [int(array.max())])
        assert np.array_equal(back, np.bincount(array, slope, 1 + array.max())[1:])


@unshrunk
@given(st.data())
def test_a_row_of_tensors_side_by_side_is_the_same_by_forms_and_by_elements(data: st.DataObject) -> None:
    outer, inner = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    shapes = [(outer, n, inner) for n in data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))]
    maps, sizes = Maps(), [math.prod(shape) for shape in shapes]
    map_ = maps.of(pieces.laid(shapes, data.draw(st.integers(0, 2) if len(set(shapes)) == 1 else st.just(1))))
    if data.draw(st.booleans()):  # every row reads the same
        map_ = maps.compose(map_, maps.box((2, map_.size), (0, 1))) or map_
    for count in (n for n in range(2, map_.size + 1) if map_.size % n == 0):
        reducer = RowReducer(Terms(RULES), count, lambda cls: True)
        width = map_.size // count
        parts = [strided.rows(form, count) for form in map_.pieces or ()]
        wanted = reducer._by_elements(map_, width, np.array(sizes))
        row = None if None in parts else reducer._first_row(parts, sizes)
        assert (row is None) == (wanted is None) and (row is None) == (reducer._shares(map_, sizes) is None)
        if row is not None and wanted is not None:
            placed = [(form, at) for at, some in zip(np.cumsum([0, *sizes]), row[1], strict=False) for form in some]
            forms = [dataclasses.replace(form, start=form.start + at) for form, at in placed]
            assert row[0] == wanted[0] and np.array_equal(table(tuple(forms)), wanted[1])


@unshrunk
@given(st.data())
def test_movement_of_movement_is_the_same_in_pieces_and_by_elements(data: st.DataObject) -> None:
    shape, maps = (2, data.draw(st.integers(1, 3)), 2), Maps()
    sizes = [math.prod(shape) * n for n in data.draw(st.lists(st.integers(1, 2), min_size=2, max_size=3))]
    sources: list[tuple[Map | None, tuple[int, ...]]] = []
    for _ in range(data.draw(st.integers(2, 3))):
        places = tuple(data.draw(st.lists(st.integers(0, len(sizes) - 1), min_size=1, max_size=2)))
        total = sum(sizes[at] for at in places)
        turned = strided.normal((2, total // 2), total // 2 - 1, (total // 2, -1))
        sources.append((maps.of(turned) if len(places) > 1 or data.draw(st.booleans()) else None, places))
    held = [sum(sizes[at] for at in places) for _, places in sources]
    outer = pieces.laid([(1, n // 2, 2) for n in held], 1)
    moved, at = [m for m, _ in sources], [places for _, places in sources]
    every_other = strided.normal((sum(held) // 2,), data.draw(st.integers(0, 1)), (2,))
    outer = pieces.compose(outer, (every_other,)) if outer and every_other else None
    assert outer is not None
    found = flattening._in_pieces(outer, moved, at, sizes)
    kept, index = flattening._by_elements(pieces.index(outer), moved, at, sizes)
    assert found is not None and found[0] == kept and np.array_equal(table(found[1]), index)


CONCATENATED = """g (float[{n},{a},{h},{h}] x, float[{n},{b},{h},{h}] y, float[3,{c},3,3] w) => (float[{n},3,{h},{h}] z)
{{ u = Relu(x) v = Tanh(y) t = Concat<axis = 1>(u, v) z = Conv<pads = [1, 1, 1, 1]>(t, w) }}"""


@pytest.mark.parametrize("n", [1, 2])
def test_a_conv_of_a_concat_needs_no_table(n: int) -> None:
    """Two tensors of many channels side by side are seen through windows."""
    shapes = {"x": (n, 16, 512, 512), "y": (n, 8, 512, 512), "w": (3, 24, 3, 3)}
    proto = model(CONCATENATED.format(n=n, a=16, b=8, c=24, h=512))
    m, _ = trace(proto, {name: np.broadcast_to(np.zeros((), np.float32), shape) for name, shape in shapes.items()})
    moves = [term.verb.map for term in m.terms.terms if isinstance(term.verb, Move)]
    large = [map_ for map_ in moves if map_.size > 10**7]
    assert large and all(map_.pieces is not None and map_._index is None for map_ in large)
    assert any(len(term.args) == 2 and term.size == n * 512**2 * 24 * 9 for term in m.terms.terms)


def test_a_transposed_conv_needs_no_table() -> None:
    shapes = {"x": (1, 16, 256, 256), "w": (16, 8, 4, 4)}
    proto = model("""g (float[1,16,256,256] x, float[16,8,4,4] w) => (float[1,8,512,512] y)
    { u = Relu(x) y = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(u, w) }""")
    m, (y,) = trace(proto, {name: np.broadcast_to(np.zeros((), np.float32), shape) for name, shape in shapes.items()})
    large = [term.verb.map for term in m.terms.terms if isinstance(term.verb, Move) and term.size > 10**6]
    assert y.shape == (1, 8, 512, 512) and large and all(map_.form is not None and map_._index is None for map_ in large)


def test_long_signals_and_wide_windows_are_counted() -> None:
    """2**40 places, of which all but the edges of a window over padding hold."""
    form = im2col_form((1, 1, 2**28), Window((2**12,), (1,), (2**11, 2**11), (1,)))
    assert form is not None
    edge = sum(2**11 - i for i in range(2**11))
    assert pieces.count(form) == (2**28 + 1) * 2**12 - 2 * edge
    assert Maps().compose(Maps().whole(2**28), Maps().of(form)) is not None


def ahead(found: Any) -> Any:
    """Pieces of which the first reads the next element."""
    if isinstance(found, tuple | list) and found and isinstance(found[0], Strided):
        return (dataclasses.replace(found[0], start=found[0].start + 1), *found[1:])
    return found


def each_ahead(found: Any) -> Any:
    return map(ahead, found)


def later(found: Any) -> Any:
    return found and dataclasses.replace(found, start=found.start + 1)


def fewer(found: Any) -> Any:
    return found[1:] if found and len(found) > 1 else found


# Operation -> where it is, what is wrong with what it gives, and the property that sees it.
PLANTED: dict[str, tuple[Any, str, Callable[[Any], Any], Callable[[], None]]] = {
    "joined": (pieces, "joined", ahead, test_joined_pieces_are_the_same_map),
    "joined, one missing": (pieces, "joined", fewer, test_joined_pieces_are_the_same_map),
    "run on": (pieces, "_run_on", later, test_joined_pieces_are_the_same_map),
    "count": (pieces, "count", lambda n: n and n + 1, test_joined_pieces_are_the_same_map),
    "index": (pieces, "index", lambda index: index[::-1], test_joined_pieces_are_the_same_map),
    "boxes": (pieces, "boxes", lambda found: list(found)[1:], test_joined_pieces_are_the_same_map),
    "reach": (pieces, "reach", lambda n: n - 1, test_joined_pieces_are_the_same_map),
    "compose": (pieces, "compose", ahead, test_composition_is_that_of_the_arrays),
    "compose of forms": (strided, "compose", ahead, test_composition_is_that_of_the_arrays),
    "cases": (strided, "cases", fewer, test_a_window_over_an_enlarged_image_is_in_pieces),
    "over": (strided, "_over", lambda f: f[:1], test_a_window_over_an_enlarged_image_is_in_pieces),
    "kept": (guards, "kept", lambda f: f and f[1:], test_joined_pieces_are_the_same_map),
    "simpler": (guards, "_simpler", lambda f: None if f is None else [], test_a_window_over_an_enlarged_image_is_in_pieces),
    "fixed": (guards, "fixed", lambda f: {j: v + 1 for j, v in f.items()}, test_joined_pieces_are_the_same_map),
    "within": (pieces, "parted", each_ahead, test_what_reads_a_source_is_its_part),
    "same": (pieces, "same", lambda found: True, test_two_are_the_same_where_the_arrays_are),
    "not the same": (pieces, "same", lambda found: False, test_two_are_the_same_where_the_arrays_are),
    "row": (strided, "rows", ahead, test_a_row_of_tensors_side_by_side_is_the_same_by_forms_and_by_elements),
    "reads": (pieces, "parted", each_ahead, test_movement_of_movement_is_the_same_in_pieces_and_by_elements),
    "refined": (pieces, "refined", ahead, test_forms_refined_are_over_one_box),
    "laid": (pieces, "laid", ahead, test_side_by_side_is_concatenation),
    "recognised": (pieces, "recognised", ahead, test_an_array_that_is_recognised_is_those_pieces),
    "runs": (pieces, "_runs", ahead, test_an_array_that_is_recognised_is_those_pieces),
    "beside": (pieces, "_beside", later, test_a_short_array_is_recognised_in_pieces),
    "in turn": (columns, "_in_turn", np.sort, test_columns_are_in_one_order_whatever_theirs_is),
    "blocks": (values, "_after", later, test_blocks_of_rows_are_all_rows),
    "added": (windows, "added", lambda done: False, test_blocks_of_rows_are_all_rows),
    "of pieces": (Maps, "of", lambda m: Maps().intern(np.roll(m.index, 1)), test_joined_pieces_are_the_same_map),
    "at": (Map, "at", lambda found: found[::-1], test_joined_pieces_are_the_same_map),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_an_error_in_an_operation_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, operation, wrong, seen = PLANTED[name]
    right = getattr(where, operation)
    kept = pieces._joined, pieces.compose
    monkeypatch.setattr(where, operation, lambda *args, **named: wrong(right(*args, **named)))
    for each in kept:
        each.cache_clear()
    try:
        with pytest.raises((AssertionError, IndexError, ValueError)):
            seen()
    finally:
        for each in kept:
            each.cache_clear()


def test_pieces_of_a_large_map_are_told_apart_without_their_elements() -> None:
    maps, size = Maps(), 10**12
    one = maps.of(pieces.laid([(2, 3, size), (2, 5, size)], 1))
    assert one is maps.of(pieces.laid([(2, 3, size), (2, 5, size)], 1))
    assert one is not maps.of(pieces.laid([(2, 4, size), (2, 4, size)], 1)) and not one.has_zero and one.size == 16 * size
    assert math.prod(one.at(np.asarray([0, 3 * size, 8 * size, 16 * size - 1])) - [1, 6 * size + 1, 3 * size + 1, 16 * size]) == 0
