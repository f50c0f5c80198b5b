"""No mutant of a single operator is proved: one of ONNX's node tests for each operator, all of them in the zoo."""

from __future__ import annotations

import warnings
from collections import Counter

import pytest

from tests.zoo import operators
from tests.zoo.oracle import Oracle, run
from tests.zoo.proving import prove

# Where onnx.reference departs from the standard, or the standard leaves the mutant without a meaning.
NO_ORACLE = {
    "test_maxpool_2d_precomputed_same_upper",  # the reference takes another shape for SAME_LOWER
    "test_ai_onnx_ml_array_feature_extractor",  # the checker refuses a stored operand in this old IR version
}


def by_operator() -> dict[str, list[str]]:
    """The names of the node tests by operator type, the smallest models first."""
    found: dict[str, list[str]] = {}
    for name, case in sorted(operators.cases().items(), key=lambda item: (item[1].model.ByteSize(), item[0])):
        if name not in NO_ORACLE and len(case.model.graph.node) == 1:
            found.setdefault(case.model.graph.node[0].op_type, []).append(name)
    return found


def outcomes(name: str, most: int | None = None) -> Counter[str]:
    """How many mutants of a case changed nothing, were refused, stayed open, or were proved (which is never right)."""
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = operators.standalone(operators.cases()[name])
        if model is None:
            return counts
        oracle = Oracle(model)
        if isinstance(run(model, oracle.samples[0]), str) or not prove(model, model).proved:
            return counts
        for what, mutant in operators.mutants(model):
            effect = oracle.effect(mutant)
            if effect == "no change" or effect.startswith("refused"):
                counts[effect[:9]] += 1
                continue
            counts["proved" if prove(model, mutant).proved else "open"] += 1
            assert not counts["proved"], f"{name}: {what} is proved though its effect is: {effect}"
            if counts["open"] == most:
                break
    return counts


@pytest.mark.parametrize("op_type", sorted(by_operator()))
def test_no_mutant_of_an_operator_is_proved(op_type: str) -> None:
    total: Counter[str] = Counter()
    for name in by_operator()[op_type][:2]:
        total += outcomes(name, most=8)
    assert not total["proved"]


@pytest.mark.zoo
@pytest.mark.parametrize("op_type", sorted(by_operator()))
def test_no_mutant_of_any_case_is_proved(op_type: str) -> None:
    for name in by_operator()[op_type]:
        assert not outcomes(name)["proved"]


def test_the_oracle_and_the_engine_see_most_mutants() -> None:
    """The test above would also pass if nothing were mutated."""
    seen = {
        op: outcomes(by_operator()[op][0])["open"]
        for op in ("Erf", "Max", "ReduceMax", "MaxPool", "Softmax", "Conv", "Pow")
    }
    assert min(seen.values()) >= 3, seen
