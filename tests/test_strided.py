"""Movement as forms: every operation on a form is the same operation on the array that it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphcheck.kernel.geometry import Window, im2col, im2col_form
from graphcheck.kernel.terms import strided
from graphcheck.kernel.terms.maps import Maps
from graphcheck.kernel.terms.strided import Strided


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
    box = tuple(draw(st.lists(st.integers(1, 4), min_size=0, max_size=4)))
    strides = tuple(draw(st.integers(-6, 12)) for _ in box)
    start = sum(-s * (n - 1) for s, n in zip(strides, box, strict=True) if s < 0) + draw(st.integers(0, 3))
    guards = []
    for _ in range(draw(st.integers(0, 2)) if guarded and box else 0):
        low = draw(st.integers(-4, 4))
        guards.append((tuple(draw(st.integers(-2, 2)) for _ in box), low, low + draw(st.integers(0, 6))))
    return box, start, strides, guards


def of(map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]) -> Strided | None:
    return strided.normal(*map_)


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


@given(raw(guarded=False), raw(guarded=False))
def test_without_guards_equal_maps_have_equal_forms(
    a: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]],
    b: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]],
) -> None:
    assert (of(a) == of(b)) == np.array_equal(table(*a), table(*b))


@given(raw(guarded=False))
def test_an_array_is_recognised(map_: tuple[tuple[int, ...], int, tuple[int, ...], list[strided.Guard]]) -> None:
    assert strided.recognised(table(*map_)) == of(map_)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_an_array_that_is_recognised_is_that_form(index: list[int]) -> None:
    found = strided.recognised(np.asarray(index))
    assert found is None or found.index().tolist() == index


def through(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], inner])[outer]


@given(st.data())
def test_composition_is_that_of_the_arrays(data: st.DataObject) -> None:
    inner = of(data.draw(raw()))
    outer = of(data.draw(raw()))
    if inner is None or outer is None or int(outer.index().max()) > inner.size:
        return
    found = strided.compose(inner, outer)
    if found is not None:
        assert np.array_equal(found.index(), through(inner.index(), outer.index()))


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
    made = im2col(image, window)
    return im2col_form(image, window), made.shape[1:], made.reshape(-1)


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


@given(raw())
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
    wanted, found = im2col(shape, window, groups).reshape(-1), im2col_form(shape, window, groups)
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
    both = strided.compose(left, ahead)
    assert both is not None and np.array_equal(both.index(), through(left.index(), ahead.index()))


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


WRONG: dict[str, Callable[[Strided], Strided]] = {
    "start": lambda f: Strided(f.box, f.start + 1, f.strides, f.guards),
    "stride": lambda f: Strided(f.box, f.start, (f.strides[0] + 1, *f.strides[1:]), f.guards),
    "guard": lambda f: Strided(f.box, f.start, f.strides, tuple((c, low + 1, high) for c, low, high in f.guards)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_form_is_seen(name: str) -> None:
    shape, window = (1, 2, 4, 4), Window((3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    right = im2col_form(shape, window)
    assert right is not None
    assert np.array_equal(right.index(), im2col(shape, window).reshape(-1))
    assert not np.array_equal(WRONG[name](right).index(), im2col(shape, window).reshape(-1))
