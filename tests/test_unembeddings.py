"""Un-embeddings, projections to patches of pixels: recognised, written in every legal form, proved, back bit for bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import graph, ints, ops, proved, run
from unpatch_table import IMAGE, MAPS, Case, cases, near_misses, plain, unpatchify

import graphcheck
from graphcheck.cli import main
from graphcheck.options import RewriteOptions
from graphcheck.patches.analyze import find
from graphcheck.patches.preparing import prepared
from graphcheck.patches.site import Unembedding
from graphcheck.rewriting import rewrite as rewriting
from graphcheck.rewriting.fastest import fastest
from graphcheck.rewriting.forms import UNEMBEDDED
from graphcheck.rewriting.proving import judge
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict

CASES, MISSES, PLAIN = cases(), near_misses(), plain()


def prove(a: ir.Model, b: ir.Model) -> Comparison:
    return graphcheck.compare(a, b, graphs=False)


def is_proved(a: ir.Model, b: ir.Model, case: Case) -> bool:
    return proved(a, b, *case[1]) or prove(a, b).verdict is Verdict.PROVED


def assert_same(case: Case, result: ir.Model) -> None:
    """Proved, and within rounding of the original in onnxruntime."""
    model, sizes, *_ = case
    assert is_proved(model, result, case)
    for a, b in zip(run(model, 1, sizes[-1]), run(result, 1, sizes[-1]), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


@pytest.mark.parametrize("name", CASES)
def test_an_unembedding_is_recognised(name: str) -> None:
    model, _, form, pattern, layout, kernel, sizes = CASES[name]
    analysis = find(model)
    assert (analysis.sites, analysis.refusals) == ((), ())
    (site,) = analysis.unembeddings
    row = site.to_json()
    assert (row["form"], row["pattern"] if pattern else pattern, row["layout"]) == (form, pattern, layout)
    assert (row["kernel_shape"], row["strides"], row["pads"]) == (kernel, kernel, [0] * (2 * len(kernel)))
    assert [row["in_channels"], row["out_channels"], row["groups"]] == sizes
    assert (row["input"], row["blocked"], row["ordinary"]) == ("x", None, False)
    assert row["output"] == ("m" if name.startswith("swin") else "y")


@pytest.mark.parametrize("to", UNEMBEDDED)
@pytest.mark.parametrize("name", CASES)
def test_every_unembedding_reaches_every_legal_form_and_comes_back(name: str, to: str) -> None:
    model, _, form, *_ = CASES[name]
    (site,) = find(model).unembeddings
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result = rewrite(model, to, sites=[site.name])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before, "the original was touched"
    reason = UNEMBEDDED[to].why_not(site)
    if form == to or reason is not None:
        assert not result.changed
        assert [r.reason for r in result.refusals] == ([] if form == to else [reason])
        return
    assert result.changed, result.reason
    assert_same(CASES[name], result.model)
    (there,) = find(result.model).unembeddings
    assert (there.form, there.geometry()) == (to, site.geometry())
    assert weight_of(there).tobytes() == weight_of(site).tobytes()
    if form in UNEMBEDDED:
        back = rewrite(result.model, form, sites=[there.name])
        assert back.changed and is_proved(model, back.model, CASES[name])
        again = find(back.model).unembeddings[0]
        assert again.form == form and weight_of(again).tobytes() == weight_of(site).tobytes()
        assert bias_of(again) == bias_of(site)


def weight_of(site: Unembedding) -> np.ndarray:
    """[features, channels, *kernel], zeros between groups."""
    index = site.weight_index.reshape(site.groups, -1, *site.weight_index.shape[1:])
    dense = np.zeros((site.features, site.groups, *index.shape[2:]), site.weight.dtype)
    for g, rows in enumerate(index):
        at = slice(g * len(rows), (g + 1) * len(rows))
        dense[at, g] = np.where(rows < 0, 0, site.weight.reshape(-1)[rows])
    return dense.reshape(site.features, site.channels, *index.shape[3:])


def bias_of(site: Unembedding) -> bytes | None:
    return None if site.bias is None else site.bias.tobytes()


@pytest.mark.parametrize(("name", "to", "operators"), [
    ("dit", "depth-to-space", ["Transpose", "Reshape", "Conv", "DepthToSpace"]),
    ("bias by channel", "conv-transpose", ["Transpose", "Reshape", "ConvTranspose"]),
    ("mae, class token", "depth-to-space", ["Slice", "Transpose", "Reshape", "Conv", "DepthToSpace"]),
    ("from maps", "conv-transpose", ["ConvTranspose"]),
    ("from maps", "depth-to-space", ["Conv", "DepthToSpace"]),
    ("fold", "matmul", ["MatMul", "Reshape", "Transpose", "Reshape"]),
    ("transposed", "matmul", ["Transpose", "MatMul", "Add", "Reshape", "Transpose"]),
])  # fmt: skip
def test_a_form_has_no_node_more_than_it_needs(name: str, to: str, operators: list[str]) -> None:
    assert ops(rewrite(CASES[name][0], to).model)[: len(operators)] == operators


@pytest.mark.parametrize(("name", "to", "reason"), [
    ("dit", "conv-transpose", "its bias differs within the patch, and a ConvTranspose has one for each channel"),
    ("1-d", "depth-to-space", "DepthToSpace has two spatial axes"),
    ("transposed", "depth-to-space", "DepthToSpace needs square patches"),
    ("grouped", "depth-to-space", "DepthToSpace mixes the channels of groups"),
    ("grouped", "matmul", "as one MatMul its 2 groups would be mostly zeros; it is rewritten only with --site or --ordinary"),
])  # fmt: skip
def test_an_illegal_form_is_refused_with_the_reason(name: str, to: str, reason: str) -> None:
    result = rewrite(CASES[name][0], to)
    assert not result.changed and [r.reason for r in result.refusals] == [reason]


@pytest.mark.parametrize("name", MISSES)
def test_a_near_miss_is_refused_with_reason_and_node(name: str) -> None:
    model, reason, node = MISSES[name]
    analysis = find(model)
    assert analysis.unembeddings == ()
    assert [(r.reason, r.node) for r in analysis.refusals] == [(reason, node)]
    assert not any(rewrite(model, to).changed for to in UNEMBEDDED)


@pytest.mark.parametrize("name", PLAIN)
def test_of_a_plain_projection_nothing_is_said(name: str) -> None:
    analysis = find(PLAIN[name])
    assert (analysis.unembeddings, analysis.refusals) == ((), ())


BOTH = """r = Reshape(x, s) t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) m = Reshape(t, o) p = MatMul(m, w) g = Relu(p)
    q = MatMul(g, v) a = Reshape(q, s2) u = Transpose<perm = [0, 3, 1, 4, 2, 5]>(a) y = Reshape(u, o2)"""


def both() -> ir.Model:
    """An autoencoder in small: patch embedding, Relu, and the way back."""
    sizes = {
        "s": ints(-1, 3, 2, 4, 3, 4),
        "o": ints(-1, 6, 48),
        "s2": ints(-1, 2, 3, 3, 4, 4),
        "o2": ints(-1, 3, 8, 12),
    }
    return graph("float[N,3,8,12] x", IMAGE, BOTH, w=(48, 5), v=(5, 48), **sizes)


def test_matmul_takes_both_kinds_and_the_other_forms_their_own() -> None:
    model = both()
    assert [len(sites) for sites in (find(model).sites, find(model).unembeddings)] == [1, 1]
    conv = rewrite(model, "conv", check=prove)
    assert ([a.to for a in conv.applied], conv.refusals) == (["conv"], ())
    there = rewrite(conv.model, "conv-transpose", check=prove)
    assert ops(there.model).count("Conv") == ops(there.model).count("ConvTranspose") == 1 and there.changed
    assert "MatMul" not in ops(there.model)
    back = rewrite(there.model, "matmul", check=prove)
    assert [a.to for a in back.applied] == ["matmul", "matmul"] and back.verdict is Verdict.PROVED
    assert ops(back.model).count("MatMul") == 2 and proved(model, back.model, {"N": 2})
    named = rewrite(model, {"MatMul(p)": "conv", "MatMul(q)": "depth-to-space"}, check=prove)
    assert [a.to for a in named.applied] == ["conv", "depth-to-space"] and named.changed


def test_a_site_of_the_other_kind_is_refused_by_name() -> None:
    result = rewrite(both(), "conv", sites=["y"])
    theirs, ours = "conv-transpose, matmul or depth-to-space", "conv, matmul, unfold or space-to-depth"
    assert [r.reason for r in result.refusals] == [f"a patch un-embedding has no form conv: it may be {theirs}"]
    result = rewrite(both(), "conv-transpose", sites=["MatMul(p)"])
    assert [r.reason for r in result.refusals] == [f"a patch embedding has no form conv-transpose: it may be {ours}"]


@pytest.mark.parametrize("name", ["dit", "mae, class token", "espcn", "3-d", "swin, rows"])
def test_no_tensor_is_over_the_rank_limit(name: str) -> None:
    model = CASES[name][0]
    result = rewrite(model, "matmul", max_rank=4, check=prove)
    allowed = max(4, *(len(v.shape) for v in model.graph.outputs))
    assert all(len(v.shape) <= allowed for n in result.model.graph for v in n.outputs if v.shape is not None)
    assert result.changed or max(len(shape) for shape in find(model).unembeddings[0].tensors) <= 4


def test_the_fastest_form_is_one_of_its_own() -> None:
    def second(models: list[ir.Model]) -> list[list[float]]:
        return [[1.0] * 4 if at == 1 else [2.0] * 4 for at in range(len(models))]

    result = fastest(CASES["bias by channel"][0], second, check=prove)
    (row,) = result.measured
    assert [form["form"] for form in row["forms"]] == ["matmul", "conv-transpose", "depth-to-space"]
    assert row["chosen"] == "conv-transpose" and ops(result.model)[-1] == "ConvTranspose"


def also(model: ir.Model, name: str, rank: int) -> None:
    """Make a value an output too."""
    value = next(n.outputs[0] for n in model.graph if n.outputs[0].name == name)
    value.shape, value.dtype = ir.Shape([f"{name}{i}" for i in range(rank)]), ir.DataType.FLOAT
    model.graph.outputs.append(value)


def test_data_that_are_needed_elsewhere_block_it_or_end_it_earlier() -> None:
    moved = unpatchify([-1, 2, 3, 4, 4, 3], [0, 5, 1, 3, 2, 4], [-1, 3, 8, 12], behind="y = Relu(m) z = Relu(t)")
    also(moved, "z", 6)
    (site,) = find(moved).unembeddings
    assert (site.blocked, site.blocker) == ("its inner tensor t is used elsewhere", "Relu(z)")
    result = rewrite(moved, "depth-to-space")
    assert not result.changed and result.refusals[0].reason.startswith("its inner tensor t is used elsewhere")
    assert rewrite(moved, "depth-to-space", sites=["MatMul(p)"], check=prove).changed
    twice = "y = Transpose<perm = [0, 2, 3, 1]>(m) z = Relu(m)"
    image = unpatchify([-1, 2, 3, 4, 4, 3], [0, 5, 1, 3, 2, 4], [-1, 3, 8, 12], behind=twice)
    also(image, "z", 4)
    (site,) = find(image).unembeddings
    assert (site.output.name, site.blocked) == ("m", None)
    assert rewrite(image, "depth-to-space", check=prove).verdict is Verdict.PROVED


def test_tokens_whose_movement_is_needed_elsewhere_are_taken_as_they_come() -> None:
    model = CASES["from maps"][0].clone()
    also(model, "t", 4)
    (site,) = find(model).unembeddings
    assert (site.input.name, site.blocked) == ("t", None)
    assert rewrite(model, "conv-transpose", check=prove).verdict is Verdict.PROVED


def test_two_sizes_in_one_dim_are_refused() -> None:
    """A dynamic image as a ViT sees it: how many of the tokens are rows is told by the image alone, which no form reads."""
    body = """d = Shape(x) h = Gather(d, two) v = Gather(d, three) f = Reshape(x, flat) e = Transpose<perm = [0, 2, 1]>(f)
        g = Relu(e) p = MatMul(g, w) s = Concat<axis = 0>(minus, h, v, four, four, ch) r = Reshape(p, s)
        t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) k = Mul(h, four) l = Mul(v, four)
        o = Concat<axis = 0>(minus, ch, k, l) y = Reshape(t, o)"""
    numbers = {
        "two": ints(2),
        "three": ints(3),
        "minus": ints(-1),
        "four": ints(4),
        "ch": ints(3),
        "flat": ints(0, 0, -1),
    }
    model = graph(MAPS, IMAGE, body, w=(5, 48), **numbers)
    assert [site.order for site in find(model).unembeddings] == [((0,), (2, 3), (4,))]
    result = rewrite(model, "depth-to-space")
    assert [r.reason for r in result.refusals] == ["its input has two axes of unknown size in one dim"]
    assert not result.changed and result.model is result.original


def quantized(axis: int | None) -> ir.Model:
    stored = np.random.default_rng(0).integers(-90, 90, (5, 48)).astype(np.int8)
    scale = np.float32(0.02) if axis is None else np.linspace(0.01, 0.05, (5, 48)[axis], dtype=np.float32)
    at = "" if axis is None else f"<axis = {axis}>"
    body = f"""w = DequantizeLinear{at}(i, k) p = MatMul(x, w) r = Reshape(p, s)
        t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)"""
    return graph("float[N,6,5] x", IMAGE, body, i=stored, k=scale, s=ints(-1, 2, 3, 4, 4, 3), o=ints(-1, 3, 8, 12))


@pytest.mark.parametrize(("axis", "stays"), [(None, True), (0, True), (1, False)])
@pytest.mark.parametrize("to", ["conv-transpose", "depth-to-space"])
def test_a_quantized_weight(axis: int | None, stays: bool, to: str) -> None:
    model = quantized(axis)
    result = rewrite(model, to, check=prove)
    assert result.verdict is Verdict.PROVED
    kept = [v.const_value.numpy().size for v in result.model.graph.initializers.values() if v.dtype == ir.DataType.INT8]
    assert kept == ([240] if stays else [])


MUTANTS = {
    "columns": lambda site: dataclasses.replace(site, weight_index=site.weight_index.swapaxes(2, 3)),
    "features": lambda site: dataclasses.replace(site, weight_index=site.weight_index[::-1]),
    "bias": lambda site: dataclasses.replace(site, bias=site.bias[::-1]),
    "windows": lambda site: dataclasses.replace(site, order=(site.order[0], site.order[1][::-1], site.order[2])),
    "class token": lambda site: dataclasses.replace(site, taken=((0, 0), (0, 1), (0, 0))),
    "factor": lambda site: dataclasses.replace(site, alpha=2.0),
}


@pytest.mark.parametrize("to", ["matmul", "depth-to-space"])
@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_form_is_turned_down_by_the_check(name: str, to: str) -> None:
    model = CASES["mae, class token"][0]
    seen = prepared(model.clone())
    (site,) = seen.analysis.unembeddings
    wrong = dataclasses.replace(seen.analysis, unembeddings=(dataclasses.replace(MUTANTS[name](site), form="fold"),))
    made = rewriting.written(model, dataclasses.replace(seen, analysis=wrong), to, RewriteOptions())
    assert len(made.applied) == 1
    result = judge(made, prove)
    assert not result.changed and result.verdict in (Verdict.DIFFERENT, Verdict.UNDECIDED)


def test_a_form_of_the_other_kind_is_answered_with_those_of_its_own() -> None:
    result = rewriting.rewrite(unpatchify([-1, 2, 3, 4, 4, 3], [0, 5, 1, 3, 2, 4], [-1, 3, 8, 12]), "conv")
    assert result.reason == "nothing to rewrite: a patch un-embedding may be conv-transpose, matmul or depth-to-space"
    embedding = graph("float[N,3,8,8] x", "float[a,b,c,d] y", "y = Conv<strides = [2, 2]>(x, w)", w=(5, 3, 2, 2))
    reason = rewriting.rewrite(embedding, "conv-transpose").reason
    assert reason == "nothing to rewrite: a patch embedding may be conv, matmul, unfold or space-to-depth"


def test_of_one_operand_an_einsum_only_moves() -> None:
    """It was read as a product of two, and the analyzer ended by an IndexError."""
    model = graph("float[N,3,4] x", "float[a,b,c] y", 'y = Einsum<equation = "abc->cba">(x)')
    assert find(model).everything == find(model).refusals == ()


def test_json_and_the_terminal_tell_it_as_they_tell_embeddings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    ir.save(both(), path)
    assert main(["analyze", str(path), "--json", str(tmp_path / "told.json")]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    (there,), (back,) = told["patch_embeddings"], told["patch_unembeddings"]
    assert set(there) == set(back)
    assert (back["form"], back["pattern"]) == ("matmul", "b (h w) (c p1 p2) -> b c (h p1) (w p2)")
    shown = capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "told.json"), "-o", str(page)]) == 0
    html = page.read_text()
    assert "1 patch embedding and 1 patch un-embedding found" in html and "<h2>Patch un-embedding</h2>" in html
    assert html.count("How one patch becomes a row") == 1  # that of the embedding
    assert (
        "1 patch embedding\n" in shown and "1 patch un-embedding\n" in shown and f"pattern   {back['pattern']}" in shown
    )
    assert repr(find(both()).unembeddings[0]).startswith("Unembedding(form='matmul', pattern='b (h w) (c p1 p2) -> ")
