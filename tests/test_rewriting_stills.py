"""A patch embedding of a repeated image, a Conv3d of one frame twice: a Conv2d whose weight is summed, told as rounded."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from patch_cases import graph, ints, ops

from graphcheck.patches.preparing import prepared
from graphcheck.rewriting.proving import judge
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

TWICE = "u = Unsqueeze(x, two) f = Tile(u, times)"
CONV = "y = Conv<strides = [2, 4, 4]>(f, w, b)"
GIVEN: dict[str, Any] = {"two": ints(2), "times": ints(1, 1, 2, 1, 1), "w": (5, 3, 2, 4, 4), "b": (5,)}
HALF = np.random.default_rng(1).integers(-8, 8, (5, 3, 2, 4, 4)).astype(np.float32)
FLAT = """
    u = Concat<axis = 1>(x, x) r = Reshape(u, s) t = Transpose<perm = [0, 3, 5, 2, 1, 4, 6]>(r) m = Reshape(t, e)
    q = MatMul(m, w) y = Add(q, b)
"""


def still(
    outputs: str = "float[a,b,c,d,e] y", body: str = f"{TWICE} {CONV}", image: str = "N,3,8,12", **more: Any
) -> ir.Model:
    return graph(f"float[{image}] x", outputs, body, **{**GIVEN, **more})


def proving(model: ir.Model, to: str = "conv", **more: Any) -> Rewrite:
    return rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False), **more)


def test_the_sum_is_rounded_and_told() -> None:
    model = still(image="2,3,8,12")
    result = proving(model, stills=True)
    assert result.verdict is Verdict.WITHIN_ROUNDING, (result.reason, result.refusals)
    (node,) = (node for node in result.model.graph if node.op_type == "Conv")
    assert node.attributes["kernel_shape"].as_ints() == (4, 4) and "Tile" not in ops(result.model)
    (applied,) = result.applied
    assert applied.site.form == "stills" and "summed, each sum rounded once" in applied.site.notes[-1]


@pytest.mark.parametrize("to", ["conv", "matmul", "space-to-depth"])
def test_an_exact_sum_is_proved(to: str) -> None:
    result = proving(still(w=HALF), to, stills=True)
    assert result.verdict is Verdict.PROVED, result.reason


def test_a_projection_of_flattened_frames() -> None:
    shapes = {
        "s": ints(-1, 2, 3, 2, 4, 3, 4),
        "e": ints(-1, 6, 96),
        "w": np.arange(480).astype(np.float32).reshape(96, 5),
    }
    result = proving(still("float[a,b,c] y", FLAT, **shapes), stills=True)
    assert result.verdict is Verdict.PROVED and "Concat" not in ops(result.model), (result.reason, result.refusals)


def test_nobody_asked() -> None:
    result = rewrite(still(), "conv")
    assert not result.changed
    assert [r.reason for r in result.refusals] == [
        "an offset occurs twice in a row, and its weights would be added, as --stills does for a repeated image"
    ]


def test_two_frames_are_no_still() -> None:
    body = f"u = Unsqueeze(x, two) v = Unsqueeze(z, two) f = Concat<axis = 2>(u, v) {CONV}"
    model = graph("float[N,3,8,12] x, float[N,3,8,12] z", "float[a,b,c,d,e] y", body, **GIVEN)
    assert not any(site.summed for site in prepared(model, stills=True).analysis.sites)


@pytest.mark.parametrize("wrong", ["one frame", "two ulps", "two places"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_wrong_sum_is_not_accepted(wrong: str, exact: bool) -> None:
    model = still(w=HALF) if exact else still()
    result = rewrite(model, "conv", stills=True)
    weight = next(value for name, value in result.model.graph.initializers.items() if name.endswith("/weight"))
    assert weight.const_value is not None
    array = weight.const_value.numpy().copy()
    if wrong == "one frame":
        array[:] = array / 2
    elif wrong == "two ulps":
        array.reshape(-1)[7] += 2 * np.spacing(array.reshape(-1)[7])
    else:
        array[0, 0] = array[0, 0].T
    weight.const_value = ir.tensor(array, name=weight.name)
    assert not judge(result, lambda a, b: compare(a, b, graphs=False)).changed


def test_rounding_is_accepted_for_a_sum_alone() -> None:
    """The verdict within-rounding on a rewrite that adds nothing is no proof."""
    model = graph("float[N,3,8,12] x", "float[a,b,c,d] y", "y = Conv<strides = [4, 4]>(x, w)", w=(5, 3, 4, 4))
    said = dataclasses.replace(compare(model, model, graphs=False), verdict=Verdict.WITHIN_ROUNDING)
    result = rewrite(model, "matmul", check=lambda a, b: said)
    assert result.verdict is Verdict.UNDECIDED and not result.changed


def test_a_normalization_before_it_is_not_folded() -> None:
    model = still(body=f"n = Mul(x, k) u = Unsqueeze(n, two) f = Tile(u, times) {CONV}", k=np.float32(0.5))
    result = rewrite(model, "conv", stills=True, fold_normalization=True)
    said = "the normalization is not folded: the weight is summed over the copies of a repeated image"
    assert said in [refusal.reason for refusal in result.refusals]


def test_both_kinds_of_sum_in_one_model() -> None:
    body = f"{TWICE} z = Conv<strides = [2, 4, 4]>(f, v, b) s = Conv<strides = [2, 4, 4]>(f, w, b) y = Add(z, s)"
    result = proving(still(body=body, v=HALF), stills=True)
    assert result.verdict is Verdict.WITHIN_ROUNDING and len(result.applied) == 2, result.reason
    assert result.to_json()["code"] == "GC230"
    assert "each summed weight is the exact one, rounded once" in result.reason


def test_a_listed_weight_is_a_constant_before_ir_version_4() -> None:
    """The proof frees it: left among the inputs, the two models had inputs of unequal rank."""
    body = "u = Unsqueeze<axes = [2]>(x) f = Concat<axis = 2>(u, u) y = Conv<strides = [2, 4, 4]>(f, w)"
    model = graph("float[N,3,8,12] x, float[5,3,2,4,4] w", "float[a,b,c,d,e] y", body, 8, w=GIVEN["w"])
    model.ir_version = 3
    result = proving(model, stills=True)
    assert result.verdict is Verdict.WITHIN_ROUNDING, (result.reason, result.refusals)
    assert {v.name for v in result.model.graph.inputs} == {"x", *result.model.graph.initializers}
