"""Which nodes to keep in float32, found by trying: those that lower the deviation most, one beside the other.

Shares (:mod:`graphcheck.precision.layers`) say who is likely, and constants that make up for each other are only seen by trying.
What is measured is the root of the mean square over all outputs at some inputs, each in its largest magnitude, and over draws of
roundings, the same for all that is tried: the roundings of one input are chance, where outputs are few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.parting.budget import work
from graphcheck.precision import walks
from graphcheck.precision.layers import Layer, Owners
from graphcheck.precision.program import Key, Program, Result, Step

_OUTPUTS, _MOST = 2000, 8  # numbers at the outputs that a mean is taken over, by so many draws at most
_TRIED, _WIDTH = (6, 32), 2  # nodes for each place at least and at most, and choices that are carried on (a beam search)
_WORK = 2e9  # that all tries may take
Name = tuple[str, str]


def effort(program: Program) -> float:
    """What one walk costs, as :func:`graphcheck.parting.budget.work` counts."""
    terms = program.terms
    return sum(work(terms.terms[cls]) for cls in terms.order([r.cls for step in program.steps for r in step.results]))


@dataclasses.dataclass(frozen=True, eq=False)
class At:
    """A copy at one input: its steps, what they are fed, how far that is from what the other model is fed, and the other's
    outputs."""

    program: Program
    fed: Mapping[Key, np.ndarray]
    errors: Mapping[Key, np.ndarray]
    wide: Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Tries:
    """A copy that is walked again and again with some nodes in float32: at some inputs, with draws of a seed, ``tick`` being
    called before each step."""

    inputs: Sequence[At]
    seed: int
    tick: Callable[[], None]

    def keep(self, ranked: Sequence[Layer], count: int, first: Sequence[Name] = ()) -> list[dict[str, Any]]:
        """So many nodes in the order in which they are to be kept, each with what deviation is left then; those that overflow
        come ``first``."""
        owners = [Owners.of(each.program) for each in self.inputs]
        count = min(count, len(ranked))
        costs = max(1, count) * _WIDTH * sum(self._draws() * effort(each.program) for each in self.inputs)
        most = int(np.clip(_WORK / costs, *_TRIED))
        names = [(row.node, row.op_type) for row in ranked if row.op_type != "Cast"]
        given = [name for name in dict.fromkeys(first) if name[1] != "Cast"][:count]
        begun = tuple((name, self.left(frozenset(given[: place + 1]), owners)) for place, name in enumerate(given))
        found: list[tuple[tuple[Name, float], ...]] = [begun]  # choices, each with what is left once it is made
        for _ in range(min(count, len({*names, *given})) - len(given)):
            tried: dict[frozenset[Name], tuple[tuple[Name, float], ...]] = {}
            for some in found:
                before = frozenset(name for name, _ in some)
                for name in [n for n in names if n not in before][:most]:
                    if before | {name} not in tried:
                        tried[before | {name}] = (*some, (name, self.left(before | {name}, owners)))
            found = sorted(tried.values(), key=lambda some: some[-1][1])[:_WIDTH]
        whole = self.left(frozenset(), owners)
        return [{"node": node, "op_type": op_type, "left": left, "before": whole} for (node, op_type), left in found[0]]

    def left(self, kept: frozenset[Name], owners: Sequence[Owners]) -> float:
        """The deviation with some nodes in float32."""
        count, total, draws = self._count(), 0.0, self._draws()
        for each, own in zip(self.inputs, owners, strict=True):
            mine = {key for key, name in own.constants.items() if name in kept and key in each.errors}
            fed = {key: x - each.errors[key] if key in mine else x for key, x in each.fed.items()}
            for draw in range(draws):
                made = walks.walk(each.program, fed, self._settle(kept, own, draw), tick=self.tick)
                parts = [(made[n] - y) / (walks.largest(y) or 1.0) for n, y in each.wide.items() if n in made]
                total += sum(float(np.square(part).sum()) for part in parts)
        return float(np.sqrt(total / (draws * count))) if count else 0.0

    def _count(self) -> int:
        return sum(y.size for each in self.inputs for y in each.wide.values())

    def _draws(self) -> int:
        return min(_MOST, -(-_OUTPUTS // max(self._count(), 1)))

    def _settle(self, kept: frozenset[Name], owners: Owners, draw: int) -> walks.Settle:
        """Random roundings of all but the results of some nodes: of each step its own, whatever is kept."""

        def settle(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
            kind = result.kind
            if kind is None or step.keeps or owners.names[step] in kept:
                return value
            random = np.random.default_rng([self.seed, draw, *result.key[1:]])
            near = kind.rounded(value)
            apart = random.uniform(-1, 1, value.shape) * kind.room(value)
            beyond = near - value if not kind.is_float else 0.0  # what an end cuts off stays cut off
            return np.where((near == value) | (np.abs(beyond) > 0.5), near, value + apart)

        return settle
