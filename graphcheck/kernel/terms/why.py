"""Why two classes are one: what ``merge`` is told, so that a proof can be read afterwards, and a wrong one be found.

Most of a proof needs no reason but this: the same key is the same class. What is left are the rules that made a key
(a name such as ``identities 5``: the file in :mod:`graphcheck.kernel.terms.rules` and the number in its docstring) and
the merges, each with one of three reasons (Willsey et al., "egg", ``src/explain.rs``).
"""

from __future__ import annotations

import dataclasses

Join = tuple[int, int]  # two classes


@dataclasses.dataclass(frozen=True, slots=True)
class Congruence:
    """The same verb on operands that were merged before: ``operands`` are the two merged last, then pairs of what it was
    made of and what that is now."""

    operands: tuple[Join, ...]
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Equal fingerprints in a proof window: its tier, the rows that one stands for (0: none does), its primes, log2 of the
    error probability of all that the tier had merged by then, and the rules that made the row of what is in it."""

    tier: str
    rows: int
    primes: int
    log2_error: float
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Rounded:
    """A hypothesis: constants, by name in A and B, that are put in each other's place within their roundings."""

    constants: tuple[tuple[str | None, str | None], ...]


Why = Congruence | Window | Rounded


def distinct(rules: list[str]) -> tuple[str, ...]:
    """The rules, each once, in the order in which they were applied."""
    return tuple(dict.fromkeys(rules))
