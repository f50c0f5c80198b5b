"""``different`` under ``--allow`` is what the roundings allowed do not explain, whatever could be proved of the copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck import compare
from graphcheck.kernel.proof import rounding
from graphcheck.kernel.proof.allowed import Allowed
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.store import Terms
from graphcheck.parting.allowance import explained
from graphcheck.verdict import Comparison, Verdict
from tests.test_quantized_copies import small
from tests.zoo.mutations import mutate
from tests.zoo.quantized import COPIES, NETS, quantized

KINDS = ("dynamic", "QDQ", "QDQ, per channel", "QOperator")
GROSS = [
    ("mlp", "QDQ", "two elements swapped"),
    ("cnn", "QOperator", "residual rewired"),
    ("cnn", "dynamic", "residual rewired"),
    ("vit", "QDQ", "square matrix transposed"),
    ("lstm", "dynamic", "two elements swapped"),
]


def compared(a: onnx.ModelProto, b: onnx.ModelProto, allow: str = "int8") -> Comparison:
    return compare(a, b, allow=[allow], run=False, graphs=False)


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy is shown to be one."""
    monkeypatch.setattr(rounding, "substitute", lambda *_, **__: rounding.Substitution([], 0.0, met=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", ["mlp", "cnn", "lstm", "vit"])
@pytest.mark.usefixtures("unproved")
def test_a_right_copy_that_is_not_shown_to_be_one_is_undecided(net: str, kind: str) -> None:
    model = NETS[net]()
    found = compared(model, quantized(model, **COPIES[kind]))
    assert found.verdict is Verdict.UNDECIDED, found.reason


@pytest.mark.parametrize("allow", ["float16", "bfloat16", "ulps=4"])
@pytest.mark.usefixtures("unproved")
def test_so_is_one_in_floats(allow: str) -> None:
    weight = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)
    text = "m = MatMul (x, w) y = Tanh (m)"
    if allow == "ulps=4":
        copy = small(text, w=np.nextafter(weight, np.float32(9)))
    else:
        to = getattr(onnx.TensorProto, allow.upper())
        copy = small(f"h = Cast <to = {to}> (w) v = Cast <to = 1> (h) m = MatMul (x, v) y = Tanh (m)", w=weight)
    assert compared(small(text, w=weight), copy, allow).verdict is not Verdict.DIFFERENT
    turned = small(text, w=np.ascontiguousarray(weight.T))
    assert compared(small(text, w=weight), turned, allow).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(("net", "kind", "change"), GROSS)
def test_a_gross_fault_is_different_and_named(net: str, kind: str, change: str) -> None:
    model = NETS[net]()
    mutant = mutate(model, change, 0)
    assert mutant is not None
    found = compared(model, quantized(mutant[0], **COPIES[kind]))
    assert found.verdict is Verdict.DIFFERENT, found.reason
    precision: dict[str, Any] = found.evidence["precision"]
    assert precision["off"] or precision["parts"]["node"]


def test_a_fault_that_rounding_might_be_is_named_and_undecided() -> None:
    model = NETS["mlp"]()
    mutant = mutate(model, "Relu becomes LeakyRelu", 0)
    assert mutant is not None
    found = compared(model, quantized(mutant[0], **COPIES["QDQ"]))
    assert found.verdict is Verdict.UNDECIDED
    assert "no input was found that shows more than allowed roundings explain" in found.reason
    assert found.evidence["precision"]["parts"]["node"] == "Relu_2"


@pytest.mark.parametrize(
    ("allowed", "by", "rounding_is_enough"),
    [
        (Allowed(("int8",)), 1 / 300, True),
        (Allowed(("int8",)), 0.1, False),
        (Allowed(("int4",)), 0.1, True),
        (Allowed(("int8",), steps=10), 0.1, True),
        (Allowed(("float16",)), 1e-3, True),
        (Allowed(("float16",)), 1e-2, False),
        (Allowed(("float8e4m3fn",)), 1e-2, True),
        (Allowed((), ulps=4), 1e-7, True),
        (Allowed((), ulps=4), 1e-5, False),
    ],
)
def test_what_a_format_explains(allowed: Allowed, by: float, rounding_is_enough: bool) -> None:
    terms = Terms(PLAIN)
    x = terms.leaf(("input", "x"), 64)
    roots = [terms.ew("mul", [(x, None), (terms.const(np.array([each])), None)], 64) for each in (1.5, 1.5 * (1 + by))]
    given = {("input", "x"): np.random.default_rng(5).uniform(-1, 1, 64)}
    found = explained(terms, [(roots[0], roots[1])], given, allowed, 0, lambda _: None)
    assert found is rounding_is_enough


def test_nothing_is_shown_by_what_is_not_evaluated() -> None:
    terms = Terms(PLAIN)
    x = terms.leaf(("input", "x"), 4)
    unknown = terms.opaque((("", "Unknown"),), [x], 4)
    assert explained(terms, [(x, unknown)], {("input", "x"): np.ones(4)}, Allowed(("int8",)), 0, lambda _: None)
