"""An undecided verdict says so first where onnxruntime's outputs are far beyond rounding, and why it is undecided."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import build
from graphcheck.parting.difference import Deviation
from graphcheck.verdict import Verdict
from graphcheck.verdicts import contrary, record
from graphcheck.verdicts.compare import compare

ROW = {"a": "y", "shape": [2, 3], "shape_b": [2, 3], "nan_a": 0, "nan_b": 0, "unequal": 6, "max_abs": 34.4, "scale_ulp": 2e6}
UNBOUND = Deviation("y", 34.4, float("inf"), 8e-4, "first-order")
SAID = [
    ({}, [UNBOUND], [], "differ by 34.4, far beyond rounding, but float64 has no bound on its own error there"),
    ({}, [], ["TopK"], "differ by 34.4, far beyond rounding, but float64 does not evaluate TopK"),
    ({}, [], [], "but float64 has given no value there"),
    ({}, [Deviation("y", 1e-9, 0.0, 1e-6)], [], "but in float64 they differ by 1e-09 at most"),
    ({"nan_b": 4, "scale_ulp": 0.0, "max_abs": 0.0}, [], [], "are NaN on one side, at 0 elements in A and at 4 in B"),
    ({"nan_a": 2, "nan_b": 4}, [], [], "are NaN at other places, at 2 elements in A and at 4 in B"),
    ({"nan_b": 4}, [Deviation("y", 1e-9, 0.0, 1e-6)], [], "float64, which does not overflow there, has numbers, 1e-09 apart"),
    ({"scale_ulp": None, "max_abs": None, "unequal": 5}, [], [], "differ at 5 of 6 elements"),
    ({"shape_b": [3, 2]}, [], [], "have the shapes [2, 3] in A and [3, 2] in B"),
]


@pytest.mark.parametrize(("changed", "deviations", "unknown", "words"), SAID)
def test_numbers_that_a_verdict_would_contradict_are_told(
    changed: dict[str, Any], deviations: list[Deviation], unknown: list[str], words: str
) -> None:
    said = contrary.sentence([{**ROW, "a": "z", "scale_ulp": 2.0}, {**ROW, **changed}], deviations, unknown)
    assert said is not None and words in said


def test_a_rounding_step_is_named() -> None:
    said = contrary.sentence([ROW], [UNBOUND], [], ["Cast half", "QuantizeLinear q"])
    assert said is not None and "but behind a rounding step (Cast half, QuantizeLinear q) float64 cannot bound" in said
    text = """<ir_version: 10, opset_import: ["": 20]> g (float[2] x) => (float[2] y) <float s = {0.1}, uint8 z = {3}> {
        [a] u = Cast<to = 10>(x) [b] v = Cast<to = 1>(u) [q] p = QuantizeLinear(v, s, z) [d] y = DequantizeLinear(p, s, z) }"""
    model = model_.read(onnx.parser.parse_model(text))
    pair = build(model, model, {"x": ("x", (2,))}, {})
    (output,) = pair.a.outputs
    assert isinstance(output, Tensor)
    assert contrary.rounding_steps(pair, [output.cls]) == ["Cast a", "QuantizeLinear q"]


def test_a_spread_that_is_not_known_is_told_in_words() -> None:
    said = record.known([], [Deviation("y", 0.5, float("inf"), float("inf"))])
    assert said == "in float64 they differ by 0.5 at 'y', where it is not known what rounding explains"


@pytest.mark.parametrize(
    ("changed", "deviations"),
    [
        ({"scale_ulp": 30.0}, []),
        ({}, [Deviation("y", 34.4, 0.0, 20.0)]),
        ({"scale_ulp": None, "unequal": 1, "max_abs": None}, []),
    ],
)
def test_what_rounding_explains_is_not(changed: dict[str, Any], deviations: list[Deviation]) -> None:
    assert contrary.sentence([{**ROW, **changed}], deviations, []) is None


def test_the_first_sentence_of_a_comparison_says_so() -> None:
    text = '<ir_version: 10, opset_import: ["": 20]> g (float[N,6] x) => (float[N,6] y) { h = Hardmax(x) y = Add(h, %s) }'
    a, b = (onnx.parser.parse_model(text % other) for other in ("x", "h"))
    found = compare(a, b, timeout=60.0)
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason.startswith("onnxruntime's outputs 'y' differ by ")
    assert "but float64 does not evaluate Hardmax; " in found.reason and "no input was found that shows" not in found.reason
