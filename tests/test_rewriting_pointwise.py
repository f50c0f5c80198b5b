"""Pointwise projections: MatMul and Gemm to a 1x1 Conv and back, in few nodes, proved; ordinary Convs where asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import conv, conv_nhwc, graph, ints, ops, run

from graphcheck.errors import UsageError
from graphcheck.patches.preparing import prepared
from graphcheck.rewriting.apply import sweep
from graphcheck.rewriting.fastest import fastest
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.rewriting.transposes import cancel_transposes
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

LINEAR: dict[str, Any] = {"w": (6, 5), "b": (5,)}
GEMM: dict[str, Any] = {"w": (5, 6), "b": (5,)}
AROUND = "perm = [0, 2, 3, 1]", "perm = [0, 3, 1, 2]"
GELU = "d = Div(n, q) e = Erf(d) f = Add(e, one) h = Mul(n, f) g = Mul(h, half)"
SCALARS = {"q": np.float32(1.414), "one": np.float32(1), "half": np.float32(0.5)}


def text(shape: str, rank: int, body: str, **constants: Any) -> ir.Model:
    return graph(f"float[{shape}] x", f"float[{','.join('abcdef'[:rank])}] y", body, **constants)


def wide(shape: str, rank: int) -> ir.Model:
    return text(shape, rank, "m = MatMul(x, w) y = Add(m, b)", **LINEAR)


# name: (model, the operators of the other form, those of the way back)
TO_CONV: dict[str, tuple[ir.Model, str, str]] = {
    "tokens": (wide("N,L,6", 3), "Transpose Conv Transpose", "MatMul Add"),
    "rows": (wide("N,6", 2), "Reshape Conv Reshape", "MatMul Add"),
    "channels last": (wide("N,H,W,6", 4), "Transpose Conv Transpose", "MatMul Add"),
    "video": (wide("N,T,H,W,6", 5), "Transpose Conv Transpose", "MatMul Add"),
    "Gemm": (text("N,6", 2, "y = Gemm<transB = 1>(x, w, b)", **GEMM), "Reshape Conv Reshape", "MatMul Add"),
    "Gemm, beta": (text("N,6", 2, "y = Gemm<transB = 1, beta = 2.0>(x, w, b)", **GEMM), "Reshape Conv Reshape", "MatMul Add"),
    "weight first": (
        text("N,6,L", 3, "m = MatMul(w, x) y = Add(m, b)", w=(5, 6), b=(5, 1)), "Conv", "Transpose MatMul Add Transpose",
    ),
    "turned": (
        text("N,6,H,W", 4, f"t = Transpose<{AROUND[0]}>(x) m = MatMul(t, w) n = Add(m, b) y = Transpose<{AROUND[1]}>(n)",
             **LINEAR),
        "Conv", "Transpose MatMul Add Transpose",
    ),
    "image to tokens": (
        text("N,6,H,W", 3, "r = Reshape(x, s) t = Transpose<perm = [0, 2, 1]>(r) m = MatMul(t, w) y = Add(m, b)",
             s=ints(0, 0, -1), **LINEAR),
        "Conv Reshape Transpose", "Transpose Reshape MatMul Add",
    ),
    "heads": (
        text("N,4,L,3", 3, "t = Transpose<perm = [0, 2, 1, 3]>(x) r = Reshape(t, s) y = MatMul(r, w)",
             s=ints(0, 0, 12), w=(12, 5)),
        "Transpose Reshape Conv Transpose", "Transpose Reshape MatMul",
    ),
    "windows": (
        text("N,4,6,6", 3, "r = Reshape(x, s) t = Transpose<perm = [0, 1, 3, 2, 4, 5]>(r) v = Reshape(t, e) y = MatMul(v, w)",
             s=ints(-1, 2, 2, 3, 2, 6), e=ints(-1, 4, 6), w=(6, 5)),
        "Reshape Transpose Reshape Transpose Conv Transpose", "Reshape Transpose Reshape MatMul",
    ),
    "pooled": (
        text("N,6,H,W", 2, "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm<transB = 1>(f, w, b)", **GEMM),
        "GlobalAveragePool Conv Reshape", "GlobalAveragePool Transpose Reshape MatMul Add",
    ),
    "perceptron": (
        text("N,L,6", 3, f"m = MatMul(x, w) n = Add(m, b) {GELU} o = MatMul(g, v) y = Add(o, c)",
             v=(5, 6), c=(6,), **LINEAR, **SCALARS),
        "Transpose Conv Div Erf Add Mul Mul Conv Transpose", "MatMul Add Div Erf Add Mul Mul MatMul Add",
    ),
    "one tensor, two projections": (
        text("N,L,6", 3, "n = Relu(x) k = MatMul(n, w) q = MatMul(n, v) y = Mul(k, q)", w=(6, 5), v=(6, 5)),
        "Relu Transpose Conv Transpose Conv Transpose Mul", "Relu MatMul MatMul Mul",
    ),
}  # fmt: skip
TO_MATMUL: dict[str, tuple[ir.Model, str, str]] = {
    "image": (conv("kernel_shape = [1, 1]", (5, 3, 1, 1)), "Transpose MatMul Add Transpose", "Conv"),
    "stride": (conv("strides = [2, 3]", (5, 3, 1, 1), "float[N,3,7,9] x"), "Slice Transpose MatMul Add Transpose", "Conv"),
    "stride, dynamic": (conv("strides = [2, 2]", (5, 3, 1, 1)), "Slice Transpose MatMul Add Transpose", "Conv"),
    "padded": (conv("pads = [1, 0, 1, 2]", (5, 3, 1, 1)), "Pad Transpose MatMul Add Transpose", "Pad Conv"),
    "length": (conv("kernel_shape = [1]", (5, 3, 1), "float[N,3,L] x"), "Transpose MatMul Add Transpose", "Conv"),
    "channels last": (conv_nhwc("kernel_shape = [1, 1]", (5, 3, 1, 1)), "MatMul Add", "Transpose Conv Transpose"),
    "two": (
        text("N,3,H,W", 4, "c = Conv(x, w) r = Clip(c, low, high) y = Conv(r, v)", w=(5, 3, 1, 1), v=(4, 5, 1, 1),
             low=np.float32(0), high=np.float32(6)),
        "Transpose MatMul Clip MatMul Transpose", "Conv Clip Conv",
    ),
}  # fmt: skip


def proving(model: ir.Model, to: str, **more: Any) -> Rewrite:
    return rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False), **more)


def assert_there_and_back(model: ir.Model, to: str, back: str, there: str, home: str) -> None:
    result = proving(model, to, pointwise=True)
    assert result.verdict is Verdict.PROVED, result.reason
    assert " ".join(ops(result.model)) == there
    again = proving(result.model, back, pointwise=True)
    assert again.verdict is Verdict.PROVED and " ".join(ops(again.model)) == home, again.reason
    third = proving(again.model, to, pointwise=True).model
    weights = [{v.const_value.numpy().tobytes() for v in m.graph.initializers.values()} for m in (result.model, third)]  # type: ignore[union-attr]
    assert weights[0] == weights[1], "the weight comes back bit for bit"


@pytest.mark.parametrize("name", TO_CONV)
def test_a_projection_becomes_a_conv_and_comes_back(name: str) -> None:
    model, there, home = TO_CONV[name]
    assert_there_and_back(model, "conv", "matmul", there, home)


@pytest.mark.parametrize("name", TO_MATMUL)
def test_a_pointwise_conv_becomes_a_matmul_and_comes_back(name: str) -> None:
    model, there, home = TO_MATMUL[name]
    assert_there_and_back(model, "matmul", "conv", there, home)


def test_they_are_left_alone_where_nobody_asks() -> None:
    model, _, _ = TO_CONV["tokens"]
    assert not rewrite(model, "conv").changed
    assert prepared(model).analysis.sites == ()
    with pytest.raises(UsageError, match="--pointwise is for --to conv, matmul or fastest: a projection is no unfold"):
        rewrite(model, "unfold", pointwise=True)


def test_one_of_two_by_its_name() -> None:
    model, _, _ = TO_CONV["perceptron"]
    result = proving(model, "conv", pointwise=True, sites=["y"])
    assert [applied.site.output.name for applied in result.applied] == ["y"] and ops(result.model).count("MatMul") == 1


REFUSED = {
    "a batch of matrices": (
        text("2,L,6", 3, "y = MatMul(x, w)", w=(2, 6, 5)),
        "it multiplies by 2 matrices, one for each element of a batch, and a Conv has one weight for all",
    ),
    "groups": (
        conv("group = 3", (6, 1, 1, 1)),
        "as one MatMul its 3 groups would be mostly zeros; it is rewritten only with --site or --ordinary",
    ),
    "bias by row": (
        text("2,4,6", 3, "r = Reshape(x, s) y0 = Gemm(r, w, b) y = Reshape(y0, t)",
             s=ints(8, 6), t=ints(2, 4, 5), w=(6, 5), b=(8, 1)),
        "the bias differs between the rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_a_reason(name: str) -> None:
    model, reason = REFUSED[name]
    result = rewrite(model, "matmul" if name == "groups" else "conv", pointwise=True)
    assert not result.changed and [refusal.reason for refusal in result.refusals] == [reason]
    assert result.refusals[0].node


def test_what_is_needed_elsewhere_stays_beside_the_conv() -> None:
    body = f"t = Transpose<{AROUND[0]}>(x) m = MatMul(t, w) y = Add(m, b)"
    model = graph("float[N,6,H,W] x", "float[a,b,c,d] y, float[e,f,g,h] t", body, **LINEAR)
    result = proving(model, "conv", pointwise=True)
    assert result.verdict is Verdict.PROVED and ops(result.model) == ["Transpose", "Conv", "Transpose"]


@pytest.mark.parametrize("to", ["conv", "matmul"])
def test_a_wrong_weight_is_seen(to: str) -> None:
    """Two rows of the written weight change places."""
    model = TO_CONV["tokens"][0] if to == "conv" else TO_MATMUL["image"][0]
    result = rewrite(model, to, pointwise=True)
    weight = next(v for name, v in result.model.graph.initializers.items() if name.endswith("/weight"))
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    array[[0, 1]] = array[[1, 0]]
    weight.const_value = ir.tensor(array, name=weight.name)
    assert compare(model, result.model, graphs=False).verdict is Verdict.DIFFERENT


def test_a_transpose_is_taken_out_only_where_the_order_is_undone() -> None:
    """The one behind turns the other way; and of one that is undone the tensor in between is needed."""
    body = "t = Transpose<perm = [1, 2, 0]>(x) r = Relu(t) u = Transpose<perm = [{}]>(r) y = Neg(u)"
    for perm, outputs, left in (("1, 2, 0", "", 2), ("2, 0, 1", "", 0), ("2, 0, 1", ", float[d,e,f] r", 2)):
        model = graph("float[N,4,4] x", f"float[a,b,c] y{outputs}", body.format(perm))
        changed = model.clone()
        cancel_transposes(list(changed.graph))
        sweep(changed)
        assert ops(changed).count("Transpose") == left
        assert compare(model, changed, graphs=False).verdict.meets(Verdict.PROVED)


def test_a_transpose_that_is_missing_is_seen_by_the_check() -> None:
    model = graph("float[N,4,4] x", "float[a,b,c] y", "t = Transpose<perm = [0, 2, 1]>(x) y = Relu(t)")
    wrong = graph("float[N,4,4] x", "float[a,b,c] y", "y = Relu(x)")
    assert compare(model, wrong, graphs=False).verdict is Verdict.DIFFERENT


def test_the_fastest_form_is_measured() -> None:
    model, _, _ = TO_CONV["tokens"]
    result = fastest(model, lambda models: [[1.0 / (1 + at)] * 8 for at in range(len(models))], pointwise=True)
    assert result.changed and [row["form"] for row in result.measured[0]["forms"]] == ["matmul", "conv"]


def test_a_rank_limit_is_kept_or_told() -> None:
    kept = proving(TO_CONV["heads"][0], "conv", pointwise=True, max_rank=4)
    assert kept.verdict is Verdict.PROVED and kept.applied[0].to == "conv"
    video = TO_CONV["video"][0]
    result = rewrite(video, "conv", pointwise=True, max_rank=4)
    assert not result.changed
    assert "Transpose would give a tensor of 5 dims, 4 are allowed" in [refusal.reason for refusal in result.refusals]


def test_numbers_agree_in_onnxruntime() -> None:
    for model, there, _ in (TO_CONV["image to tokens"], TO_CONV["perceptron"]):
        result = proving(model, "conv", pointwise=True)
        sizes = {"N": 2, "L": 3, "H": 3, "W": 4}
        for a, b in zip(run(model, 0, sizes), run(result.model, 0, sizes), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=there)


ORDINARY = {
    name: conv(f"kernel_shape = [3, 3], {given}", (6, 3 // groups, 3, 3), "float[N,3,9,9] x")
    for name, given, groups in (
        ("overlapping", "strides = [2, 2]", 1),
        ("padded", "pads = [1, 1, 1, 1]", 1),
        ("dilated", "dilations = [2, 2]", 1),
        ("grouped", "group = 3", 3),
    )
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_conv_is_rewritten_on_request(name: str) -> None:
    model = ORDINARY[name]
    assert [r.reason for r in rewrite(model, "unfold").refusals] == [
        "an ordinary Conv is rewritten only with --site or --ordinary"
    ]
    result = proving(model, "unfold", ordinary=True)
    assert result.verdict is Verdict.PROVED and "Conv" not in ops(result.model)
    back = proving(result.model, "conv", ordinary=True)
    assert back.verdict is Verdict.PROVED and ops(back.model) == ["Conv"]
    assert back.model.graph[0].attributes["group"].as_int() == (3 if name == "grouped" else 1)


def test_a_projection_to_pixels_is_one_site_and_no_more() -> None:
    """A MatMul to patches of pixels is an un-embedding, also where pointwise projections are asked for."""
    body = "p = MatMul(x, w) r = Reshape(p, s) t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)"
    model = text("N,6,5", 4, body, w=(5, 48), s=ints(-1, 2, 3, 4, 4, 3), o=ints(-1, 3, 8, 12))
    assert [site.name for site in prepared(model.clone(), pointwise=True).analysis.everything] == ["MatMul(p)"]
    for to in ("conv", "matmul"):
        assert not rewrite(model, to, check=compare, pointwise=True).applied
    result = rewrite(model, "conv-transpose", check=compare)
    assert result.verdict is Verdict.PROVED and "ConvTranspose" in ops(result.model)
