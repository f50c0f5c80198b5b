"""A store as a whole: its content as one number, and what it holds in a fresh store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from graphcheck import limits
from graphcheck.kernel.terms.store import Terms


def digest(terms: Terms) -> int:
    """A number known only to who knows the whole content of the store; large constants are hashed for it."""
    whole = hashlib.sha256()
    for key in terms._keys:
        whole.update(repr(key).encode())
    return int.from_bytes(whole.digest()[:16], "little")


def anew(terms: Terms, roots: Sequence[int]) -> tuple[Terms, dict[int, int]]:
    """A store of what is below ``roots`` alone, in which merged classes are one from the start, and each class in it.

    A class that a merge turned into movement, or into a constant, is then seen through by all that use it.
    """
    fresh = Terms(terms.rules, contents=terms.contents, coarsest=terms.coarsest, maps=terms.maps)
    known: dict[int, int] = {}
    centred = {terms.find(c) for c in terms.centred}
    for cls in terms.order(roots):
        limits.current().check_time()
        term = terms.terms[cls]
        args = [known[terms.find(a)] for a in term.args]
        known[cls] = (
            fresh.const(terms.arrays[cls], terms.precision.get(cls, 0))
            if cls in terms.arrays
            else fresh.make(term, args)
        )
        if cls in centred:
            fresh.centred.add(known[cls])
        if cls in terms.integers:
            fresh.integers[known[cls]] = terms.integers[cls]
    return fresh, known
