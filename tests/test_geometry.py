"""Window geometry against onnxruntime: pads, auto_pad, strides, dilations, groups, ceil_mode, in 1 to 3 dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ops_support import assert_agrees, im2col_table, node_model, run, values

from graphcheck.kernel.geometry import Window


@st.composite
def windows(draw: st.DrawFn, *, pool: bool = False) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Spatial sizes and the attributes of a window that fits into them."""
    rank = draw(st.integers(1, 3))
    spatial = tuple(draw(st.lists(st.integers(1, 9 if rank < 3 else 6), min_size=rank, max_size=rank)))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)),
    }
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto_pad in ("NOTSET", "VALID"):  # onnxruntime refuses SAME with dilations
        attributes["dilations"] = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    if auto_pad == "NOTSET":
        most = [k - 1 if pool else 3 for k in kernel] * 2
        attributes["pads"] = [draw(st.integers(0, p)) for p in most]
    else:
        attributes["auto_pad"] = auto_pad
        # onnxruntime's pooling refuses SAME where the stride is larger than the kernel
        assume(
            not pool or auto_pad == "VALID" or all(k >= s for k, s in zip(kernel, attributes["strides"], strict=True))
        )
    assume(min(Window.resolve(attributes, spatial).out_shape(spatial)) >= 1)
    return spatial, attributes


@settings(max_examples=150)
@given(windows(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_conv(case: Any, batch: int, groups: int, per_group: int, biased: bool) -> None:
    spatial, attributes = case
    x = values((batch, groups * per_group, *spatial))
    w = values((groups * 2, per_group, *attributes["kernel_shape"]), 1)
    bias = [values((groups * 2,), 2)] if biased else []
    proto = node_model("Conv", [x], {**attributes, "group": groups}, 11, constants=[w, *bias])
    assert_agrees(proto, {"x0": x})


@settings(max_examples=150)
@given(windows(pool=True), st.booleans(), st.booleans())
def test_pools(case: Any, ceil_mode: bool, include: bool) -> None:
    spatial, attributes = case
    ceil_mode &= attributes.get("auto_pad") != "VALID"  # where the standard and onnxruntime differ
    x = values((2, 2, *spatial))
    pooled = {**attributes, "ceil_mode": int(ceil_mode)}
    assume(all(axis.any(axis=1).all() for axis in Window.resolve(pooled, spatial).inside(spatial)))
    assert_agrees(node_model("MaxPool", [x], pooled, 12), {"x0": x})
    assert_agrees(node_model("AveragePool", [x], {**pooled, "count_include_pad": int(include)}, 19), {"x0": x})


@settings(max_examples=60)
@given(windows(), st.integers(1, 2), st.data())
def test_conv_transpose(case: Any, groups: int, data: st.DataObject) -> None:
    spatial, attributes = case
    rank = len(spatial)
    attributes.pop("auto_pad", None)
    room = [max(s, d) - 1 for s, d in zip(attributes["strides"], attributes.get("dilations", [1] * rank), strict=True)]
    attributes["output_padding"] = [
        data.draw(st.integers(0, min(r, s - 1))) for r, s in zip(room, attributes["strides"], strict=True)
    ]
    extents = Window.resolve(attributes, spatial).extents()
    pads = attributes.get("pads", [0] * 2 * rank)
    sizes = [
        (n - 1) * s + e - pads[i] - pads[i + rank] + attributes["output_padding"][i]
        for i, (n, s, e) in enumerate(zip(spatial, attributes["strides"], extents, strict=True))
    ]
    assume(min(sizes) >= 1)
    x = values((1, groups * 2, *spatial))
    w = values((groups * 2, 2, *attributes["kernel_shape"]), 1)
    proto = node_model("ConvTranspose", [x], {**attributes, "group": groups}, 11, constants=[w])
    assert_agrees(proto, {"x0": x})


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("output_shape", [None, [7, 8]])
def test_conv_transpose_with_its_output_given(auto_pad: str, output_shape: list[int] | None) -> None:
    x, w = values((1, 2, 4, 4)), values((2, 3, 3, 3), 1)
    attributes: dict[str, Any] = {"auto_pad": auto_pad, "strides": [2, 2]}
    if output_shape:
        attributes["output_shape"] = output_shape
    assert_agrees(node_model("ConvTranspose", [x], attributes, 11, constants=[w]), {"x0": x})


@settings(max_examples=100)
@given(windows(), st.integers(1, 2), st.integers(1, 3), st.integers(1, 2))
def test_im2col_is_conv_with_a_matrix_product(case: Any, batch: int, channels: int, groups: int) -> None:
    spatial, attributes = case
    window = Window.resolve(attributes, spatial)
    shape = (batch, channels * groups, *spatial)
    columns = im2col_table(shape, window, groups)
    out = window.out_shape(spatial)
    assert columns.shape == (groups, batch * math.prod(out), channels * math.prod(window.kernel_shape))
    x = values(shape)
    w = values((groups * 2, channels, *window.kernel_shape), 1)
    patches = np.concatenate([[0], x.reshape(-1)])[columns]
    y = np.einsum("gpk,gfk->gfp", patches.astype(np.float64), w.reshape(groups, 2, -1))
    y = y.reshape(groups * 2, batch, *out).swapaxes(0, 1)
    wanted = run(node_model("Conv", [x], {**attributes, "group": groups}, 11, constants=[w]), {"x0": x})[0]
    assert np.abs(y - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


@settings(max_examples=200)
@given(windows())
def test_gather_points_into_the_source_or_at_padding(case: Any) -> None:
    spatial, attributes = case
    window = Window.resolve(attributes, spatial)
    index = window.gather(spatial)
    assert index.shape == window.out_shape(spatial) + window.kernel_shape
    inside_of = window.inside(spatial)
    assert index.min() >= 0 and index.max() <= math.prod(spatial)
    for position in np.ndindex(*index.shape):
        at, offset = position[: len(spatial)], position[len(spatial) :]
        source = [
            a * s + o * d - p
            for a, s, o, d, p in zip(at, window.strides, offset, window.dilations, window.pads, strict=False)
        ]
        inside = all(0 <= c < n for c, n in zip(source, spatial, strict=True))
        assert inside == all(axis[a, o] for axis, a, o in zip(inside_of, at, offset, strict=True))
        assert index[position] == (np.ravel_multi_index(source, spatial) + 1 if inside else 0)


def test_valid_means_no_pads_whatever_pads_say() -> None:
    window = Window.resolve({"auto_pad": "VALID", "pads": [1, 1], "kernel_shape": [3]}, [5])
    assert window.pads == (0, 0) and window.out_shape([5]) == (3,)


def test_same_upper_and_lower_differ_by_the_odd_pad() -> None:
    upper, lower = (
        Window.resolve({"auto_pad": f"SAME_{side}", "kernel_shape": [2]}, [4]).pads for side in ("UPPER", "LOWER")
    )
    assert (upper, lower) == ((0, 1), (1, 0))


def test_a_window_that_starts_in_the_end_padding_is_dropped() -> None:
    window = Window.resolve({"kernel_shape": [1], "strides": [2], "ceil_mode": 1, "pads": [0, 1]}, [2])
    assert window.out_shape([2]) == (1,)


def test_a_kernel_that_does_not_fit_has_no_positions() -> None:
    assert Window.resolve({"kernel_shape": [5]}, [3]).out_shape([3])[0] < 1
