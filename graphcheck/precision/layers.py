"""Which nodes bring most of a copy's deviation: each one's own roundings, carried to the outputs by the derivatives.

A node stands for its result and for the constants that it reads, as it would be kept in float32, and for what is quantized
for it. To first order the outputs deviate by the sum over the roundings of derivative times rounding; taken as independent,
their squares add. The squares are summed over all outputs at once by derivatives towards random combinations of them
(Hutchinson, Commun. Stat. Simul. Comput. 19, 1990).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphcheck.precision.backwards import pulled
from graphcheck.precision.program import Key, Program, Step

_PROBES = 2
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
    scales: Mapping[str, float],
    seed: int,
    tick: Callable[[], None] = lambda: None,
) -> list[Layer]:
    """The nodes by their share, the largest first.

    ``values`` are those of the rounded program, ``errors`` what rounding did to each that it changed, ``scales`` the largest
    magnitude of each output, in which its deviation is counted.
    """
    random = np.random.default_rng([seed, 67])
    own, stored = (dict.fromkeys(map(_name, program.steps), 0.0) for _ in range(2))
    owners = Owners.of(program)
    keys = {name: key for name, key in program.outputs.items() if isinstance(key, tuple) and name in scales}
    for _ in range(_PROBES):
        at = {name: random.choice([-1.0, 1.0], values[key].size) / (scales[name] or 1.0) for name, key in keys.items()}
        seen: dict[Key, np.ndarray] = {}
        for each in pulled(program, values, at, tick=tick):
            for key, slope in each.results.items():
                own[owners.names[each.step]] += _square(slope, errors.get(key))
            for key, slope in each.reads.items():
                if key in owners.constants:
                    seen[key] = seen[key] + slope if key in seen else slope
        for key, slope in seen.items():
            stored[owners.constants[key]] += _square(slope, errors.get(key))
    total = sum(own.values()) + sum(stored.values())
    rows = [Layer(*name, (own[name] + stored[name]) / total, stored[name] / total) for name in own] if total else []
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


def _square(slope: np.ndarray, error: np.ndarray | None) -> float:
    return 0.0 if error is None else float(np.square(slope * error).sum())
