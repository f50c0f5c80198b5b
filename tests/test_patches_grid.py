"""The grid of operator x layout x rank x window x type x dynamic dims: recognised, rewritten to every form and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import conv, conv_nhwc, ops

from graphcheck.patches.analyze import find
from graphcheck.patches.window import NoWindow, recognise
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare
from tests.zoo import patch_grid, patch_tables

CASES = {case.name: case for case in patch_grid.cases()}
SAMPLE = [case.name for case in patch_grid.sample()]


def assert_row(name: str) -> None:
    made = patch_grid.make(CASES[name])
    assert patch_grid.geometries(made.model) == [made.geometry]
    row = patch_tables.row(name, made.model, shapes=made.shapes)
    assert row.wrong == []
    assert row.ulp < 64, "onnxruntime deviates by more than rounding"


def test_the_sample_has_every_kind_twice() -> None:
    for field in dataclasses.fields(patch_grid.Case):
        every = {getattr(case, field.name) for case in CASES.values()}
        sampled = [getattr(CASES[name], field.name) for name in SAMPLE]
        assert all(sampled.count(value) >= 2 for value in every), field.name
    assert len(SAMPLE) < 40


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_reaches_every_legal_form_and_comes_back(name: str) -> None:
    assert_row(name)


@pytest.mark.zoo
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SAMPLE)))
def test_every_case_reaches_every_legal_form_and_comes_back(name: str) -> None:
    assert_row(name)


# -- strips: a kernel of one along an axis of the image ----------------------------------------------------------------

STRIPS = {
    "odd": (conv, "N,3,13,15", "0,0,0,0"),
    "padded": (conv, "N,3,9,23", "0,2,0,1"),
    "dynamic": (conv, "2,3,H,W", "0,2,0,1"),
    "channels last": (conv_nhwc, "N,9,23,3", "0,3,0,2"),
    "channels last, dynamic": (conv_nhwc, "N,H,W,3", "0,2,0,1"),
}


@pytest.mark.parametrize("name", STRIPS)
def test_a_strip_is_told_as_it_was_built(name: str) -> None:
    make, shape, pads = STRIPS[name]
    model = make(f"pads = [{pads}], kernel_shape = [1, 7], strides = [1, 7]", (5, 3, 1, 7), f"float[{shape}] x")
    (site,) = find(model).sites
    told = site.to_json()
    assert (told["kernel_shape"], told["strides"], told["pads"]) == ([1, 7], [1, 7], [int(n) for n in pads.split(",")])
    result = rewrite(model, "matmul", check=lambda a, b: compare(a, b, graphs=False))
    assert result.verdict is Verdict.PROVED, result.reason
    (again,) = find(result.model).sites
    assert (again.layout, again.kernel_shape) == (site.layout, (1, 7))
    if "dynamic" not in name:
        back = rewrite(result.model, "conv", check=lambda a, b: compare(a, b, graphs=False))
        assert back.verdict is Verdict.PROVED and ops(back.model) == ops(model), back.reason


def test_a_kernel_that_spans_an_axis_is_told_without_a_drawing() -> None:
    model = conv_nhwc("kernel_shape = [1, 7], strides = [1, 7]", (5, 3, 1, 7), "float[N,8,7,3] x")
    (site,) = find(model).sites
    assert site.flattened and site.to_json()["weights"] is None


# -- near misses: what is wrong in one place is refused, and refuted where it was rewritten by hand --------------------

GATHERED = [name for name, case in CASES.items() if case.op == "MatMul" and not case.tiles and case.layout == "first"
            and case.kind == "float" and case.dynamic == "batch" and case.rank < 3]  # fmt: skip


def table_of(model: ir.Model) -> np.ndarray:
    """The Gather's index as [kernel, windows]."""
    h = model.graph.initializers["hs"].const_value
    index = model.graph.initializers["index"].const_value
    assert h is not None and index is not None
    return index.numpy().reshape(-1, int(h.numpy()[2])).copy()


def pixels(model: ir.Model) -> np.ndarray:
    """Whether each element of the padded image, flat, is one of the image."""
    padding = model.graph.initializers.get("pads")
    sizes = [d for d in model.graph.inputs[0].shape or () if isinstance(d, int)][1:]
    pads = [0] * (2 * len(sizes) + 4) if padding is None else list(padding.const_value.numpy())  # type: ignore[union-attr]
    around = [(int(pads[i + 2]), int(pads[i + 4 + len(sizes)])) for i in range(len(sizes))]
    return np.pad(np.ones(sizes, bool), around).reshape(-1)


