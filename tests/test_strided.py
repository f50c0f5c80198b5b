"""Movement as forms: every operation on a form is the same operation on the array that it stands for."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ops_support import im2col_table

from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.terms import guards, strided
from graphcheck.kernel.terms.maps import Map, Maps
from graphcheck.kernel.terms.strided import Strided

unshrunk = settings(phases=[Phase.generate])  # every example is small, and planted errors make many fail


LARGE = st.integers(-(2**33), 2**33)


def table(box: tuple[int, ...], start: int, strides: tuple[int, ...], guards: list[strided.Guard]) -> np.ndarray:
    """The map, element by element, as the docstring of the module says it."""
    found = []
    for digits in np.ndindex(*box):
        held = all(low <= sum(c * d for c, d in zip(cs, digits, strict=True)) <= high for cs, low, high in guards)
        found.append(start + 1 + sum(s * d for s, d in zip(strides, digits, strict=True)) if held else 0)
    return np.asarray(found, np.int64)


@st.composite
def raw(draw: st.DrawFn, guarded: bool = True) -> tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]:
    """A box with strides, a start that keeps every index at 0 or more, and guards."""
    box = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 1, 2, 3, 4, 0]), min_size=0, max_size=4)))
    strides = tuple(draw(st.integers(-6, 12)) for _ in box)
    start = sum(-s * (n - 1) for s, n in zip(strides, box, strict=True) if s < 0) + draw(st.integers(0, 3))
    guards = []
    for _ in range(draw(st.integers(0, 2)) if guarded and box else 0):
        low = draw(st.integers(-4, 4))
        guards.append((tuple(draw(st.integers(-2, 2)) for _ in box), low, low + draw(st.integers(0, 6))))
    return box, start, strides, guards


def of(map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]) -> Strided | None:
    return strided.normal(*map_)


@unshrunk
@given(raw())
def test_the_normal_form_is_the_same_map(map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]) -> None:
    found, wanted = of(map_), table(*map_)
    if found is None:
        assert not wanted.any()
        return
    assert np.array_equal(found.index(), wanted)
    assert np.array_equal(found.at(np.arange(wanted.size)), wanted)
    assert bool(found.guards) == bool((wanted == 0).any())
    again = strided.normal(found.box, found.start, found.strides, found.guards)
    assert again == found


@unshrunk
@given(st.integers(0, 2**33), st.lists(st.tuples(st.integers(1, 3), LARGE, LARGE), max_size=3), LARGE)
def test_a_table_holds_what_single_places_do_however_large(start: int, digits: list[tuple[int, int, int]], low: int) -> None:
    box, strides, weights = ([d[i] for d in digits] for i in range(3))
    for unit in (1, 2**10, 2**20, 2**30):  # numbers that 32 bits hold, and others
        guards = [(tuple(w // unit for w in weights), low // unit, low // unit + 2**30)]
        form = Strided(tuple(box), start // unit, tuple(s // unit for s in strides), tuple(guards))
        every = form.index()
        assert np.array_equal(every, form.at(np.arange(form.size)))
        assert every.dtype == np.int64 or np.abs(every.astype(np.int64)).max(initial=0) < 2**31


def test_a_table_of_small_numbers_takes_32_bits() -> None:
    assert Strided((3, 4), 2, (4, 1)).index().dtype == np.int32
    assert Strided((3, 4), 2, (2**30, 1)).index().dtype == np.int64
    assert Strided((3, 4), 2, (4, 1), (((2**30, 1), 0, 7),)).index().dtype == np.int64


@unshrunk
@given(raw(guarded=False), raw(guarded=False))
def test_without_guards_equal_maps_have_equal_forms(
    a: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]],
    b: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]],
) -> None:
    assert (of(a) == of(b)) == np.array_equal(table(*a), table(*b))


@unshrunk
@given(raw(guarded=False))
def test_an_array_is_recognised(map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]) -> None:
    assert strided.recognised(table(*map_)) == of(map_)


@unshrunk
@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_an_array_that_is_recognised_is_that_form(index: list[int]) -> None:
    found = strided.recognised(np.asarray(index))
    assert found is None or found.index().tolist() == index


def through(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], inner])[outer]


@settings(unshrunk, max_examples=400)
@given(st.data())
def test_composition_is_that_of_the_arrays(data: st.DataObject) -> None:
    inner = of(data.draw(raw()))
    outer = of(data.draw(raw()))
    if inner is None or outer is None or int(outer.index().max()) > inner.size:
        return
    found = strided.compose(inner, outer)
    if found is not None:
        assert np.array_equal(sum((f.index() for f in found), np.zeros(outer.size)), through(inner.index(), outer.index()))


@st.composite
def movement(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Strided | None, tuple[int, ...], np.ndarray]:
    """One movement of a tensor: (form, new shape, array), the array by numpy."""
    index = np.arange(1, 1 + math.prod(shape)).reshape(shape)
    weights = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    kind = draw(st.sampled_from(["transpose", "slice", "broadcast", "window"]))
    if kind == "transpose":
        perm = draw(st.permutations(range(len(shape))))
        made = index.transpose(perm)
        return strided.normal(made.shape, 0, [weights[p] for p in perm]), made.shape, made.reshape(-1)
    if kind == "slice":
        axis, step = draw(st.integers(0, len(shape) - 1)), draw(st.sampled_from([1, 2, -1]))
        cut = tuple(slice(None, None, step) if i == axis else slice(None) for i in range(len(shape)))
        start = weights[axis] * (shape[axis] - 1) if step < 0 else 0
        strides = [w * (step if i == axis else 1) for i, w in enumerate(weights)]
        made = index[cut]
        return strided.normal(made.shape, start, strides), made.shape, made.reshape(-1)
    if kind == "broadcast":
        count = draw(st.integers(1, 3))
        made = np.broadcast_to(index, (count, *shape))
        return strided.normal(made.shape, 0, [0, *weights]), made.shape, made.reshape(-1)
    size, pad = draw(st.integers(1, 3)), draw(st.integers(0, 2))
    image = (1, shape[0], *shape[1:]) if len(shape) == 2 else (1, 1, math.prod(shape))
    window = Window((size,), (draw(st.integers(1, 2)),), (pad, pad), (draw(st.integers(1, 2)),))
    if min(window.out_shape(image[2:])) < 1:
        return strided.identity(index.size), (index.size,), index.reshape(-1)
    made = im2col_table(image, window)
    return im2col_form(image, window), made.shape[1:], made.reshape(-1)


@unshrunk
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_a_chain_of_movement_is_that_of_the_arrays(sizes: list[int], data: st.DataObject) -> None:
    """Through the table of maps, where what is no form is an array."""
    maps, shape = Maps(), tuple(sizes)
    whole, wanted = None, np.arange(1, 1 + math.prod(shape))
    for _ in range(data.draw(st.integers(1, 4))):
        one, shape, array = data.draw(movement(shape))
        assert one is None or np.array_equal(one.index(), array)
        wanted = through(wanted, array)
        whole = maps.compose(whole, maps.of(one, lambda array=array: array))
        assert whole is not None and np.array_equal(whole.index, wanted)
        assert maps.intern(wanted) is whole
        assert whole.has_zero == bool((wanted == 0).any()) and whole.empty == (not wanted.any())
        assert whole.identity == np.array_equal(wanted, np.arange(1, wanted.size + 1))


@st.composite
def turned(draw: st.DrawFn) -> tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]:
    """A permutation: axes in another order, some of them backwards."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    weights = [math.prod(shape[i + 1 :]) * draw(st.sampled_from([1, -1])) for i in range(len(shape))]
    start = sum(-w * (n - 1) for w, n in zip(weights, shape, strict=True) if w < 0)
    perm = draw(st.permutations(range(len(shape))))
    return tuple(shape[p] for p in perm), start, tuple(weights[p] for p in perm), []


