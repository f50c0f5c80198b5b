"""What a store has to know of a constant: its key, its precision, whether it is one value throughout."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphcheck.files.contents import Contents


def key(flat: np.ndarray, contents: Contents) -> tuple[Any, ...]:
    """A key by value: small constants by their exact values, large ones by dtype and content."""
    if flat.size == 1:
        return ("value", float(flat[0]) + 0.0 if flat.dtype.kind not in "iu" else int(flat[0]))
    if flat.size <= 64:
        exact = flat.tolist() if flat.dtype.kind in "iu" else (flat.astype(np.float64) + 0.0).tolist()
        return ("values", tuple(exact))
    return ("content", flat.dtype.name, contents.of(flat))


def significant_bits(dtype: np.dtype[Any]) -> int:
    """The precision of a type; 64 for integers (and for the small floats of quantization), which are never re-rounded."""
    if dtype.kind == "f":
        return {2: 11, 4: 24}.get(dtype.itemsize, 53)
    return 8 if dtype.name == "bfloat16" else 64


def uniform(flat: np.ndarray) -> bool:
    """Whether all elements are the same."""
    first = flat[:1]
    return (
        bool(flat[-1] == first[0]) and bool((flat[: min(flat.size, 64)] == first).all()) and bool((flat == first).all())
    )


def fits(array: np.ndarray, dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` holds the array's values exactly: a float holds integers up to 2**53 for sure."""
    if array.dtype.kind not in "iu" or dtype.kind in "iu":
        return True
    return all(abs(int(edge)) <= 2**53 for edge in (array.min(initial=0), array.max(initial=0)))
