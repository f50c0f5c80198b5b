"""How much a search may do, counted in work and not in time, so that it finds the same on every machine and on every day.

Work is about the number of elements that numpy passes over: some 7e7 of it take a second on one core.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from graphcheck.kernel.terms.verbs import Contract, Term

_CALL = 2000.0  # what the call of a numpy function costs besides its elements,
_PRODUCT = 1 / 16  # and one product of a contraction


def work(term: Term, size: int | None = None) -> float:
    """What one evaluation of a term costs, or of so many of its elements."""
    size = term.size if size is None else size
    return float(_CALL + size * (1 + term.verb.k * _PRODUCT if isinstance(term.verb, Contract) else 1))


class Budget:
    """What is ``spent`` of a ``limit``; both sides of a pair may spend at once."""

    def __init__(self, limit: float = math.inf) -> None:
        self.limit, self.spent = limit, 0.0
        self._lock = threading.Lock()

    def take(self, work: float) -> None:
        """Note work that was done."""
        with self._lock:
            self.spent += work

    @property
    def over(self) -> bool:
        """Whether all is spent."""
        return self.spent > self.limit

    def until(self, work: float) -> Callable[[], bool]:
        """Whether so much more has been spent from now on."""
        end = self.spent + work
        return lambda: self.spent > end
