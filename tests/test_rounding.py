"""Which elements of two constants face each other when they are seen through maps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphcheck.kernel.proof.rounding import _met
from graphcheck.kernel.terms.store import Terms

views = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4)), min_size=1, max_size=12)


@given(views)
def test_what_is_seen_at_the_same_place_faces_each_other(places: list[tuple[int, int]]) -> None:
    terms = Terms(affine="push")
    a, b = np.arange(1, 6, dtype=np.float32), np.arange(11, 15, dtype=np.float32)
    maps = [terms.maps.intern(np.asarray(index)) for index in zip(*[(p % 6, q) for p, q in places], strict=True)]
    one, two = _met(terms, (terms.const(a), maps[0]), (terms.const(b), maps[1]), len(places))
    padded_a, padded_b = np.concatenate([[0.0], a]), np.concatenate([[0.0], b])
    wanted = {(float(padded_a[p % 6]), float(padded_b[q])) for p, q in places}
    assert set(zip(elements(terms, one), elements(terms, two), strict=True)) == wanted


def elements(terms: Terms, cls: int) -> list[float]:
    """The values of a class that is a constant, or one constant's movement."""
    term = terms.terms[cls]
    if cls in terms.arrays:
        return [float(v) for v in np.broadcast_to(terms.arrays[cls], term.size)]
    source = np.concatenate([[0.0], *(terms.arrays[a] for a in term.args)])
    return [float(v) for v in source[term.params[0].index]]