@unshrunk
@given(st.one_of(raw(), turned()))
def test_the_inverse_undoes_a_permutation_and_nothing_else(
    map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]],
) -> None:
    found = of(map_)
    if found is None:
        return
    index, back = found.index(), strided.inverse(found)
    permutes = sorted(index.tolist()) == list(range(1, found.size + 1))
    assert (back is not None) == permutes
    if back is not None:
        assert np.array_equal(index[back.index() - 1], np.arange(1, found.size + 1))


@unshrunk
@given(raw(), st.integers(1, 6))
def test_rows_are_the_first_and_what_the_others_start_at(
    map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]], count: int
) -> None:
    found = of(map_)
    if found is None or found.size % count:
        return
    parts = strided.rows(found, count)
    if parts is not None:
        first, starts = parts
        rows, ahead = first.index(), starts.index() - 1
        assert np.array_equal(found.index().reshape(count, -1), np.where(rows > 0, rows + ahead[:, None], 0))


spatial_axes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))


@unshrunk
@given(
    st.lists(spatial_axes, min_size=1, max_size=2),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 2),
)
def test_windows_are_forms(axes: list[tuple[int, ...]], batch: int, groups: int, each: int) -> None:
    spatial, kernel, strides, pads, dilations = zip(*axes, strict=True)
    window = Window(kernel, strides, (*pads, *pads), dilations)
    if min(window.out_shape(spatial)) < 1:
        return
    shape = (batch, groups * each, *spatial)
    wanted, found = im2col_table(shape, window, groups).reshape(-1), im2col_form(shape, window, groups)
    assert not wanted.any() if found is None else np.array_equal(found.index(), wanted)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 2, 0)])
