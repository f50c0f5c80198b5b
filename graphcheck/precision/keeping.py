"""Which nodes to keep in float32, found by trying: those that lower the deviation most, one beside the other.

Shares (:mod:`graphcheck.precision.layers`) say who is likely; roundings behind a node that is kept fall differently, so that the
likeliest are tried. What is measured is the root of the mean square over all outputs, each in its largest magnitude.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.precision import walks
from graphcheck.precision.layers import Layer, Owners
from graphcheck.precision.program import Key, Program, Result, Step

_TRIED, _WIDTH = 6, 2  # nodes for each place, and choices that are carried on (a beam search)
Name = tuple[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Tries:
    """A copy that is walked again and again with some nodes in float32.

    Attributes:
        program: The copy.
        fed: Its inputs and constants.
        errors: How far those are from the other model's.
        wide: The other model's outputs.
        tick: Called before each step.
    """

    program: Program
    fed: Mapping[Key, np.ndarray]
    errors: Mapping[Key, np.ndarray]
    wide: Mapping[str, np.ndarray]
    tick: Callable[[], None]

    def keep(self, ranked: Sequence[Layer], count: int, first: Sequence[Name] = ()) -> list[dict[str, Any]]:
        """So many nodes in the order in which they are to be kept, each with what deviation is left then; those that overflow
        come ``first``."""
        owners = Owners.of(self.program)
        names = [(row.node, row.op_type) for row in ranked if row.op_type != "Cast"]
        given = [name for name in dict.fromkeys(first) if name[1] != "Cast"][:count]
        begun = tuple((name, self.left(frozenset(given[: place + 1]), owners)) for place, name in enumerate(given))
        found: list[tuple[tuple[Name, float], ...]] = [begun]  # choices, each with what is left once it is made
        for _ in range(min(count, len({*names, *given})) - len(given)):
            tried: dict[frozenset[Name], tuple[tuple[Name, float], ...]] = {}
            for some in found:
                before = frozenset(name for name, _ in some)
                for name in [n for n in names if n not in before][:_TRIED]:
                    if before | {name} not in tried:
                        tried[before | {name}] = (*some, (name, self.left(before | {name}, owners)))
            found = sorted(tried.values(), key=lambda some: some[-1][1])[:_WIDTH]
        whole = self.left(frozenset(), owners)
        return [{"node": node, "op_type": op_type, "left": left, "before": whole} for (node, op_type), left in found[0]]

    def left(self, kept: frozenset[Name], owners: Owners) -> float:
        """The deviation with some nodes in float32."""

        def settle(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
            return value if owners.names[step] in kept else walks.rounding(step, result, value)

        mine = {key for key, name in owners.constants.items() if name in kept and key in self.errors}
        fed = {key: x - self.errors[key] if key in mine else x for key, x in self.fed.items()}
        made = walks.walk(self.program, fed, settle, tick=self.tick)
        parts = [np.square((made[n] - y) / (walks.largest(y) or 1.0)) for n, y in self.wide.items() if n in made]
        count = sum(part.size for part in parts)
        return float(np.sqrt(sum(float(part.sum()) for part in parts) / count)) if count else 0.0
