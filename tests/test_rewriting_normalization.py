"""A normalization before the patches, taken into the weight on request: within rounding by proof, or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import IMAGE, graph, ops, run

from graphcheck.patches.site import Refusal, Site
from graphcheck.rewriting import normalization
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare


def deviation(a: ir.Model, b: ir.Model, sizes: dict[str, int]) -> float:
    """The largest difference of the outputs in onnxruntime, relative to the largest magnitude."""
    pairs = zip(run(a, 1, sizes), run(b, 1, sizes), strict=True)
    return max(float(np.abs(x - y).max() / np.abs(x).max()) for x, y in pairs)


def comparison(verdict: Verdict) -> Comparison:
    return Comparison(verdict, "because", {})


UNFOLDED = {
    "padding": (
        "", "strides = [4, 4], pads = [1, 1, 1, 1]", "the padding behind it is zero, and a constant added before it is not"
    ),
    "used elsewhere": ("z = Relu(d)", "strides = [4, 4]", "it is used elsewhere"),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_a_normalization_that_cannot_be_folded_is_refused(name: str) -> None:
    more, attributes, reason = UNFOLDED[name]
    text = f"s = Sub(x, u) d = Mul(s, v) y = Conv<{attributes}>(d, w, b) {more}"
    outputs = "float[a,b,c,d] y" + (", float[e,f,g,h] z" if more else "")
    model = graph(IMAGE, outputs, text, w=(5, 3, 4, 4), b=(5,), u=(3, 1, 1), v=(3, 1, 1))
    result = rewrite(model, "conv", fold_normalization=True)
    assert not result.changed
    assert [(r.reason, r.node) for r in result.refusals] == [(f"the normalization is not folded: {reason}", "Sub(s)")]


def test_a_normalization_by_computed_constants_is_not_proved() -> None:
    text = "v = Sqrt(k) s = Sub(x, u) d = Div(s, v) y = Conv<strides = [4, 4]>(d, w, b)"
    k = np.full((3, 1, 1), 2, np.float32)
    model = graph(IMAGE, "float[a,b,c,d] y", text, w=(5, 3, 4, 4), b=(5,), u=(3, 1, 1), k=k)
    result = rewrite(model, "conv", fold_normalization=True, check=lambda a, b: comparison(Verdict.PROVED))
    assert not result.changed and result.verdict is Verdict.UNDECIDED
    assert result.reason == "the folded normalization is not proved: its constants are not stored, but computed in the graph"


NORMALIZED = {
    "plain": ("Sub(x, u) d = Div(s, v)", "strides = [4, 4]", True),
    "multiplied": ("Mul(x, v) d = Add(s, u)", "strides = [4, 4]", True),
    "padded": ("Sub(x, u) d = Div(s, v)", "strides = [4, 4], pads = [1, 1, 1, 1]", False),
    "scaled, padded": ("Div(x, v) d = Identity(s)", "strides = [4, 4], pads = [1, 1, 1, 1]", True),
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_a_normalization_is_folded_on_request_where_padding_allows(name: str) -> None:
    body, attributes, legal = NORMALIZED[name]
    random = np.random.default_rng(3)
    u, v = random.normal(size=(3, 1, 1)).astype(np.float32), random.uniform(1, 2, (1, 3, 1, 1)).astype(np.float32)
    used = {"u": u} if "u)" in body else {}
    text = f"s = {body} y = Conv<{attributes}>(d, w, b)"
    model = graph(
        IMAGE,
        "float[a,b,c,d] y",
        text.replace("d = Identity(s)", "d = Identity(s)"),
        w=(5, 3, 4, 4),
        b=(5,),
        v=v,
        **used,
    )
    assert not rewrite(model, "conv").changed
    result = rewrite(model, "conv", fold_normalization=True)
    assert result.changed is legal or name == "scaled, padded"
    if result.changed:
        assert ops(result.model) == ["Conv"]
        assert deviation(model, result.model, {"N": 2}) < 1e-6


FOLDED = {
    "subtracted and divided": "s = Sub(x, u) d = Div(s, v)",
    "multiplied and added": "s = Mul(x, v) d = Add(u, s)",
    "turned round": "s = Sub(u, x) d = Mul(v, s)",
}


def normalized(body: str) -> ir.Model:
    random = np.random.default_rng(3)
    u, v = random.normal(size=(3, 1, 1)).astype(np.float32), random.uniform(1, 2, (1, 3, 1, 1)).astype(np.float32)
    text = f"{body} y = Conv<strides = [4, 4]>(d, w, b)"
    return graph("float[2,3,8,8] x", "float[a,b,c,d] y", text, w=(5, 3, 4, 4), b=(5,), u=u, v=v)


@pytest.mark.parametrize("to", ["conv", "matmul", "space-to-depth"])
@pytest.mark.parametrize("name", FOLDED)
def test_a_folded_normalization_is_within_rounding_by_proof(name: str, to: str) -> None:
    model = normalized(FOLDED[name])
    result = rewrite(model, to, fold_normalization=True, check=lambda a, b: compare(a, b, run=False, graphs=False))
    assert (result.verdict, result.changed) == (Verdict.WITHIN_ROUNDING, True)
    assert deviation(model, result.model, {}) < 1e-6


def test_a_wrongly_folded_constant_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model = normalized(FOLDED["subtracted and divided"])
    fold = normalization.fold

    def wrong(*args: object) -> tuple[tuple[Site, ...], tuple[Refusal, ...]]:
        (site,), refusals = fold(*args)  # type: ignore[arg-type]
        return (dataclasses.replace(site, weight=site.weight * np.float32(1 + 2**-21)),), refusals

    monkeypatch.setattr(normalization, "fold", wrong)
    result = rewrite(model, "conv", fold_normalization=True, check=lambda a, b: comparison(Verdict.PROVED))
    assert not result.changed and result.verdict is Verdict.UNDECIDED
    assert "is not the exact constant, rounded once" in result.reason
