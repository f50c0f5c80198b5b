"""RNN, GRU and LSTM in float64 beside onnxruntime's kernels, in every direction and layout that it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from ops_support import assert_agrees, float64, node_model, values

from graphcheck.api import compare
from graphcheck.errors import Refused
from graphcheck.verdict import Verdict

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, SIZE, HIDDEN = 4, 2, 3, 5


def made(op: str, attributes: dict[str, Any], states: int = 0, peepholes: bool = False, lens: Any = None) -> Any:
    """The model of one node, with ``states`` initial states, and its feeds."""
    ways, gates = 1 + (attributes.get("direction") == "bidirectional"), GATES[op]
    constants: list[np.ndarray | None] = [
        values((ways, gates * HIDDEN, SIZE), 1),
        values((ways, gates * HIDDEN, HIDDEN), 2),
        values((ways, 2 * gates * HIDDEN), 3),
        lens,
        *(values((ways, BATCH, HIDDEN), 4 + i) for i in range(states)),
    ]
    if peepholes:
        constants.append(values((ways, 3 * HIDDEN), 7))
    x = values((STEPS, BATCH, SIZE))
    outputs = 3 if op == "LSTM" else 2
    given = {"hidden_size": HIDDEN, **attributes}
    return node_model(op, [x], given, 18, outputs, constants=constants), {"x0": x}


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op", "attributes", "states", "peepholes"),
    [
        ("RNN", {}, 0, False),
        ("RNN", {"activations": ["Relu"]}, 1, False),
        ("GRU", {}, 1, False),
        ("GRU", {"linear_before_reset": 1}, 0, False),
        ("GRU", {"linear_before_reset": 1, "activations": ["Sigmoid", "Relu"]}, 1, False),
        ("LSTM", {}, 0, False),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, 2, False),
        ("LSTM", {}, 2, True),
    ],
)
def test_beside_onnxruntime(op: str, attributes: dict[str, Any], states: int, peepholes: bool, direction: str) -> None:
    both = 2 if direction == "bidirectional" else 1
    if "activations" in attributes:
        attributes = {**attributes, "activations": attributes["activations"] * both}
    proto, feeds = made(op, {**attributes, "direction": direction}, states, peepholes)
    assert_agrees(proto, feeds, units=512)


def test_lengths_of_all_steps_are_no_lengths() -> None:
    proto, feeds = made("GRU", {}, lens=np.asarray([STEPS] * BATCH, np.int32))
    assert_agrees(proto, feeds, units=512)


@pytest.mark.parametrize(
    ("attributes", "lens"),
    [({}, np.asarray([STEPS, 2], np.int32)), ({"clip": 0.5}, None), ({"activations": ["Sigmoid", "Elu"]}, None)],
)
def test_what_is_not_covered_stays_unknown(attributes: dict[str, Any], lens: Any) -> None:
    proto, feeds = made("GRU", attributes, lens=lens)
    assert float64(proto, feeds)[0].opaque


def verdict(a: Any, b: Any) -> Verdict:
    return compare(ir.from_proto(a), ir.from_proto(b), run=False, graphs=False).verdict


@pytest.mark.parametrize("op", GATES)
def test_no_initial_state_is_zero(op: str) -> None:
    states = 2 if op == "LSTM" else 1
    with_states, _ = made(op, {}, states)
    for constant in with_states.graph.initializer[-states:]:
        constant.CopyFrom(type(constant)(name=constant.name, data_type=1, dims=constant.dims, raw_data=bytes(4 * 10)))
    without, _ = made(op, {})
    assert verdict(with_states, without) is Verdict.PROVED
    other, _ = made(op, {}, states)
    assert verdict(other, without) not in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)


@pytest.mark.parametrize(
    ("op", "one", "two"),
    [
        ("GRU", {}, {"linear_before_reset": 1}),
        ("RNN", {"direction": "forward"}, {"direction": "reverse"}),
        ("RNN", {}, {"activations": ["Relu"]}),
        ("LSTM", {}, {"activations": ["Sigmoid", "Tanh", "Sigmoid"]}),
    ],
)
def test_another_attribute_is_another_function(op: str, one: dict[str, Any], two: dict[str, Any]) -> None:
    (a, _), (b, _) = made(op, one), made(op, two)
    assert verdict(a, b) not in (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)


@pytest.mark.parametrize("op", GATES)
def test_a_state_of_another_batch_fits_nothing(op: str) -> None:
    """It would be broadcast, and what no runtime runs be proved."""
    proto, feeds = made(op, {}, 2 if op == "LSTM" else 1)
    state = proto.graph.initializer[-1]
    state.CopyFrom(type(state)(name=state.name, data_type=1, dims=[state.dims[0], 1, state.dims[2]], raw_data=bytes(20)))
    with pytest.raises(Refused, match="does not begin with a state for each of its rows"):
        float64(proto, feeds)
