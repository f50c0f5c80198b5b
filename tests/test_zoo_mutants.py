"""No mutant comes out identical or proved: hand-written nets here, exported models in benchmarks/zoo.py."""

from __future__ import annotations

import functools

import onnx
import pytest

from tests.zoo import nets, tables
from tests.zoo.mutations import MUTATIONS, mutate
from tests.zoo.oracle import Oracle
from tests.zoo.proving import prove, verdict


@functools.cache
def model(name: str) -> onnx.ModelProto:
    return nets.net(name)


@functools.cache
def oracle(name: str) -> Oracle:
    return Oracle(model(name))


def changing(name: str, mutation: str) -> list[tuple[onnx.ModelProto, str]]:
    """The mutants of a net that change it, at two places."""
    found = [mutate(model(name), mutation, seed) for seed in (0, 1)]
    return [m for m in found if m is not None and oracle(name).effect(m[0]) != "no change"]


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", nets.NETS)
def test_no_mutant_is_proved(name: str, mutation: str) -> None:
    for mutant, node in changing(name, mutation):
        proof = prove(model(name), mutant)
        assert not proof.proved, f"{mutation} at {node} is proved by {proof.how}"


def test_most_mutations_apply_and_change_something() -> None:
    applied = {m for m in MUTATIONS for name in nets.NETS if changing(name, m)}
    # these want an export: a batch in a Reshape, a Split, a square product, Slices, an embedding ...
    assert len(applied) >= 50, sorted(MUTATIONS.keys() - applied)


GROSS = (
    ("attention", "sign of a weight"),
    ("attention", "two rows swapped"),
    ("attention", "axis of Softmax"),
    ("attention", "heads swapped"),
    ("attention", "scores times 2"),
    ("attention", "residual rewired"),
    ("attention", "kind of Gelu"),
    ("attention", "batch baked"),
    ("detector", "pads"),
    ("detector", "dilations"),
    ("detector", "order of Concat"),
    ("detector", "MaxPool becomes AveragePool"),
    ("detector", "Max becomes Min"),
    ("detector", "Relu on one element"),
    ("functions", "Erf becomes Tanh"),
    ("functions", "ReduceMin becomes ReduceMax"),
)


@pytest.mark.parametrize(("name", "mutation"), GROSS)
def test_a_gross_mutant_is_different_with_a_witness_near_the_mutated_node(name: str, mutation: str) -> None:
    (mutant, node), *_ = changing(name, mutation)
    said, reason, evidence = verdict(model(name), mutant, timeout=60.0)
    assert said == "different", reason
    assert evidence["witness"] is not None
    assert tables.located(mutant, evidence, node) != "elsewhere"


def test_a_bias_of_the_keys_is_no_mutant() -> None:
    mutant, _ = mutate(model("attention"), "key bias dropped", 0) or (None, None)
    said, reason, _ = verdict(model("attention"), mutant)
    assert said == "proved", reason
