"""The analyzer on graphs in ONNX text: every way to write a patch embedding, and what is none, with the reason."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ops_support import im2col_table
from patch_cases import IMAGE, PATCHES, SPLIT, TOKENS, conv, dynamic, gathered, graph, ints, patchify, projected
from patch_table import cases

from graphcheck import limits
from graphcheck.kernel.geometry import Window as Geometry
from graphcheck.kernel.geometry import im2col_form
from graphcheck.kernel.terms.maps import Maps
from graphcheck.kernel.terms.verbs import Move
from graphcheck.patches import window
from graphcheck.patches.analyze import find
from graphcheck.patches.preparing import analyze_json
from graphcheck.patches.trace import trials
from graphcheck.patches.window import NoWindow, recognise, recognised

CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_a_patch_embedding_is_recognised(name: str) -> None:
    model, _, form, pattern, (kernel, strides, dilations, pads), layout = CASES[name]
    analysis = find(model)
    assert analysis.refusals == ()
    (site,) = analysis.sites
    row = site.to_json()
    assert (row["form"], row["pattern"], row["layout"]) == (form, pattern, layout)
    assert (row["kernel_shape"], row["strides"], row["dilations"], row["pads"]) == (kernel, strides, dilations, pads)
    assert row["input"] == ("g" if name == "from tokens" else "x") or name == "from tokens"
    assert row["blocked"] is None


def test_groups_are_read_off_a_block_diagonal_weight() -> None:
    assert find(CASES["block-diagonal"][0]).sites[0].groups == 2
    assert find(CASES["grouped"][0]).sites[0].groups == 2
    assert find(CASES["nchw"][0]).sites[0].groups == 1


@pytest.mark.parametrize("groups", [2, 4])
def test_a_grouped_convolution_behind_a_channel_shuffle_keeps_its_groups(groups: int) -> None:
    shuffled = "r = Reshape(x, a) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) m = Reshape(t, b)"
    text = f"{shuffled} y = Conv<group = {groups}, pads = [1, 1, 1, 1]>(m, w)"
    sizes = {"a": ints(0, 2, 2, 8, 8), "b": ints(0, 4, 8, 8)}
    (site,) = find(graph("float[N,4,8,8] x", "float[n,c,h,w] y", text, **sizes, w=(4, 4 // groups, 3, 3))).sites
    assert (site.groups, site.input.name, site.ordinary) == (groups, "m", True)


def test_a_difference_of_domain_is_told() -> None:
    assert find(dynamic()).sites[0].notes == (
        "the original demands sizes that divide by the stride; a Conv crops instead",
    )
    assert find(CASES["cropped, dynamic"][0]).sites[0].notes == ()


def test_json_is_what_the_contract_says() -> None:
    data = analyze_json(CASES["nchw"][0])
    assert data["schema"] == "graphcheck/analyze/1"
    row = data["patch_embeddings"][0]
    assert row["nodes"] == ["Reshape(r)", "Transpose(t)", "Reshape(m)", "MatMul(p)", "Add(y)"]
    assert (row["in_channels"], row["out_channels"], row["groups"], row["input"], row["output"]) == (3, 5, 1, "x", "y")


def refused(model: ir.Model) -> tuple[str, str]:
    """(reason, node) of the only refusal of a model without sites."""
    analysis = find(model)
    assert analysis.sites == ()
    (refusal,) = analysis.refusals
    return refusal.reason, refusal.node


def test_windows_over_several_tensors_are_told_by_their_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "c = Concat<axis = 1>(x, z) y = Conv<pads = [1, 1, 1, 1]>(c, w)"
    model = graph("float[1,4,9,9] x, float[1,4,9,9] z", "float[a,b,c,d] y", body, w=(5, 8, 3, 3))
    made: list[int] = []
    compose = Maps.compose
    monkeypatch.setattr(Maps, "compose", lambda maps, a, b: made.append(b.size if b else 0) or compose(maps, a, b))
    assert refused(model) == ("the moved data come from several tensors", "Conv(y)")
    assert max(made, default=0) < 9 * 9 * 8 * 3 * 3  # and not all of them


NORM = """
    u = ReduceMean(m, ax) d = Sub(m, u) q = Mul(d, d) v = ReduceMean(q, ax) s = Sqrt(v) n = Div(d, s) h = Mul(n, g)
    l = Add(h, k) y = MatMul(l, w)"""
MIXED = "r = Reshape(x, split) t = Transpose<perm = [0, 3, 5, 1, 2, 4, 6]>(r) m = Reshape(t, merged) y = MatMul(m, w)"
HALVES = """sh = Shape(x) h = Gather<axis = 0>(sh, i1) k = Div(h, two) n = Gather<axis = 0>(sh, i0)
    s = Concat<axis = 0>(n, two, k, three) r = Reshape(x, s) t = Transpose<perm = [0, 2, 1, 3]>(r)
    o = Concat<axis = 0>(n, k, six) m = Reshape(t, o) y = MatMul(m, w)"""
REFUSED = {
    "LayerNormalization between": (
        projected("l = LayerNormalization<axis = -1>(m, g, k) y = MatMul(l, w)", g=(48,), k=(48,), w=(48, 5)),
        "LayerNormalization stands between the patchify and the projection",
        "LayerNormalization(l)",
    ),
    "LayerNormalization in pieces": (
        projected(NORM, ax=ints(-1), g=(48,), k=(48,), w=(48, 5)),
        "Sub stands between the patchify and the projection",
        "Sub(d)",
    ),
    "Relu between": (
        projected("l = Relu(m) y = MatMul(l, w)", w=(48, 5)),
        "Relu stands between the patchify and the projection",
        "Relu(l)",
    ),
    "weight is an input": (
        projected("y = MatMul(m, w)", f"{IMAGE}, float[48,5] w"),
        "its weight is not constant",
        "MatMul(y)",
    ),
    "batch in the patches": (
        graph("float[4,3,8,8] x", TOKENS, MIXED, split=ints(2, 2, 3, 2, 4, 2, 4), merged=ints(2, 4, 96), w=(96, 5)),
        "the batch axis is mixed into the patches",
        "MatMul(y)",
    ),
    "an offset changed": (
        gathered([[0, 1, 2, 3], [4, 5, 7, 6], [8, 9, 10, 11]]),
        "the offsets are not the same in every row",
        "MatMul(y)",
    ),
    "an origin shifted": (
        gathered([[0, 1, 2, 3], [5, 6, 7, 8], [8, 9, 10, 11]]),
        "the origins of the rows are not a regular grid",
        "MatMul(y)",
    ),
    "an offset twice": (
        gathered([[0, 1, 2, 2], [4, 5, 6, 6], [8, 9, 10, 10]]),
        "an offset occurs twice in a row, and its weights would be added, as --stills does for a repeated image",
        "MatMul(y)",
    ),
    "a row twice": (
        gathered([[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),
        "the rows are not a grid of windows, each once",
        "MatMul(y)",
    ),
    "rows shuffled": (
        gathered([[4, 5, 6, 7], [0, 1, 2, 3], [8, 9, 10, 11]]),
        "its output orders the windows in a way that no transposition does",
        "MatMul(y)",
    ),
    "several tensors": (
        graph("float[N,4,4] x, float[N,4,4] z", TOKENS, "c = Concat<axis = 2>(x, z) y = MatMul(c, w)", w=(8, 5)),
        "the moved data come from several tensors",
        "MatMul(y)",
    ),
    "one size only": (
        graph("float[N,3,H,W] x", TOKENS, f"{PATCHES} y = MatMul(m, w)", split=ints(0, 3, 2, 4, 3, 4), merged=ints(0, 6, 48),
              w=(48, 5)),
        "it can be evaluated at one size only, so its geometry may depend on the size",
        "MatMul(y)",
    ),
    "a stride of zero": (
        conv("strides = [0, 0]", (5, 3, 4, 4)),
        "its attributes, or the shapes of its operands, break the rules of Conv",
        "Conv(y)",
    ),
    "a bias that is an input": (
        projected("f = Reshape(m, k) y = Gemm(f, w, c)", f"{IMAGE}, float[5] c", "float[a,b] y", w=(48, 5), k=ints(-1, 48)),
        "the bias is not constant",
        "Gemm(y)",
    ),
    "a bias for each row": (
        projected("f = Reshape(m, k) y = Gemm(f, w, c)", "float[1,3,8,8] x", "float[a,b] y", w=(48, 5), k=ints(-1, 48), c=(4, 5)),
        "the bias differs between the rows",
        "Gemm(y)",
    ),
    "geometry by size": (
        graph(
            "float[N,H,3] x", TOKENS, HALVES, i0=ints(0), i1=ints(1), two=ints(2), three=ints(3), six=ints(6), w=(6, 5)
        ),
        "the geometry differs between sizes: another kernel, stride, dilation or padding",
        "MatMul(y)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_window_is_refused_with_reason_and_node(name: str) -> None:
    model, reason, node = REFUSED[name]
    assert refused(model) == (reason, node)


BLOCKED = {
    "used elsewhere": ("y = MatMul(m, w) z = Relu(m)", "z", "its inner tensor m is used elsewhere", "Relu(z)"),
    "a graph output": ("y = MatMul(m, w)", "m", "its inner tensor m is an output of the model", "Reshape(m)"),
}


@pytest.mark.parametrize("name", BLOCKED)
def test_a_site_whose_inner_tensors_are_needed_is_blocked(name: str) -> None:
    body, output, reason, node = BLOCKED[name]
    (site,) = find(projected(body, outputs=f"{TOKENS}, float[d,e,f] {output}", w=(48, 5))).sites
    assert (site.blocked, site.blocker) == (reason, node)


def test_a_second_bias_is_left_outside() -> None:
    body = "c = Conv<strides = [4, 4]>(x, w, b) y = Add(c, k)"
    model = graph(IMAGE, "float[a,b,c,d] y", body, w=(5, 3, 4, 4), b=(5,), k=(5, 1, 1))
    assert [(s.output.name, s.bias is not None) for s in find(model).sites] == [("c", True)]


def test_a_conv_whose_movement_is_needed_elsewhere_stands_alone() -> None:
    body = "t = Transpose<perm = [0, 3, 1, 2]>(x) y = Conv<strides = [4, 4]>(t, w) z = Relu(t)"
    model = graph("float[N,8,8,3] x", "float[a,b,c,d] y, float[e,f,g,h] z", body, w=(5, 3, 4, 4))
    assert [(s.input.name, s.layout, s.blocked) for s in find(model).sites] == [("t", "NCHW", None)]


def test_two_projections_of_the_same_patches_are_both_open() -> None:
    model = projected("y = MatMul(m, w) z = MatMul(m, v)", outputs=f"{TOKENS}, float[d,e,f] z", w=(48, 5), v=(48, 7))
    assert [site.blocked for site in find(model).sites] == [None, None]


def test_projections_of_attention_are_neither_sites_nor_refusals() -> None:
    body = """
        q = MatMul(x, wq) k = MatMul(x, wk) v = MatMul(x, wv)
        q4 = Reshape(q, heads) k4 = Reshape(k, heads) v4 = Reshape(v, heads)
        qt = Transpose<perm = [0, 2, 1, 3]>(q4) kt = Transpose<perm = [0, 2, 3, 1]>(k4)
        vt = Transpose<perm = [0, 2, 1, 3]>(v4)
        s = MatMul(qt, kt) p = Softmax(s) o = MatMul(p, vt) ot = Transpose<perm = [0, 2, 1, 3]>(o) r = Reshape(ot, flat)
        y = MatMul(r, wo)
    """
    weights = dict.fromkeys(("wq", "wk", "wv", "wo"), (12, 12))
    model = graph("float[N,6,12] x", TOKENS, body, heads=ints(0, 0, 3, 4), flat=ints(0, 0, 12), **weights)
    analysis = find(model)
    assert (analysis.sites, analysis.refusals) == ((), ())


def test_an_untaught_operator_elsewhere_hides_nothing() -> None:
    body = "y = MatMul(m, w) z = NonZero(y)"
    model = projected(body, outputs=f"{TOKENS}, int64[d,e] z", w=(48, 5))
    assert [site.form for site in find(model).sites] == ["matmul"]


def test_an_ordinary_convolution_is_listed_as_such() -> None:
    sites = [find(conv(f"strides = [{s}, {s}]", (5, 3, 4, 4))).sites[0] for s in (2, 4, 5)]
    assert [site.ordinary for site in sites] == [True, False, True]


PADDED = "p = Pad(x, pads) y = Conv<strides = [2, 2]>(p, w)"
HWC = "t = Transpose<perm = [0, 3, 1, 2]>(x) y = Conv<{}>(t, w)"
LINE = "u = Unsqueeze(x, axis) y = Conv<{}>(u, w)"
SHUFFLED = "r = Reshape(x, a) t = Transpose<perm = [0, 2, 1, 3, 4]>(r) m = Reshape(t, b) y = Conv<{}>(m, w)"
FOCUS = "d = SpaceToDepth<blocksize = 2>(x) y = Conv<{}>(d, w)"
SHUFFLE = {"a": ints(0, 2, 2, 8, 8), "b": ints(0, 4, 8, 8)}
BEHIND = {  # what stands before a Conv: input, nodes, initializers, whether the Conv is an ordinary one
    "a Pad": ("float[N,3,8,8] x", PADDED, {"pads": ints(0, 0, 0, 0, 0, 0, 1, 1), "w": (5, 3, 3, 3)}, True),
    "a Transpose": ("float[N,8,8,3] x", HWC.format("pads = [1, 1, 1, 1]"), {"w": (5, 3, 3, 3)}, True),
    "a Transpose, patches": ("float[N,8,8,3] x", HWC.format("strides = [4, 4]"), {"w": (5, 3, 4, 4)}, False),
    "a Transpose, gaps": ("float[N,8,8,3] x", HWC.format("strides = [4, 4]"), {"w": (5, 3, 3, 3)}, True),
    "a Transpose, dilated": (
        "float[N,8,8,3] x", HWC.format("strides = [2, 2], dilations = [2, 2]"), {"w": (5, 3, 2, 2)}, True,
    ),
    "an Unsqueeze": ("float[N,3,8] x", LINE.format("pads = [0, 2, 0, 2]"), {"axis": ints(2), "w": (5, 3, 1, 5)}, True),
    "an Unsqueeze, patches": (
        "float[N,3,8] x", LINE.format("strides = [1, 4]"), {"axis": ints(2), "w": (5, 3, 1, 4)}, False,
    ),
    "a channel shuffle": (
        "float[N,4,8,8] x", SHUFFLED.format("group = 4, strides = [2, 2], pads = [1, 1, 1, 1]"),
        SHUFFLE | {"w": (4, 1, 3, 3)}, True,
    ),
    "patch movement": ("float[N,3,8,8] x", FOCUS.format("strides = [1, 1]"), {"w": (5, 12, 1, 1)}, False),
    "patch movement, wider": ("float[N,3,8,8] x", FOCUS.format("pads = [1, 1, 1, 1]"), {"w": (5, 12, 3, 3)}, False),
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_convolution_behind_movement_is_ordinary_unless_the_movement_or_its_stride_makes_patches(name: str) -> None:
    inputs, body, constants, ordinary = BEHIND[name]
    (site,) = find(graph(inputs, "float[n,c,h,w] y", body, **constants)).sites
    assert site.ordinary is ordinary


PADS = {  # pads of a Pad, and of the Conv behind it: what the axes have before and behind
    "behind": ([0, 0, 0, 0, 0, 0, 1, 1], "[0, 0, 0, 0]", [(0, 1), (0, 1)]),
    "around": ([0, 0, 1, 2, 0, 0, 3, 0], "[0, 0, 0, 0]", [(1, 3), (2, 0)]),
    "both": ([0, 0, 1, 0, 0, 0, 1, 1], "[0, 1, 0, 1]", [(1, 1), (1, 2)]),
    "cut off": ([0, 0, -1, 0, 0, 0, 0, -2], "[0, 0, 0, 0]", [(-1, 0), (0, -2)]),
}


@pytest.mark.parametrize("name", PADS)
def test_a_pad_before_a_conv_is_padding_of_the_conv_at_every_size(name: str) -> None:
    pads, own, expected = PADS[name]
    body = f"p = Pad(x, k) y = Conv<strides = [4, 4], pads = {own}>(p, w)"
    (site,) = find(graph("float[N,3,H,W] x", "float[n,c,h,w] y", body, k=ints(*pads), w=(5, 3, 4, 4))).sites
    assert (site.form, [(axis.begin, axis.end) for axis in site.spatial]) == ("conv", expected)


def test_what_turns_the_image_is_no_pad() -> None:
    body = "p = Transpose<perm = [0, 1, 3, 2]>(x) y = Conv<strides = [4, 4]>(p, w)"
    (site,) = find(graph("float[N,3,8,10] x", "float[n,c,h,w] y", body, w=(5, 3, 4, 4))).sites
    assert [(axis.begin, axis.end) for axis in site.spatial] == [(0, 0), (0, 0)]


def test_a_line_of_patches_keeps_its_kernel() -> None:
    (site,) = find(graph("float[N,3,20] x", "float[n,c,l] y", "y = Conv<strides = [5]>(x, w)", w=(4, 3, 5))).sites
    assert (site.kernel_shape, site.to_json()["strides"], site.ordinary) == ((5,), [5], False)


def test_a_pointwise_convolution_is_no_patch_embedding() -> None:
    analysis = find(conv("strides = [1, 1]", (5, 3, 1, 1)))
    assert (analysis.sites, analysis.refusals) == ((), ())


def test_padding_where_the_tensor_has_elements_is_no_window() -> None:
    table = np.array([[1, 2, 0, 4], [5, 6, 7, 8]])
    with pytest.raises(NoWindow, match="zeros where the window lies"):
        recognise(table, (8,))


def test_a_table_that_is_no_window_is_told_by_a_few_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width = 5000, 8
    random = np.random.default_rng(0).permutation(rows * width).reshape(rows, width) + 1
    far = np.arange(1, width + 1) + np.arange(rows)[:, None]  # windows of a line, but for one row between those looked at
    at = next(row for row in range(rows) if row not in np.arange(64) * 0x9E3779B1 % rows)
    far[at] = far[at][::-1]
    looked: list[int] = []
    monkeypatch.setattr(window, "recognise", lambda table, shape: looked.append(len(table)) or recognise(table, shape))
    for table, whole in ((random, []), (far, [rows])):
        looked.clear()
        with pytest.raises(NoWindow, match="the offsets are not the same in every row"):
            recognised(Maps().intern(table), width, (rows * width,))
        assert looked == whole


def test_rows_that_only_the_others_link_are_a_window_all_the_same() -> None:
    rows, width = 4000, 4  # half of the rows have the left columns alone, and half the right ones, but for one with all
    table = np.arange(1, width + 1) + np.arange(rows)[:, None] * width
    table[::2, 2:] = table[1::2, :2] = 0
    at = next(row for row in range(rows) if row not in np.arange(64) * 0x9E3779B1 % rows)
    table[at] = np.arange(1, width + 1) + at * width
    with pytest.raises(NoWindow, match="zeros where the window lies"):  # and not: the rows share no offsets
        recognised(Maps().intern(table), width, (rows * width,))


@given(st.data())
def test_im2col_is_recognised_as_the_window_it_came_from(data: st.DataObject) -> None:
    kernel, stride, dilation = (data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(3))
    channels = data.draw(st.integers(1, 3))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    pads = [data.draw(st.integers(0, e - 1)) for e in extent]
    size = [data.draw(st.integers(e + s, e + 4 * s)) for e, s in zip(extent, stride, strict=True)]
    window = Geometry(kernel, stride, (*pads, *pads), dilation)
    table = im2col_table((2, channels, *size), window)[0]
    found = recognise(table, (2, channels, *size))
    read = recognised(Maps().of(im2col_form((2, channels, *size), window)), table.shape[1], (2, channels, *size))
    assert read.axes == found.axes  # off the form as off the table
    for name in ("positions", "offsets", "used"):
        assert np.array_equal(getattr(read, name), getattr(found, name))
    for axis, k, s, d, p in zip(found.axes[2:], kernel, stride, dilation, pads, strict=True):
        if axis.role == "spatial" and axis.count > 1:
            assert (axis.kernel, axis.stride, axis.origin) == (k, s, -p)
            assert k == 1 or axis.dilation == d
    if max(kernel) > 1 and table.shape[0] > 2 and bool((table > 0).all()):
        wrong = table.copy()
        wrong[1, 0], wrong[1, -1] = wrong[1, -1], wrong[1, 0]
        with pytest.raises(NoWindow):
            recognise(wrong, (2, channels, *size))


@pytest.mark.parametrize("opset", [13, 17, 21, 23])
def test_recognition_does_not_depend_on_the_opset(opset: int) -> None:
    model = patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48], opset=opset)
    assert find(model).sites[0].kernel_shape == (4, 4)


def test_movement_in_other_operators_is_movement() -> None:
    """Split, Concat, Squeeze, Unsqueeze, GatherND, Expand, Flatten, Pad and a widening Cast: the same window."""
    body = """
        a, b = Split<axis = 2, num_outputs = 2>(x) c = Concat<axis = 2>(a, b) u = Unsqueeze(c, one) s = Squeeze(u, one)
        e = Expand(s, unit) i = Identity(e) p = Pad(i, none) f = Cast<to = 11>(p)
        r = Reshape(f, split) t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) m = Reshape(t, merged) y = MatMul(m, w)
    """
    model = graph(
        IMAGE, "double[a,b,c] y", body, one=ints(1), unit=ints(1, 1, 1, 1), none=ints(*[0] * 8),
        w=np.random.default_rng(0).normal(size=(48, 5)), **SPLIT
    )  # fmt: skip
    assert [(s.kernel_shape, s.pattern) for s in find(model).sites] == [
        ((4, 4), "b c (h p1) (w p2) -> b (h w) (c p1 p2)")
    ]


@pytest.mark.parametrize("before", ["p = Relu(x)", "p = Pad(x, k)", "s = Softmax(x) p = Add(s, x)"])
def test_an_input_of_a_hundred_billion_elements_takes_no_memory_of_its_size(before: str) -> None:
    """4 GB were taken by tables of windows; what is told is as of a small input."""
    inputs = "float[1,3,200000,200000] x"
    model = graph(inputs, "float[n,c,h,w] y", f"{before} y = Conv<strides = [16, 16]>(p, w)", w=(4, 3, 16, 16), k=ints(*[0] * 8))
    tracemalloc.start()
    try:
        analysis = find(model)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**26
    assert [site.kernel_shape for site in analysis.sites] == [(16, 16)] or analysis.refusals


@pytest.mark.parametrize("name", CASES)
def test_a_window_is_read_off_its_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No table of windows is made, but for slices side by side, and where the source is an image only once reshaped."""
    made: list[tuple[int, ...]] = []
    monkeypatch.setattr(window, "recognise", lambda table, shape: made.append(table.shape) or recognise(table, shape))
    find(CASES[name][0])
    assert bool(made) == (name in ("focus", "from tokens"))


def test_what_a_conv_transpose_gives_is_taken_without_its_windows() -> None:
    body = """
        u = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(x, v) r = Relu(u) y = Conv<strides = [4, 4]>(r, w)
    """
    model = graph("float[1,64,64,64] x", "float[a,b,c,d] y", body, v=(64, 32, 4, 4), w=(8, 32, 4, 4))
    with limits.within(memory=2**28):  # an array of its windows alone would be 400 MB
        (site,) = find(model).sites
    assert site.axes[2].size == 128 and site.ordinary is False


def test_a_pool_without_padding_is_kept_as_its_form() -> None:
    model = graph("float[1,8,64,64] x", "float[a,b,c,d] y", "y = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(x)")
    (trial,) = trials(model)
    moved = [term.verb.map for term in trial.terms.terms if isinstance(term.verb, Move)]
    assert len(moved) == 1 and moved[0].form is not None and moved[0]._index is None