def with_table(model: ir.Model, table: np.ndarray) -> ir.Model:
    changed = model.clone()
    changed.graph.initializers["index"].const_value = ir.tensor(table.reshape(-1), name="index")
    return changed


def assert_refused_and_refuted(original: ir.Model, near: ir.Model, *reasons: str) -> None:
    analysis = find(near)
    assert analysis.sites == () and analysis.refusals[0].reason in reasons
    by_hand = rewrite(original, "conv").model
    assert "Conv" in ops(by_hand)
    assert compare(original, by_hand, graphs=False, run=False).verdict is Verdict.PROVED
    told = compare(near, by_hand, graphs=False)
    assert told.verdict is Verdict.DIFFERENT and told.evidence["witness"] is not None


OFFSETS = "the offsets are not the same in every row"
ZEROS = "the map gives zeros where the window lies on the tensor"
GRID = (
    "the origins of the rows are not a regular grid",
    "the rows are not a grid of windows, each once",
    "the rows share no offsets",
)


@pytest.mark.parametrize("name", GATHERED)
def test_one_offset_of_one_row_changed(name: str) -> None:
    original = patch_grid.make(CASES[name]).model
    table = table_of(original)
    row = int(np.argmax(pixels(original)[table].sum(axis=0)))
    first, *_, last = np.flatnonzero(pixels(original)[table[:, row]])
    table[[first, last], row] = table[[last, first], row]
    assert_refused_and_refuted(original, with_table(original, table), OFFSETS, ZEROS, *GRID)


@pytest.mark.parametrize("name", GATHERED)
def test_one_origin_shifted(name: str) -> None:
    original = patch_grid.make(CASES[name]).model
    table = table_of(original)
    step = 1 if table[:, 1].max() < table.max() else -1
    table[:, 1] += step
    assert_refused_and_refuted(original, with_table(original, table), OFFSETS, ZEROS, *GRID)


@pytest.mark.parametrize("name", GATHERED)
def test_one_window_in_the_place_of_another(name: str) -> None:
    original = patch_grid.make(CASES[name]).model
    table = table_of(original)
    table[:, 1] = table[:, 0]
    assert_refused_and_refuted(original, with_table(original, table), *GRID)


@pytest.mark.parametrize("name", SAMPLE)
def test_one_weight_row_swapped_by_hand_is_refuted(name: str) -> None:
    """Two elements of the first filter change places in the rewritten model."""
    made = patch_grid.make(CASES[name])
    (site,) = find(made.model).sites
    to = "conv" if site.form != "conv" else "matmul"
    result = rewrite(made.model, to, sites=[site.name], run=False)
    assert result.changed, result.refusals
    stored = next(v for n, v in result.model.graph.initializers.items() if n.rpartition("/")[2] == "weight")
    assert stored.const_value is not None
    weight = stored.const_value.numpy().copy()
    first = (0,) if to == "conv" else (slice(None), 0)
    row = weight[first].reshape(-1)
    at = np.flatnonzero(row)[:2]
    row[at] = row[at[::-1]]
    weight[first] = row.reshape(weight[first].shape)
    stored.const_value = ir.tensor(weight, name=stored.name)
    told = compare(made.model, result.model, graphs=False, shapes=made.shapes)
    assert told.verdict in (Verdict.DIFFERENT, Verdict.UNDECIDED)
    assert told.verdict is Verdict.DIFFERENT or CASES[name].kind != "float"


# -- the reasons that a map alone can give -----------------------------------------------------------------------------

REASONS = {
    "the data are empty": (np.zeros((0, 4), int), (8,)),
    "a row consists of padding alone": (np.array([[1, 2], [0, 0]]), (8,)),
    "the rows share no offsets": (np.array([[0, 1], [8, 0]]), (8,)),
    "the map gives zeros where the window lies on the tensor": (np.array([[1, 2, 0, 4], [5, 6, 7, 8]]), (8,)),
    OFFSETS: (np.array([[1, 2, 3, 4], [5, 6, 8, 7]]), (8,)),
    "the origins of the rows are not a regular grid": (np.array([[1, 2], [2, 3], [5, 6]]), (8,)),
    "the rows are not a grid of windows, each once": (np.array([[1, 2], [1, 2], [3, 4]]), (8,)),
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_map_that_is_no_window(reason: str) -> None:
    with pytest.raises(NoWindow) as caught:
        recognise(*REASONS[reason])
    assert str(caught.value) == reason
