"""The rewriter: every form of every site, proved by congruence or run, and what is left alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import PATCHES, TOKENS, conv, dynamic, graph, ints, ops, patchify, projected, proved, run
from patch_table import Case, cases

from graphcheck.errors import UsageError
from graphcheck.passes import PatchEmbedding
from graphcheck.patches.analyze import find
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.checks import structural_checks
from graphcheck.rewriting.forms import FORMS
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare

CASES = cases()
# Not the same classes for congruence: rows in another order, groups told as zeros, the weight as first operand.
RUN = {"windows across", "grouped", "block-diagonal", "weight first"}
WEIGHT_FIRST = {"quantized by channel"}  # in the result
# Without a kernel in onnxruntime's CPU provider the proof stands alone; bfloat16 Conv is not congruent to MatMul.
NO_KERNEL = {"bfloat16", "double"}
ILLEGAL = {
    "unfold": {"flattened": "its patches are flattened already, so there is nothing to unfold"},
    "space-to-depth": {
        "1-d": "SpaceToDepth has two spatial axes",
        "grouped": "SpaceToDepth mixes the channels of groups",
        "overlapping": "SpaceToDepth needs square windows side by side (kernel equal to stride, no dilation)",
    },
}


def rewritten(model: ir.Model, to: str, *, run: bool = True) -> Rewrite:
    """The rewrite of the only site, ordinary or not."""
    return rewrite(model, to, sites=[find(model).sites[0].name], run=run)


def deviation(a: ir.Model, b: ir.Model, sizes: dict[str, int]) -> float:
    """The largest difference of the outputs in onnxruntime, relative to the largest magnitude."""
    pairs = zip(run(a, 1, sizes), run(b, 1, sizes), strict=True)
    return max(float(np.abs(x.astype(np.float64) - y).max() / np.abs(x).max()) for x, y in pairs)


def assert_same(name: str, case: Case, result: ir.Model) -> None:
    model, sizes, *_ = case
    if name in WEIGHT_FIRST:
        assert compare(model, result, graphs=False).verdict.meets(Verdict.PROVED)
    elif name not in RUN | {"bfloat16"}:
        assert proved(model, result, *sizes)
    if name not in NO_KERNEL:
        assert deviation(model, result, dict(sizes[-1])) < (5e-3 if name == "float16" else 1e-5)


@pytest.mark.parametrize("to", FORMS)
@pytest.mark.parametrize("name", CASES)
def test_every_site_reaches_every_legal_form(name: str, to: str) -> None:
    model, form = CASES[name][0], CASES[name][2]
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result = rewritten(model, to, run=name not in NO_KERNEL)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the original was touched"
    site = find(model).sites[0]
    reason = FORMS[to].why_not(site)
    takes_the_pad = to == "conv" and "Pad" in ops(model)
    if (form == to and not takes_the_pad) or reason is not None:
        assert not result.changed
        assert [r.reason for r in result.refusals] == ([] if form == to else [reason])
        return
    assert result.changed, result.reason
    assert [c.name for c in result.checks if c.ok is False] == []
    assert_same(name, CASES[name], result.model)
    assert all(RULE in n.metadata_props for n in result.model.graph if n not in model.graph and n.op_type == "Conv")


@pytest.mark.parametrize("to", ILLEGAL)
def test_illegal_forms_are_refused_with_the_reason(to: str) -> None:
    for name, reason in ILLEGAL[to].items():
        assert [r.reason for r in rewritten(CASES[name][0], to).refusals] == [reason]


@pytest.mark.parametrize("name", ["nchw", "nhwc", "1-d", "video", "frames", "dynamic", "einsum", "gemm, left", "focus"])
def test_conv_is_one_conv_and_back_is_one_matmul(name: str) -> None:
    there = rewrite(CASES[name][0], "conv").model
    assert ops(there).count("Conv") == 1
    assert not {"MatMul", "Gather", "Slice", "Gemm", "Einsum", "Concat"} & set(ops(there))
    assert max(len(v.shape) for n in there.graph for v in n.outputs if v.shape is not None) <= 5
    back = rewritten(there, "matmul").model
    assert ops(back).count("MatMul") == 1 and "Conv" not in ops(back)
    assert proved(CASES[name][0], back, *CASES[name][1])


@pytest.mark.parametrize("to", ["conv", "matmul"])
def test_a_pad_and_a_conv_of_any_size_are_written_anew(to: str) -> None:
    body = "p = Pad(x, k) y = Conv<strides = [4, 4]>(p, w)"
    model = graph("float[N,3,H,W] x", "float[n,c,h,w] y", body, k=ints(0, 0, 0, 0, 0, 0, 1, 1), w=(5, 3, 4, 4))
    result = rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False))
    assert result.verdict is Verdict.PROVED and ("Pad" in ops(result.model)) is (to == "matmul")
    assert not rewrite(result.model, "conv").changed or to == "matmul"


@pytest.mark.parametrize("to", ["matmul", "unfold"])
def test_an_ordinary_conv_wider_than_its_image_is_written_anew(to: str) -> None:
    for size, group, shape in ((2, 1, (5, 4, 7, 7)), (2, 4, (4, 1, 7, 7)), (7, 4, (4, 1, 7, 7))):
        body = f"y = Conv<pads = [3, 3, 3, 3], group = {group}>(x, w)"
        model = graph(f"float[N,4,{size},{size}] x", "float[n,c,h,w] y", body, w=shape)
        assert rewrite(model, to).refusals != ()  # it is not asked for
        result = rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False), ordinary=True)
        assert result.verdict is Verdict.PROVED and "Conv" not in ops(result.model)


PATCH = """sh = Shape(x) n = Gather<axis = 0>(sh, i0) h = Gather<axis = 0>(sh, i2) v = Gather<axis = 0>(sh, i3)
    gh = Div(h, p) gw = Div(v, p) s1 = Concat<axis = 0>(n, c, gh, p, gw, p) r = Reshape(x, s1)
    t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) s2 = Concat<axis = 0>(n, m1, k) m = Reshape(t, s2) y = MatMul(m, w)"""


@pytest.mark.parametrize("patch", [16, 32, 14, 40])
def test_patches_of_any_size_that_they_divide(patch: int) -> None:
    """The original takes multiples of the patch alone, and the proof is at such sizes."""
    numbers = {"i0": 0, "i2": 2, "i3": 3, "p": patch, "c": 1, "k": patch**2, "m1": -1}
    given = {name: ints(value) for name, value in numbers.items()}
    model = graph("float[N,1,H,W] x", "float[a,b,c] y", PATCH, w=(patch**2, 5), **given)
    assert [axis.stride for axis in find(model).sites[0].spatial] == [patch, patch]
    result = rewrite(model, "conv", check=lambda a, b: compare(a, b, graphs=False, run=False), run=False)
    assert result.changed and result.verdict is Verdict.PROVED


def test_a_form_that_onnxruntime_cannot_run_needs_leave() -> None:
    result = rewrite(CASES["double"][0], "conv")
    (refusal,) = result.refusals
    assert not result.changed and refusal.reason.startswith("onnxruntime runs the original and refuses the result")
    assert "--no-run" in refusal.reason
    assert rewrite(CASES["double"][0], "conv", run=False).changed


@pytest.mark.parametrize(("name", "run", "told"), [
    ("bfloat16", True, "; neither was run: onnxruntime loads neither"),
    ("double", False, "; neither was run in onnxruntime, as asked"),
])  # fmt: skip
def test_that_nothing_could_be_run_is_said(name: str, run: bool, told: str) -> None:
    result = rewrite(CASES[name][0], "conv", check=lambda a, b: comparison(Verdict.PROVED), run=run)
    assert result.changed and result.reason.startswith("because" + told)


def test_the_weight_is_permuted_bit_for_bit() -> None:
    model = CASES["nchw"][0]
    result = rewrite(model, "conv").model
    weight = next(v.const_value.numpy() for v in result.graph.initializers.values() if len(v.shape) == 4)
    old = model.graph.initializers["w"].const_value.numpy()
    assert weight.dtype == old.dtype
    assert np.array_equal(weight.reshape(5, -1).T.view(np.uint32), old.view(np.uint32))


def test_a_quantized_weight_stays_quantized() -> None:
    for name in ("quantized", "quantized by channel"):
        result = rewrite(CASES[name][0], "conv").model
        stored = [v.const_value.numpy() for v in result.graph.initializers.values() if v.dtype == ir.DataType.INT8]
        assert [a.shape for a in stored] == [(5, 3, 4, 4)]
        assert ops(result) == ["DequantizeLinear", "Conv", "Reshape", "Transpose"]


def test_a_wrong_rewrite_is_not_proved() -> None:
    model = CASES["nchw"][0]
    result = rewrite(model, "conv").model
    assert proved(model, result, {"N": 2})
    for value in result.graph.initializers.values():
        if len(value.shape) == 4:
            wrong = value.const_value.numpy().copy()
            wrong[[0, 1]] = wrong[[1, 0]]
            value.const_value = ir.tensor(wrong, name=value.name)
    assert not proved(model, result, {"N": 2})
    assert deviation(model, result, {"N": 2}) > 0.1


def test_transposes_around_a_channels_last_conv_are_cancelled() -> None:
    model = CASES["cropped"][0]
    nhwc = graph(
        "float[N,8,8,3] x",
        "float[a,b,c,d] y",
        "t = Transpose<perm = [0, 3, 1, 2]>(x) c = Conv<strides = [4, 4]>(t, w) y = Transpose<perm = [0, 2, 3, 1]>(c)",
        w=(5, 3, 4, 4),
    )
    assert ops(rewrite(nhwc, "matmul").model) == ["Reshape", "Transpose", "Reshape", "MatMul"]
    assert ops(rewrite(model, "matmul").model) == [
        "Slice",
        "Reshape",
        "Transpose",
        "Reshape",
        "MatMul",
        "Add",
        "Transpose",
    ]


def test_names_metadata_and_symbolic_dims_are_kept() -> None:
    model = dynamic()
    model.metadata_props["author"] = "someone"
    result = rewrite(model, "conv").model
    assert [v.name for v in (*result.graph.inputs, *result.graph.outputs)] == ["x", "y"]
    assert result.metadata_props == {"author": "someone"}
    assert [d if isinstance(d, int) else d.value for d in result.graph.inputs[0].shape] == ["N", 3, "H", "W"]
    assert ops(result) == ["Conv", "Reshape", "Transpose"]
    assert len(result.graph.initializers) == 3  # weight, bias, shape: what the old form needed is gone


THERE = "1 site has the form already"


def test_the_form_that_is_there_is_left_alone() -> None:
    result = rewrite(CASES["nchw"][0], "matmul")
    assert (result.changed, result.model is CASES["nchw"][0], result.reason) == (False, True, f"nothing to rewrite: {THERE}")


def test_an_ordinary_convolution_is_rewritten_when_named_only() -> None:
    model = conv("strides = [2, 2]", (5, 3, 4, 4))
    result = rewrite(model, "matmul")
    assert [r.reason for r in result.refusals] == ["an ordinary Conv is rewritten only with --site or --ordinary"]
    assert rewrite(model, "matmul", sites=["Conv(y)"]).changed
    assert rewrite(model, "matmul", sites=["y"]).changed


def test_groups_become_a_matmul_when_named_only() -> None:
    (reason,) = [r.reason for r in rewrite(CASES["grouped"][0], "matmul").refusals]
    assert reason == "as one MatMul its 2 groups would be mostly zeros; it is rewritten only with --site or --ordinary"
    assert rewritten(CASES["grouped"][0], "matmul").changed


def test_sites_and_rewrites_are_printed_in_a_line() -> None:
    model = CASES["nchw"][0]
    assert repr(find(model).sites[0]) == (
        "Site(form='matmul', pattern='b c (h p1) (w p2) -> b (h w) (c p1 p2)', layout='NCHW', kernel_shape=(4, 4), groups=1, "
        "blocked=None, input='x', output='y', node='MatMul(p)')"
    )
    told = repr(rewrite(model, "conv"))
    assert told.startswith("Rewrite(to='conv', changed=True, verdict=None, reason=") and len(told) < 600


def test_unknown_forms_and_sites_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="the forms are conv, matmul"):
        rewrite(CASES["nchw"][0], "fold")
    with pytest.raises(UsageError, match=r"the sites are MatMul\(p\)"):
        rewrite(CASES["nchw"][0], "conv", sites=["elsewhere"])


def test_blocked_sites_are_left_alone_with_the_reason() -> None:
    model = projected("y = MatMul(m, w) z = Relu(m)", outputs=f"{TOKENS}, float[d,e,f] z", w=(48, 5))
    result = rewrite(model, "conv")
    assert not result.changed
    reason = (
        "its inner tensor m is used elsewhere, so what moves it stays; another form beside that is written where it is "
        "named or --to fastest measures a gain"
    )
    assert [(r.reason, r.node) for r in result.refusals] == [(reason, "Relu(z)")]


@pytest.mark.parametrize("needed", ["m", "z"], ids=["graph output", "used elsewhere"])
def test_a_blocked_site_gets_a_conv_beside_it_when_named(needed: str) -> None:
    body = "y = MatMul(m, w)" + (" z = Relu(m)" if needed == "z" else "")
    model = projected(body, outputs=f"{TOKENS}, float[d,e,f] {needed}", w=(48, 5))
    result = rewrite(model, "conv", sites=["MatMul(y)"])
    assert ops(result.model)[:6] == ["Reshape", "Transpose", "Reshape", "Conv", "Reshape", "Transpose"]
    assert proved(model, result.model, {"N": 2})


ENDS = {
    "a feature map": ("c = Conv<strides = [4, 4]>(x, v, b) f = Reshape(c, s) y = Transpose<perm = [0, 2, 1]>(f)", "c", "c"),
    "with its bias": ("p = MatMul(m, w) c = Add(p, b) y = Transpose<perm = [0, 2, 1]>(c)", "c", "c"),
    "without its bias": ("c = MatMul(m, w) a = Add(c, b) y = Transpose<perm = [0, 2, 1]>(a)", "c", "c"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_site_ends_where_its_result_is_needed_elsewhere(name: str) -> None:
    body, needed, end = ENDS[name]
    weights = {"v": (5, 3, 4, 4), "s": ints(0, 5, -1)} if "v" in body.split("Conv")[-1] else {"w": (48, 5)}
    rank = "g,h,i,j" if "Conv" in body else "g,h,i"
    model = projected(body, outputs=f"{TOKENS}, float[{rank}] {needed}", b=(5,), **weights)
    (site,) = find(model).sites
    assert (site.output.name, site.blocked) == (end, None)
    to = "matmul" if "Conv" in body else "conv"
    result = rewrite(model, to)
    assert result.changed and proved(model, result.model, {"N": 2})


def test_a_layernorm_between_leaves_the_model_unchanged() -> None:
    model = projected("l = LayerNormalization<axis = -1>(m, g) y = MatMul(l, w)", g=(48,), w=(48, 5))
    result = rewrite(model, "conv")
    assert not result.changed
    assert [r.node for r in result.refusals] == ["LayerNormalization(l)"]


def test_two_projections_of_the_same_patches_become_two_convs() -> None:
    outputs = f"{TOKENS}, float[d,e,f] z"
    model = projected("y = MatMul(m, w) z = MatMul(m, v)", outputs=outputs, w=(48, 5), v=(48, 7))
    result = rewrite(model, "conv").model
    assert sorted(ops(result)) == ["Conv", "Conv", "Reshape", "Reshape", "Transpose", "Transpose"]
    assert proved(model, result, {"N": 2})


def test_a_site_behind_a_site_is_rewritten_too() -> None:
    body = f"""{PATCHES} p = MatMul(m, w) u = Reshape(p, grid) v = Reshape(u, halves)
        s = Transpose<perm = [0, 1, 3, 2, 4, 5]>(v) f = Reshape(s, merged2) y = MatMul(f, w2)"""
    shapes = {
        "split": ints(-1, 3, 4, 4, 4, 4),
        "merged": ints(-1, 16, 48),
        "grid": ints(-1, 4, 4, 6),
        "halves": ints(-1, 2, 2, 2, 2, 6),
        "merged2": ints(-1, 4, 24),
    }
    model = graph("float[N,3,16,16] x", TOKENS, body, w=(48, 6), w2=(24, 5), **shapes)
    result = rewrite(model, "conv")
    assert len(result.applied) == 2 and ops(result.model).count("Conv") == 2
    assert proved(model, result.model, {"N": 2})


@pytest.mark.parametrize(("opset", "reason"), [(18, "Conv of opset 18 takes no bfloat16"), (22, None)])
def test_an_opset_without_the_operator_is_a_refusal(opset: int, reason: str | None) -> None:
    shape, split, merged = ["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 6, 48]
    model = patchify(shape, split, [0, 2, 4, 1, 3, 5], merged, kind="bfloat16", opset=opset)
    result = rewrite(model, "conv")
    assert [r.reason for r in result.refusals] == ([reason] if reason else [])
    assert result.changed is (reason is None)


FOUR_D = patchify(["N", *[4] * 4], [-1, *[2] * 8], [0, 1, 3, 5, 7, 2, 4, 6, 8], [-1, 16, 16])
UNPADDED = "strides = [4, 4], pads = [1, 1, 1, 1]"
CANNOT = {
    "padding": (conv(UNPADDED, (5, 3, 4, 4)), "space-to-depth", "SpaceToDepth has no padding"),
    "four spatial axes": (FOUR_D, "conv", "it has 4 spatial axes, and runtimes have Conv for three at most"),
    "an activation of its own": (
        conv('strides = [4, 4], activation = "HardSigmoid"', (5, 3, 4, 4), op="com.microsoft.FusedConv"),
        "matmul",
        "its activation HardSigmoid has no plain counterpart here",
    ),
    "an old opset": (
        graph("float[2,3,9,9] x", "float[a,b,c,d] y", "y = Conv<strides = [4, 4]>(x, w)", opset=9, w=(5, 3, 4, 4)),
        "matmul",
        "opset 9 lacks the Slice that is needed (opset 10)",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_a_form_cannot_be_is_refused(name: str) -> None:
    model, to, reason = CANNOT[name]
    result = rewritten(model, to, run=name != "an old opset")
    assert not result.changed
    assert [r.reason for r in result.refusals] == [reason]


def comparison(verdict: Verdict) -> Comparison:
    return Comparison(verdict, "because", {})


@pytest.mark.parametrize("verdict", list(Verdict))
def test_nothing_unproved_is_handed_out(verdict: Verdict) -> None:
    seen: list[tuple[ir.Model, ir.Model]] = []

    def check(a: ir.Model, b: ir.Model) -> Comparison:
        seen.append((a, b))
        return comparison(verdict)

    model = CASES["nchw"][0]
    result = rewrite(model, "conv", check=check)
    assert seen[0][0] is model and ops(seen[0][1])[0] == "Conv"
    assert result.changed is (verdict in (Verdict.IDENTICAL, Verdict.PROVED))
    data = result.to_json()
    told = Verdict.UNDECIDED if verdict is Verdict.WITHIN_ROUNDING else verdict  # nothing was folded: it needs a proof
    assert (data["schema"], data["verdict"], data["reason"]) == ("graphcheck/rewrite/1", str(told), "because")
    assert (data["sites"][0]["from"], data["sites"][0]["to"]) == ("matmul", "conv")
    assert max(row["rank"] for row in data["sites"][0]["before"]) == 6
    assert [row["op_type"] for row in data["sites"][0]["after"]] == ["Conv", "Reshape", "Transpose"]


def test_structural_checks_fail_on_something_wrong() -> None:
    model = CASES["nchw"][0]
    good = rewrite(model, "conv").model
    assert [c.ok for c in structural_checks(model, good)] == [True] * 4
    renamed = good.clone()
    renamed.graph.outputs[0].name = "z"
    assert [c.name for c in structural_checks(model, renamed) if c.ok is False] == ["interface"]
    slid = good.clone()
    node = next(n for n in slid.graph if n.op_type == "Conv")
    node.attributes["strides"] = ir.AttrInt64s("strides", [2, 2])
    assert "window map" in [c.name for c in structural_checks(model, slid) if c.ok is False]
    broken = good.clone()
    next(n for n in broken.graph if n.op_type == "Transpose").attributes["perm"] = ir.AttrInt64s("perm", [0, 1])
    assert "checker" in {c.name for c in structural_checks(model, broken) if c.ok is False}


def test_the_pass_clones_and_chains() -> None:
    model = CASES["nchw"][0]
    steps = (PatchEmbedding(form, check=None) for form in ("conv", "space-to-depth", "matmul"))
    chain = ir.passes.Sequential(*steps)
    result = chain(model)
    assert result.modified and ops(result.model) == ["Reshape", "Transpose", "Reshape", "MatMul", "Add"]
    assert proved(model, result.model, {"N": 2})


def test_the_pass_gives_a_clone_back_when_the_proof_fails() -> None:
    model = CASES["nchw"][0]
    rule = PatchEmbedding("conv", check=lambda a, b: comparison(Verdict.UNDECIDED))
    result = rule(model)
    assert not result.modified and ops(result.model) == ops(model)
    assert rule.result is not None and rule.result.verdict is Verdict.UNDECIDED


def test_the_pass_ensures_validity() -> None:
    model = rewrite(CASES["nchw"][0], "conv").model
    PatchEmbedding("conv").ensures(model)
    next(n for n in model.graph if n.op_type == "Transpose").attributes["perm"] = ir.AttrInt64s("perm", [0, 1])
    with pytest.raises(ir.passes.PostconditionError):
        PatchEmbedding("conv").ensures(model)


def test_a_rewrite_record_is_frozen() -> None:
    result = rewrite(CASES["nchw"][0], "conv")
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.to = "matmul"  # type: ignore[misc]
