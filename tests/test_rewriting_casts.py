"""A site behind a Cast keeps a Cast in front of its new form; one behind the site stays behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from patch_cases import TOKENS, graph, ints, ops

from graphcheck.patches.analyze import find
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Verdict
from graphcheck.verdicts.compare import compare

SIZES: dict[str, Any] = {"a": ints(0, 3, 2, 4, 3, 4), "b": ints(0, 6, 48), "w": (48, 5)}
MOVED = "t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) m = Reshape(t, b)"
# name: (type of the input, type of the output, nodes, type of the weight, more constants)
CASES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "in front": ("uint8", "float", f"c = Cast<to = 1>(x) r = Reshape(c, a) {MOVED} y = MatMul(m, w)", "float", {}),
    "behind the movement": ("uint8", "float", f"r = Reshape(x, a) {MOVED} c = Cast<to = 1>(m) y = MatMul(c, w)", "float", {}),
    "half to float": ("float16", "float", f"r = Reshape(x, a) {MOVED} c = Cast<to = 1>(m) y = MatMul(c, w)", "float", {}),
    "behind the site": ("float16", "float", f"r = Reshape(x, a) {MOVED} z = MatMul(m, w) y = Cast<to = 1>(z)", "float16", {}),
    "before the bias": (
        "float16",
        "float",
        f"r = Reshape(x, a) {MOVED} z = MatMul(m, w) v = Cast<to = 1>(z) y = Add(v, k)",
        "float16",
        {"k": np.arange(5).astype(np.float32) / 7},
    ),
}


@pytest.mark.parametrize("to", ["conv", "unfold", "space-to-depth"])
@pytest.mark.parametrize("name", CASES)
def test_a_cast_is_kept(name: str, to: str) -> None:
    given, made, body, kind, more = CASES[name]
    outputs = TOKENS.replace("float", made)
    model = graph(f"{given}[N,3,8,12] x", outputs, body, kind=kind, **SIZES, **more)
    result = rewrite(model, to, check=lambda a, b: compare(a, b, graphs=False))
    assert result.changed, result.reason
    assert result.verdict is Verdict.PROVED and ops(result.model).count("Cast") == 1
    assert (ops(result.model)[0] == "Cast") == (kind == "float"), "in front of the new form, or behind it"


def test_a_convolution_behind_a_cast_becomes_a_matmul() -> None:
    text = "c = Cast<to = 1>(x) y = Conv<strides = [4, 4]>(c, v)"
    model = graph("uint8[N,3,16,16] x", "float[n,c,h,w] y", text, v=(8, 3, 4, 4))
    result = rewrite(model, "matmul", check=lambda a, b: compare(a, b, graphs=False))
    assert result.changed and ops(result.model)[0] == "Cast" and "MatMul" in ops(result.model)


def test_a_cast_that_rounds_stands_between() -> None:
    body = f"r = Reshape(x, a) {MOVED} c = Cast<to = 10>(m) d = Cast<to = 1>(c) y = MatMul(d, w)"
    analysis = find(graph("float[N,3,8,12] x", TOKENS, body, **SIZES))
    assert [site.name for site in analysis.sites] == []
    assert [r.reason for r in analysis.refusals] == ["Cast stands between the patchify and the projection"]


def test_a_normalization_is_not_folded_through_a_cast() -> None:
    text = "s = Sub(x, u) c = Cast<to = 1>(s) y = Conv<strides = [4, 4]>(c, v)"
    u = np.ones((3, 1, 1), np.float16)
    model = graph("float16[N,3,16,16] x", "float[n,c,h,w] y", text, v=(8, 3, 4, 4), u=u)
    result = rewrite(model, "matmul", fold_normalization=True)
    assert "the normalization is not folded: a Cast stands between it and the patches" in [r.reason for r in result.refusals]
    assert result.changed and ops(result.model)[:2] == ["Sub", "Cast"]
