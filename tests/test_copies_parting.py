"""The node at which a spoilt copy in lower precision parts from its model is the one that is wrong, not one behind it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.test_quantized_copies import compared
from tests.zoo.mutations import mutate
from tests.zoo.quantized import COPIES, NETS, quantized

NAMED = {
    # a reordering that the model has nowhere, of what it has
    ("lstm", "dynamic", "two elements swapped"): "Gather_3_of_the_mutation",
    # what was quantized is known by the operator that did, whose own result is whole numbers
    ("cnn", "QOperator", "residual rewired"): "Add_7_quant",
    ("vit", "QOperator", "heads swapped"): "MatMul_17_quant",
    # what it reads is a rearrangement of what the model has once constant factors are gathered
    ("cnn", "QDQ", "Relu on one element"): "PRelu_3_of_the_mutation",
    # an addition of nothing gives what the model has
    ("mlp", "dynamic", "bias dropped"): "Relu_2",
}


def parts(net: str, kind: str, change: str) -> dict[str, Any]:
    model = NETS[net]()
    mutant = mutate(model, change, 0)
    assert mutant is not None
    found = compared(model, quantized(mutant[0], **COPIES[kind]), "int8")
    assert found.verdict.value in ("undecided", "different")
    node: dict[str, Any] = found.evidence["precision"]["parts"]
    return node


@pytest.mark.parametrize(("net", "kind", "change"), NAMED)
def test_the_wrong_node_is_named(net: str, kind: str, change: str) -> None:
    assert parts(net, kind, change)["node"] == NAMED[net, kind, change]
