"""Un-embeddings, projections to patches of pixels: recognised, written in every legal form, proved, back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import graph, ops, proved, run
from unpatch_table import IMAGE, MAPS, Case, cases, near_misses, plain, shuffled, unpatchify

import graphcheck
from graphcheck.cli import main
from graphcheck.patches.analyze import find
from graphcheck.patches.preparing import analyze_json
from graphcheck.patches.site import Unembedding
from graphcheck.rewriting.forms import UNEMBEDDED
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
    ("grouped", "matmul", "as one MatMul its 2 groups would be mostly zeros; it is rewritten only when it is named"),
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
