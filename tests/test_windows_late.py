"""Large windows that are made a few rows at a time: the values, bounds and derivatives of those that are made whole."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphcheck.kernel.geometry import Window, im2col_form
from graphcheck.kernel.terms.maps import Maps
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Contract, Leaf
from graphcheck.kernel.values import float64, gather
from graphcheck.kernel.values import windows as values
from graphcheck.kernel.values.bounds import U, quantum
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.residues import Residues
from graphcheck.parting import slopes as slopes_
from graphcheck.parting import tangents as tangents_
from graphcheck.parting import windows
from graphcheck.parting.redrawn import Redrawn
from graphcheck.parting.slopes import Tape
from graphcheck.parting.tangents import Tangents

IMAGE, KERNEL = (2, 3, 9, 8), (3, 2)
pads = st.sampled_from([[0] * 4, [1] * 4, [2, 0, 1, 3]])


def walked(
    pad: list[int], stride: int, dilation: int, fixed: bool, groups: int
) -> tuple[np.ndarray, float, dict[Any, np.ndarray]]:
    """The values of Exp of a tenth of a Conv, the bound of an element and its derivatives."""
    terms, rng = Terms(RULES), np.random.default_rng(0)
    window = Window.resolve({"pads": pad, "strides": [stride] * 2, "dilations": [dilation] * 2}, IMAGE[2:], KERNEL)
    k, rows, size = 18 // groups, IMAGE[0] * math.prod(window.out_shape(IMAGE[2:])), 90
    given = {("input", "x"): rng.standard_normal(math.prod(IMAGE)), ("input", "w"): rng.standard_normal(size)}
    x = terms.leaf(("input", "x"), math.prod(IMAGE))
    weight = terms.const(given["input", "w"]) if fixed else terms.leaf(("input", "w"), size)
    columns = terms.move((x,), terms.maps.of(im2col_form(IMAGE, window, groups)))
    y = terms.contract(columns, weight, (groups, groups), rows, 5, k, fixed)
    size = groups * rows * 5
    root = terms.ew("exp", [(terms.ew("mul", [(y, None), (terms.const(np.full(1, 0.1)), None)], size), None)], size)
    tape = Tape(terms, given, [root])
    found = tape.back(root, 7)
    leaves = {verb.key: slope for cls, slope, _ in found if isinstance(verb := terms.terms[cls].verb, Leaf)}
    return tape.value(root), tape.bound(root, 7), leaves


@settings(max_examples=20)
@given(pads, st.integers(1, 2), st.integers(1, 2), st.booleans(), st.sampled_from([1, 3]), st.sampled_from([200, 2000]))
def test_windows_made_by_rows_tell_the_same(
    pad: list[int], stride: int, dilation: int, fixed: bool, groups: int, block: int
) -> None:
    whole = walked(pad, stride, dilation, fixed, groups)
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("LARGE", 0), ("GROWTH", 0), ("BLOCK", block)):
            patched.setattr(values, name, value)
        by_rows = walked(pad, stride, dilation, fixed, groups)
    assert np.abs(by_rows[0] / whole[0] - 1).max() < 1e-13 and abs(by_rows[1] / whole[1] - 1) < 1e-9
    assert by_rows[2].keys() == whole[2].keys() and len(whole[2]) == 2 - fixed
    for key, slope in whole[2].items():
        assert np.abs(by_rows[2][key] - slope).max() <= 1e-12 * np.abs(slope).max()


def product(terms: Terms, kind: str) -> tuple[int, int]:
    """A Conv as windows times a matrix, and the windows: padded ones, ones by a table, or of two tensors side by side."""
    sizes = (math.prod(IMAGE) // 2,) * 2 if kind == "two" else (math.prod(IMAGE),)
    x = [terms.leaf(("input", f"x{i}"), size) for i, size in enumerate(sizes)]
    window = Window.resolve({"pads": [2, 0, 1, 3], "dilations": [2, 1]}, IMAGE[2:], KERNEL)
    groups = IMAGE[1] if kind == "depthwise" else 1
    form = im2col_form(IMAGE, window, groups)
    assert form is not None
    index = form.index()
    if kind not in ("form", "depthwise"):
        index[5::7] = 1 + np.arange(index[5::7].size) ** 2 % math.prod(IMAGE)
    columns = terms.move(x, terms.maps.of(form) if kind in ("form", "depthwise") else terms.maps.intern(index))
    weight = terms.leaf(("input", "w"), 18 * 5)
    return terms.contract(columns, weight, (groups, groups), index.size // 18, 5, 18 // groups, True), columns


@pytest.mark.parametrize("kind", ["form", "table", "two", "depthwise"])
def test_products_of_windows_are_the_same_in_blocks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terms, rng = Terms(RULES), np.random.default_rng(0)
    root, columns = product(terms, kind)
    inputs = {("input", name): rng.standard_normal(math.prod(IMAGE)) for name in ("x0", "x1", "w")}
    domains = [Residues([1009, 2003], 3), Float64(inputs), Redrawn(inputs, 2, 3)]
    inputs.update({("input", f"x{i}"): inputs["input", f"x{i}"][: math.prod(IMAGE) // (1 + (kind == "two"))] for i in (0, 1)})
    inputs["input", "w"] = inputs["input", "w"][:90]
    whole = [evaluate(terms, domain, [root])[root] for domain in domains]
    for name, value in (("LARGE", 0), ("GROWTH", 0), ("BLOCK", 200)):
        monkeypatch.setattr(values, name, value)
    moved, move = list[int](), Float64.move
    monkeypatch.setattr(Float64, "move", lambda self, xs, m: moved.append(m.size) or move(self, xs, m))
    domains[2] = Redrawn(inputs, 2, 3)
    seen = list[int]()
    residues, real, rows = (evaluate(terms, domain, [root], visit=lambda cls, _: seen.append(cls))[root] for domain in domains)
    assert np.array_equal(residues, whole[0])
    assert np.abs(real.value - whole[1].value).max() < 1e-12 and np.allclose(real.error, whole[1].error, rtol=1e-6)
    assert len(rows) == len(whole[2]) == 5 and np.abs(rows[0] - whole[2][0]).max() < 1e-12
    drawn = [[np.abs(row - each[0]).mean() for row in each[1:]] for each in (rows, whole[2])]
    assert all(0.2 < one / other < 5 for one, other in zip(*drawn, strict=True))
    assert columns not in seen and root in seen
    assert max(size for size in moved if size != terms.size(root)) < terms.size(columns) / 2
    kept = evaluate(terms, domains[0], [root, columns], visit=lambda cls, _: seen.append(cls))
    assert columns in seen and kept[columns].shape[-1] == terms.size(columns), "windows that are asked for are made"


def test_padding_does_not_hide_that_sums_round(monkeypatch: pytest.MonkeyPatch) -> None:
    padded = np.concatenate([np.zeros(10**5), np.random.default_rng(0).standard_normal(10**5)])
    weights = np.asfortranarray(np.random.default_rng(1).standard_normal((300, 400)))
    sizes = list[int]()
    monkeypatch.setattr(float64, "quantum", lambda x: sizes.append(x.size) or quantum(x))
    assert not float64.exact_sum(400, (padded, weights), U) and max(sizes) < 100
    padded[10**5 :] = np.rint(padded[10**5 :])
    assert float64.exact_sum(400, (padded, np.rint(weights)), U) and max(sizes) == 2 * 10**5
    weights = np.rint(weights)
    weights[7, 9] = np.pi * 1e10  # a single element
    assert not float64.exact_sum(400, (padded, weights), U)


@pytest.mark.parametrize("kind", ["form", "table", "depthwise"])
@pytest.mark.parametrize("squared", [False, True])
def test_tangents_follow_windows(kind: str, squared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw of the roundings of 1 / x, carried through a Conv that reads windows of it by rows (or squares them first)."""
    terms, rng = Terms(RULES), np.random.default_rng(0)
    root, columns = product(terms, kind)
    x = terms.find(terms.terms[columns].args[0])
    inverse = terms.ew("recip", [(x, None)], terms.size(x))
    columns = terms.move((inverse,), terms.terms[columns].verb.map)
    columns = terms.ew("mul", [(columns, None), (columns, None)], terms.size(columns)) if squared else columns
    verb = terms.terms[root].verb
    assert isinstance(verb, Contract)
    root = terms.contract(columns, terms.terms[root].args[1], verb.batches, verb.m, verb.n, verb.k, True)
    inputs = {("input", "x0"): rng.uniform(1, 2, terms.size(x)), ("input", "w"): rng.uniform(1, 2, 90)}

    def carried() -> np.ndarray:
        tangents = Tangents(terms, 7)
        Tape(terms, inputs, [root], tangents=tangents)
        return np.asarray(tangents.known[root])

    whole = carried()
    for name, value in (("LARGE", 0), ("GROWTH", 0), ("BLOCK", 200)):
        monkeypatch.setattr(values, name, value)
    assert np.abs(carried() - whole).max() < 1e-4 * np.abs(whole).max() > 0


