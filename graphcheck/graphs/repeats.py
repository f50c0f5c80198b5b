"""Repeated blocks in a sequence: the twelve layers of a transformer, told once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MAX_PERIOD, MIN_BLOCK, MIN_REPEAT = 96, 3, 8
"""The longest block in entries; the least weight of a block, and of all its repetitions."""


def repetition(kinds: Sequence[Any], at: int, weights: Sequence[int]) -> tuple[int, int]:
    """(period, times) of the repetition that starts at ``at`` and covers most weight; times is 1 if none is worth telling."""
    best, covered = (1, 1), 0
    for period in range(1, min(MAX_PERIOD, (len(kinds) - at) // 2) + 1):
        if kinds[at] != kinds[at + period]:
            continue
        block, times = kinds[at : at + period], 1
        while kinds[at + times * period : at + (times + 1) * period] == block:
            times += 1
        weight = sum(weights[at : at + period])
        if times > 1 and weight >= MIN_BLOCK and weight * times >= MIN_REPEAT and weight * times > covered:
            best, covered = (period, times), weight * times
    return best
