"""Random geometry: the analyzer tells what was built, and every legal form of it is the same function in onnxruntime."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_cases import graph, ints, ops, patchify, proved, run

from graphcheck.patches.analyze import find
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.rewrite import rewrite


def assert_same(a: ir.Model, b: ir.Model, sizes: dict[str, int]) -> None:
    if proved(a, b, sizes):
        return  # congruence is not complete: what it does not close is run
    for x, y in zip(run(a, 0, sizes), run(b, 0, sizes), strict=True):
        assert x.shape == y.shape
        assert float(np.abs(x - y).max()) <= 1e-5 * float(np.abs(x).max())


def assert_all_forms(model: ir.Model, sizes: dict[str, int]) -> None:
    (site,) = find(model).sites
    for to, form in FORMS.items():
        result = rewrite(model, to, sites=[site.name])
        if site.form == to or form.why_not(site) is not None:
            assert not result.changed
            continue
        assert result.changed or (to == "matmul" and site.form == "unfold"), (to, result.reason, result.refusals)
        assert_same(model, result.model, sizes)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[ir.Model, list[list[int]], int]:
    """A Conv, channels first or last, with all its attributes: (model, [kernel, strides, dilations, pads], groups)."""
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel, strides, dilations = (draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)) for _ in range(3))
    kernel[draw(st.integers(0, rank - 1))] = draw(st.integers(2, 3))
    dilations = [d if k > 1 else 1 for d, k in zip(dilations, kernel, strict=True)]
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, e - 1)) for e in extent + extent]
    size = [draw(st.integers(e + 1, e + 6)) for e in extent]
    channels, filters = groups * draw(st.integers(1, 2)), groups * 2
    last = draw(st.booleans())
    shape = [*size, channels] if last else [channels, *size]
    named = {"strides": strides, "dilations": dilations, "pads": pads}
    attributes = ", ".join(f"{name} = {value}" for name, value in named.items()) + f", group = {groups}"
    front, back = [0, rank + 1, *range(1, rank + 1)], [0, *range(2, rank + 2), 1]
    body = f"y = Conv<{attributes}>(x, w, b)"
    if last:
        body = f"t = Transpose<perm = {front}>(x) c = Conv<{attributes}>(t, w, b) y = Transpose<perm = {back}>(c)"
    dims = ",".join(map(str, shape))
    model = graph(f"float[N,{dims}] x", f"float[{','.join('abcdefg'[: rank + 2])}] y", body,
                  w=(filters, channels // groups, *kernel), b=(filters,))  # fmt: skip
    return model, [kernel, strides, dilations, pads], groups


@settings(max_examples=30)
@given(convolutions())
def test_every_convolution_reaches_every_legal_form(made: tuple[ir.Model, list[list[int]], int]) -> None:
    model, _, _ = made
    assert_all_forms(model, {"N": 2})


@st.composite
def patchifications(draw: st.DrawFn) -> tuple[ir.Model, list[int]]:
    """Reshape, Transpose, Reshape, MatMul over any order of batch, axes, rows and flattened patch: (model, kernel)."""
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(2, 3)) for _ in range(rank)]
    count = [draw(st.integers(2, 3)) for _ in range(rank)]
    channels = draw(st.sampled_from([[], [3], [2, 3]]))
    axes = draw(st.permutations([("s", i) for i in range(rank)] + [("c", i) for i in range(len(channels))]))
    axes.insert(draw(st.sampled_from([0, 0, len(axes), len(axes) // 2])), ("n", 0))
    shape: list[int | str] = []
    split: list[int] = []
    rows, columns = [], []
    at = batch = 0
    for kind, i in axes:
        if kind == "n":
            shape.append("N")
            split.append(-1)
            batch = at
            at += 1
        elif kind == "s":
            shape.append(count[i] * kernel[i])
            split += [count[i], kernel[i]]
            rows.append(at)
            columns.append(at + 1)
            at += 2
        else:
            shape.append(channels[i])
            split.append(channels[i])
            columns.append(at)
            at += 1
    rows, columns = draw(st.permutations(rows)), draw(st.permutations(columns))
    merged = [-1, math.prod(count), math.prod(kernel) * math.prod(channels)]
    order = [i for kind, i in axes if kind == "s"]
    return patchify(shape, split, [batch, *rows, *columns], merged), [kernel[i] for i in order]


@settings(max_examples=40)
@given(patchifications())
def test_every_patchification_reaches_every_legal_form(made: tuple[ir.Model, list[int]]) -> None:
    model, kernel = made
    (site,) = find(model).sites
    assert list(site.kernel_shape) == kernel
    assert_all_forms(model, {"N": 2})


@settings(max_examples=15)
@given(patchifications(), st.integers(4, 5))
def test_every_patchification_keeps_to_a_rank_limit(made: tuple[ir.Model, list[int]], limit: int) -> None:
    model, _ = made
    result = rewrite(model, "matmul", max_rank=limit)
    if result.changed:
        assert max(len(v.shape) for n in result.model.graph for v in n.outputs if v.shape is not None) <= limit
        assert_same(model, result.model, {"N": 2})


@settings(max_examples=25)
@given(patchifications(), st.integers(0, 10**6))
def test_a_swapped_weight_row_is_never_proved(made: tuple[ir.Model, list[int]], seed: int) -> None:
    model, _ = made
    result = rewrite(model, "conv").model
    weight = next(v for v in result.graph.initializers.values() if (v.name or "").endswith("/weight"))
    assert weight.const_value is not None and "Conv" in ops(result)
    wrong = weight.const_value.numpy().copy().reshape(5, -1)
    i, j = np.random.default_rng(seed).choice(wrong.shape[1], 2, replace=False)
    wrong[:, [i, j]] = wrong[:, [j, i]]
    weight.const_value = ir.tensor(wrong.reshape(weight.const_value.shape.numpy()), name=weight.name)
    assert not proved(model, result, {"N": 2})


def test_an_index_that_is_off_by_one_is_seen() -> None:
    index = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    models = [graph("float[1,9] x", "float[a,b,c] y", "m = Gather<axis = 1>(x, i) y = MatMul(m, w)", i=index + off, w=(4, 5))
              for off in (0, 1)]  # fmt: skip
    assert [find(m).sites[0].axes[1].begin for m in models] == [0, -1]
    assert not proved(models[0], rewrite(models[1], "conv").model)
    assert ints(1).dtype == np.int64