@pytest.mark.parametrize("kind", ["form", "table", "two"])
@pytest.mark.parametrize("fn", ["max", "min"])
def test_an_extreme_of_windows_is_the_same_in_blocks(fn: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of windows of 1 / x, where two elements of some rows are equal but for rounding."""
    terms, rng = Terms(RULES), np.random.default_rng(0)
    _, columns = product(terms, kind)
    args, map_, size = terms.terms[columns].args, terms.terms[columns].verb.map, terms.size(columns)
    sign = terms.const(np.full(1, 1.0 if fn == "max" else -1.0))  # padding is no extreme
    inverse = [terms.ew("recip", [(x, None)], terms.size(x)) for x in args]
    columns = terms.move([terms.ew("mul", [(x, None), (sign, None)], terms.size(x)) for x in inverse], map_)
    root = terms.ew("exp", [(terms.rows(fn, columns, size // 18, 18), None)], size // 18)
    inputs = {("input", f"x{i}"): 1 + rng.integers(1, 3, terms.size(x)) / 64 for i, x in enumerate(args)}

    def told() -> tuple[np.ndarray, list[np.ndarray]]:
        residues = evaluate(terms, Residues([1009, 2003], 3), [root])[root]
        real, tangents = evaluate(terms, Float64(inputs), [root])[root], Tangents(terms, 7)
        tape = Tape(terms, inputs, [root], tangents=tangents)
        slopes = [slope for cls, slope, _ in tape.back(root, 11) if isinstance(terms.terms[cls].verb, Leaf)]
        numbers = [real.value, real.error, tape.value(root), np.asarray(tangents.known[root]), *slopes]
        return residues, [*numbers, np.array([tape.bound(root, 11), tape.kinks])]

    whole = told()
    for name, value in (("LARGE", 0), ("GROWTH", 0), ("BLOCK", 200)):
        monkeypatch.setattr(values, name, value)
    made, picked = list[int](), gather.picked
    for module in (float64, windows, slopes_, tangents_):
        monkeypatch.setattr(module, "picked", lambda parts, map_: made.append(map_.size) or picked(parts, map_))
    residues, numbers = told()
    assert kind == "two" or max(made) < size / 2
    assert np.array_equal(residues, whole[0]) and len(numbers) == len(whole[1]) > 5
    assert all(np.allclose(x, y, rtol=1e-6, atol=0) for x, y in zip(numbers, whole[1], strict=True))
    assert (numbers[-1] > 0).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_no_windows_are_made_whole(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(windows, "picked", lambda parts, map_: made.append(map_.size) or picked(parts, map_))
    picked = __import__("graphcheck.kernel.values.gather", fromlist=["picked"]).picked
    for name, value in (("LARGE", 0), ("BLOCK", 200)):
        monkeypatch.setattr(values, name, value)
    walked([1] * 4, 1, 1, True, groups)
    assert made and max(made) <= 200 * 2


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(-4, 4), st.integers(-2, 2)), min_size=1, max_size=4),
    st.none() | st.tuples(st.integers(-4, 2), st.integers(0, 6)),
)
def test_what_was_read_is_added_where_it_was_read(
    digits: list[tuple[int, int, int]], guard: tuple[int, int] | None
) -> None:
    start = -sum(min(0, stride * (count - 1)) for count, stride, _ in digits)
    span = start + 1 + sum(max(0, stride * (count - 1)) for count, stride, _ in digits)
    guards = [] if guard is None else [(tuple(c for _, _, c in digits), guard[0], guard[0] + guard[1])]
    form = values.normal([n for n, _, _ in digits], start, [s for _, s, _ in digits], guards)
    if form is not None:
        slope = np.arange(1.0, 1 + form.size)
        (found,) = windows.pulled(Maps().of(form), slope, [span])
        assert np.array_equal(found, np.bincount(form.index(), slope, 1 + span)[1:])


@pytest.mark.parametrize("strides", [(0, 1), (1, 0)])
def test_what_is_read_often_is_summed_before_it_is_added(strides: tuple[int, int]) -> None:
    """However often an element is read, it is one box."""
    form = values.normal((2 * windows.BOXES, 2 * windows.BOXES + 1), 3, strides)
    assert form is not None
    total = np.zeros(2 * windows.BOXES + 5)
    assert windows.added(total, form, np.ones(form.size))
    read = form.box[strides.index(1)]
    assert set(total[3 : 3 + read]) == {float(form.size // read)} and not total[:3].any() and not total[3 + read :].any()


@pytest.mark.parametrize("pad", [[0] * 4, [2, 0, 1, 3]])
@pytest.mark.parametrize("groups", [1, 3])
def test_windows_are_the_same_column_by_column(pad: list[int], groups: int) -> None:
    window = Window.resolve({"pads": pad, "dilations": [2, 1]}, IMAGE[2:], KERNEL)
    form, source = im2col_form(IMAGE, window, groups), np.random.default_rng(0).standard_normal(math.prod(IMAGE))
    map_ = Maps().of(form)
    across = windows.turned(map_, 18 // groups)
    assert across is not None
    table = gather.picked([source], map_).reshape(-1, 18 // groups)
    assert np.array_equal(gather.picked([source], across).reshape(18 // groups, -1), table.T)
    assert windows.turned(map_, 17) is None, "no digit ends there"
    other = [dataclasses.replace(f, guards=g.guards) for f, g in zip(across.pieces or (), map_.pieces or (), strict=True)]
    assert other == list(across.pieces or ()) if not any(pad) else other != list(across.pieces or ()), "guards turn, too"


@pytest.mark.parametrize(("value", "dtype"), [(200, np.uint8), (1e-23, np.float32)])
def test_lengths_of_windows_are_those_of_the_numbers_whatever_their_type(value: float, dtype: type) -> None:
    """The squares of a byte, or of a small float32, are not told in its own type."""
    map_ = Maps().intern(np.arange(1, 7))
    late = windows.Late(np.full(6, value, dtype), map_)
    rows, _ = windows.lengths(Contract((1, 1), 2, 1, 3, True), late, np.ones(3))
    assert np.allclose(rows, np.float64(dtype(value)) * math.sqrt(3), rtol=1e-12, atol=0)


def test_a_few_elements_of_large_windows_are_read_without_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    window = Window.resolve({"pads": [1] * 4}, IMAGE[2:], KERNEL)
    maps, source = Maps(), np.random.default_rng(0).standard_normal(math.prod(IMAGE))
    late = windows.Late(source, maps.of(im2col_form(IMAGE, window, 1)))
    few = maps.intern(np.array([*range(7, late.size, 37), 0, 1]))
    wanted, most = gather.picked([np.asarray(late)], few), maps.intern(np.arange(late.size, 0, -1))
    assert np.array_equal(late.through(most), np.asarray(late)[::-1])
    monkeypatch.setattr(windows.Late, "__array__", None)
    assert np.array_equal(late.through(few), wanted) and wanted[-2] == 0 and (wanted == 0).sum() > 1