def test_a_network_of_convolutions_needs_no_array(batch: int, pads: tuple[int, ...]) -> None:
    """The next window seen through the layout that a Conv leaves: composed, not looked up."""
    window = Window((3, 3), (2, 1), pads, (1, 1))
    shape = (batch, 4, 6, 7)
    images, filters, plane = batch, 4, 42
    left = strided.normal((images, filters, plane), 0, (plane * filters, 1, filters))  # [N, L, M] seen as [N, M, L]
    ahead = im2col_form(shape, window)
    assert left is not None and ahead is not None
    (both,) = strided.compose(left, ahead) or ()
    assert np.array_equal(both.index(), through(left.index(), ahead.index()))


def test_a_padded_image_and_a_padded_window_are_one_map() -> None:
    maps, shape = Maps(), (2, 3, 5, 5)
    padded = np.pad(np.arange(1, 151).reshape(shape), ((0, 0), (0, 0), (1, 1), (1, 1)))
    bare = Window((3, 3), (1, 1), (0, 0, 0, 0), (1, 1))
    one = maps.compose(maps.intern(padded), maps.of(im2col_form(padded.shape, bare)))
    assert one is maps.of(im2col_form(shape, Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))))


def test_nothing_large_is_made() -> None:
    """A window over a large image is composed and inverted without its 10**11 elements."""
    maps = Maps()
    form = im2col_form((64, 256, 896, 896), Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1)))
    map_ = maps.of(form)
    turned = maps.compose(maps.transpose((64, 896 * 896, 256), (0, 2, 1)), map_)
    assert turned is not None and turned.size == map_.size == 64 * 256 * 896 * 896 * 9
    assert not turned.identity and not turned.empty and maps.inverse(turned) is None


@unshrunk
@given(st.lists(st.integers(0, 4), min_size=1, max_size=3), st.data())
def test_the_maps_of_the_table_are_those_of_numpy(sizes: list[int], data: st.DataObject) -> None:
    maps, shape, size = Maps(), tuple(sizes), math.prod(sizes)
    index = np.arange(1, 1 + size).reshape(shape)
    perm = data.draw(st.permutations(range(len(shape))))
    assert np.array_equal(maps.transpose(shape, perm).index, index.transpose(perm).reshape(-1))
    to = (data.draw(st.integers(0, 3)), *(data.draw(st.integers(0, 3)) if n == 1 else n for n in shape))
    spread = maps.broadcast(shape, to)
    assert spread is None if to == (1, *shape) else np.array_equal(spread.index, np.broadcast_to(index, to).reshape(-1))
    assert np.array_equal(maps.whole(size).index, index.reshape(-1)) and maps.whole(size).identity
    assert np.array_equal(maps.spread(size).index, np.ones(size))
    begin, count = data.draw(st.integers(0, size)), data.draw(st.integers(0, size))
    flat = index.reshape(-1)
    part = np.where((flat > begin) & (flat <= begin + count), flat - begin, 0)
    assert np.array_equal(maps.part(size, begin, count).index, part)
    table = flat.reshape(-1, sizes[-1]) if sizes[-1] else np.zeros((0, 1), np.int64)
    rows, width = table.shape
    some = np.asarray(data.draw(st.lists(st.integers(0, max(width - 1, 0)), max_size=4)), np.int64)
    some = some if width else some[:0]
    assert np.array_equal(maps.picked(rows, width, some).index, table[:, some].reshape(-1))
    chosen = np.asarray(data.draw(st.lists(st.integers(0, max(rows - 1, 0)), max_size=4)), np.int64)
    chosen = chosen if rows else chosen[:0]
    assert np.array_equal(maps.picked_rows(chosen, width).index, table[chosen].reshape(-1))


@unshrunk
@given(raw(), st.integers(1, 6))
def test_a_cut_form_is_the_same_map(
    map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]], count: int
) -> None:
    found = of(map_)
    whole = strided.cut(found, count) if found is not None and found.size % count == 0 else None
    if found is not None and whole is not None:
        assert np.array_equal(whole.index(), found.index())
        assert found.size // count in [math.prod(whole.box[at:]) for at in range(len(whole.box) + 1)]


@unshrunk
@given(raw(), st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_digits_are_those_of_the_elements(
    map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]], radices: list[int]
) -> None:
    form = of(map_)
    if form is None or form.index().max() > math.prod(radices):
        return
    found = strided.digits(form.box, form.start, form.strides, form.guards, radices)
    if found is not None:
        box, guards, places = found
        held = form.index() > 0
        assert np.array_equal(table(tuple(box), 0, (0,) * len(box), guards) > 0, held)
        wanted = np.unravel_index(form.index()[held] - 1, radices)
        for (offset, row), digit in zip(places, wanted, strict=True):
            assert np.array_equal(table(tuple(box), offset, tuple(row), [])[held] - 1, digit)


