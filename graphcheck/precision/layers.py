"""Which nodes bring a copy's deviation: each one's own roundings, carried to the outputs by the derivatives.

A node stands for its result and for the constants that it reads, as it would be kept in float32, and for what is quantized
for it. To first order the outputs deviate by a sum D of what each node brings, d_k. Keeping nodes S in float32 takes
|D|^2 - |D - sum of d_k over S|^2 off, a game of which <D, d_k> is the Shapley value: a node's fair part, whatever is kept
beside it. These add up to |D|^2, and one way back from D gives all of them. One may be below 0: it makes up for others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphcheck.precision.backwards import pulled
from graphcheck.precision.program import Key, Program, Step

_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")
_PASSED = (*_QUANTIZERS, "DequantizeLinear")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A node with its ``share`` of the squared deviation, of which ``constants`` is what stored constants bring."""

    node: str
    op_type: str
    share: float
    constants: float

    def to_json(self) -> dict[str, Any]:
        """An entry of ``layers`` in the JSON."""
        return dataclasses.asdict(self)


def layers(
    program: Program,
    values: Mapping[Key, np.ndarray],
    errors: Mapping[Key, np.ndarray],
    apart: Mapping[str, np.ndarray],
    tick: Callable[[], None] = lambda: None,
) -> list[Layer]:
    """The nodes by their share, the largest first.

    ``values`` are those of the rounded program, ``errors`` what rounding did to each that it changed, ``apart`` the deviation of
    each output, in a unit that makes it comparable with the others.
    """
    own, stored = (dict.fromkeys(map(_name, program.steps), 0.0) for _ in range(2))
    owners = Owners.of(program)
    for each in pulled(program, values, {name: d for name, d in apart.items() if d.any()}, tick=tick):
        for key, slope in each.results.items():
            own[owners.names[each.step]] += _part(slope, errors.get(key))
        for key, slope in each.reads.items():
            if key in owners.constants:
                stored[owners.constants[key]] += _part(slope, errors.get(key))
    total = sum(own.values()) + sum(stored.values())
    rows = [Layer(*name, (own[name] + stored[name]) / total, stored[name] / total) for name in own] if total > 0 else []
    return sorted((row for row in rows if row.share), key=lambda row: -row.share)


def _name(step: Step) -> tuple[str, str]:
    return step.node, step.op_type


@dataclasses.dataclass(frozen=True, eq=False)
class Owners:
    """The nodes (name and operator) that roundings are told of: those of each step's results, ``names``, and of each constant and
    input."""

    names: Mapping[Step, tuple[str, str]]
    constants: Mapping[Key, tuple[str, str]]

    @classmethod
    def of(cls, program: Program) -> Owners:
        """What a quantizer gives belongs to the first node to read it, as does a constant: what only casts or turns it is passed
        over."""
        first: dict[Key, Step] = {}
        for step in program.steps:
            for key in step.reads:
                first.setdefault(key, step)
        makers = {result.key: step for step in program.steps for result in step.results}
        fixed = set(program.constants)
        names: dict[Step, tuple[str, str]] = {}
        for step in program.steps:
            if fixed.issuperset(step.reads):
                fixed |= {result.key for result in step.results}
            last = step
            while last.op_type in _PASSED and last.results[0].key in first:
                last = first[last.results[0].key]
            if last.op_type in _PASSED and step.reads[0] in makers:  # an output's: it belongs to what makes the output
                last = makers[step.reads[0]]
            names[step] = _name(last if step.op_type in _QUANTIZERS else step)
        constants: dict[Key, tuple[str, str]] = {}
        for start in (*program.constants, *program.inputs):
            key = start
            while key in first and fixed.issuperset(first[key].reads) and first[key].results[0].key in first:
                key = first[key].results[0].key
            if key in first:
                constants[start] = _name(first[key])
        return cls(names, constants)


def _part(slope: np.ndarray, error: np.ndarray | None) -> float:
    return 0.0 if error is None else float(slope @ np.broadcast_to(error, slope.shape))
