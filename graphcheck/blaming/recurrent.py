"""A recurrence judged step by step: each of its states is computed from the one before it as the device dumped that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphcheck.blaming.device import Device
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Move
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Real

OPS = frozenset(("LSTM", "GRU", "RNN"))


def stepwise(terms: Terms, domain: Device, roots: Sequence[int], dumped: Real) -> dict[int, Real]:
    """Values of the ``roots``, the first of which holds every state, in the order of its map, and was ``dumped``."""
    whole = terms.find(roots[0])
    verb, args = terms.terms[whole].verb, [terms.find(a) for a in terms.terms[whole].args]
    if not isinstance(verb, Move) or len(args) < 2 or verb.map.has_zero:
        return evaluate(terms, domain, roots)
    sizes = [terms.size(a) for a in args]
    ends = np.cumsum(sizes)
    value, error = (np.zeros(int(ends[-1])) for _ in range(2))
    value[verb.map.index - 1], error[verb.map.index - 1] = dumped.value, np.broadcast_to(dumped.error, dumped.raw.shape)
    states = {a: Real(value, error).part(slice(end - size, end)) for a, end, size in zip(args, ends, sizes, strict=True)}
    order = {cls: place for place, cls in enumerate(terms.order([whole]))}
    known: dict[int, Real] = {}
    exact: dict[int, Real] = {}
    for state in sorted(states, key=order.__getitem__):
        seen: dict[int, Real] = {}
        exact[state] = evaluate(terms, domain, [state], given=known, visit=seen.__setitem__)[state]
        known |= seen | {state: states[state]}
    made = evaluate(terms, domain, roots[1:], given=known) if roots[1:] else {}
    return made | {whole: domain.move([exact[a] for a in args], verb.map)}