def ahead(form: Any) -> Any:
    """The form that reads the next element, in whatever holds it."""
    if isinstance(form, tuple | list):
        return tuple(map(ahead, form))
    return dataclasses.replace(form, start=form.start + 1) if isinstance(form, Strided) else form


def wider(form: Any) -> Any:
    """The form without its first guard, in whatever holds it."""
    if isinstance(form, list):
        return list(map(wider, form))
    return dataclasses.replace(form, guards=form.guards[1:]) if isinstance(form, Strided) else form


def backwards(form: Any) -> Any:
    """The form with its last stride the other way round."""
    turned = isinstance(form, Strided) and form.strides
    return dataclasses.replace(form, strides=(*form.strides[:-1], -form.strides[-1])) if turned else form


def shifted(map_: Any) -> Any:
    return Maps().intern(np.roll(map_.index, 1)) if isinstance(map_, Map) else map_


HERE = sys.modules[__name__]
# Operation -> where it is, what is wrong with what it gives, and the property that sees it.
PLANTED: dict[str, tuple[Any, str, Callable[[Any], Any], Callable[[], None]]] = {
    "normal, start": (strided, "normal", ahead, test_the_normal_form_is_the_same_map),
    "normal, guards": (strided, "normal", wider, test_the_normal_form_is_the_same_map),
    "normal, strides": (strided, "normal", backwards, test_the_normal_form_is_the_same_map),
    "tight, never": (guards, "tight", lambda g: g and (g[0], g[1], g[2] - 1), test_the_normal_form_is_the_same_map),
    "range": (guards, "extent", lambda r: (r[0], r[1] + 1), test_the_normal_form_is_the_same_map),
    "index": (Strided, "index", lambda index: index + 1, test_the_normal_form_is_the_same_map),
    "at": (Strided, "at", lambda index: index[::-1], test_the_normal_form_is_the_same_map),
    "compose, start": (strided, "compose", ahead, test_composition_is_that_of_the_arrays),
    "compose, guards": (strided, "compose", wider, test_composition_is_that_of_the_arrays),
    "weighted": (strided, "_weighted", lambda row: [-c for c in row], test_composition_is_that_of_the_arrays),
    "held": (guards, "bounds", lambda _: (0, 0), test_digits_are_those_of_the_elements),
    "digit": (strided, "_digit", lambda d: d and (d[0], [0] * len(d[1])), test_digits_are_those_of_the_elements),
    "digits": (
        strided, "digits", lambda d: d and (d[0], d[1], [(o + 1, r) for o, r in d[2]]), test_digits_are_those_of_the_elements,
    ),
    "split": (
        strided, "_split", lambda s: (s[0][::-1], *s[1:]), test_a_cut_form_is_the_same_map,
    ),
    "cut": (strided, "cut", ahead, test_a_cut_form_is_the_same_map),
    "rows": (strided, "rows", ahead, test_rows_are_the_first_and_what_the_others_start_at),
    "inverse": (strided, "inverse", backwards, test_the_inverse_undoes_a_permutation_and_nothing_else),
    "inverse of all": (
        strided, "inverse", lambda f: f or strided.identity(1), test_the_inverse_undoes_a_permutation_and_nothing_else,
    ),
    "recognised": (strided, "recognised", ahead, test_an_array_that_is_recognised_is_that_form),
    "run": (strided, "_run", lambda n: 2 * n, test_an_array_is_recognised),
    "identity": (strided, "identity", ahead, test_the_maps_of_the_table_are_those_of_numpy),
    "im2col, start": (HERE, "im2col_form", ahead, test_windows_are_forms),
    "im2col, guards": (HERE, "im2col_form", wider, test_windows_are_forms),
    "a window's place": (HERE, "im2col_form", backwards, test_windows_are_forms),
    **{
        f"the map {name}": (Maps, name, shifted, test_the_maps_of_the_table_are_those_of_numpy)
        for name in ("box", "whole", "part", "picked", "picked_rows", "broadcast", "transpose")
    },
    "the map spread": (Maps, "spread", lambda m: Maps().whole(m.size), test_the_maps_of_the_table_are_those_of_numpy),
    "the map composed": (Maps, "compose", shifted, test_a_chain_of_movement_is_that_of_the_arrays),
    "the map of a form": (Maps, "of", shifted, test_the_maps_of_the_table_are_those_of_numpy),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_an_error_in_an_operation_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, operation, wrong, seen = PLANTED[name]
    right = getattr(where, operation)
    monkeypatch.setattr(where, operation, lambda *args, **named: wrong(right(*args, **named)))
    with pytest.raises((AssertionError, IndexError, StopIteration, ValueError)):
        seen()
