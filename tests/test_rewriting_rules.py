"""The rules in onnxscript's rewriter."""

from __future__ import annotations

import pytest
from patch_cases import ops, proved
from patch_table import cases

from graphcheck.errors import UsageError
from graphcheck.rewriting.rules import patch_embedding_rules

pytestmark = pytest.mark.torch  # onnxscript comes with the torch extra

CASES = cases()


@pytest.mark.parametrize("name", ["nchw", "nhwc", "1-d", "3-d", "einsum", "space to depth", "dynamic", "gemm, left"])
def test_rules_make_a_conv(name: str) -> None:
    model = CASES[name][0].clone()
    assert patch_embedding_rules("conv").apply_to_model(model) == 1
    assert ops(model).count("Conv") == 1 and not {"MatMul", "Gemm", "Einsum"} & set(ops(model))
    assert proved(CASES[name][0], model, *CASES[name][1])


def test_rules_leave_alone_what_is_none() -> None:
    for name, to in (("overlapping", "conv"), ("nchw", "matmul"), ("1-d", "space-to-depth")):
        model = CASES[name][0].clone()
        assert patch_embedding_rules(to).apply_to_model(model) == 0
        assert ops(model) == ops(CASES[name][0])


def test_an_unknown_form_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="the forms are"):
        patch_embedding_rules("fold")
