"""Large windows of a Conv, made a few rows at a time where a contraction reads them row by row."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided, normal
from graphcheck.kernel.terms.verbs import Contract, Move

LARGE, BLOCK = 2_000_000, 1_000_000  # elements of windows that are not made whole, and of those made at a time
GROWTH = 2  # times the elements of their source


def is_large(terms: Terms, cls: int) -> bool:
    """Whether a class is windows that are much larger than what they are made of."""
    term = terms.terms[cls]
    return isinstance(term.verb, Move) and term.size > max(LARGE, GROWTH * sum(map(terms.size, term.args)))


def by_rows(verb: object) -> bool:
    """Whether a verb reads its first operand row by row."""
    return isinstance(verb, Contract) and verb.batches == (1, 1)


def blocks(map_: Map, width: int) -> Iterator[tuple[slice, Map]]:
    """(rows, their map): blocks of the rows of [rows, ``width``]."""
    if map_.form is not None:
        for at, form in parts(map_.form, width):
            size = (at.stop - at.start) * width
            yield at, Map(form, None if form is not None else np.zeros(size, np.int32), b"")
        return
    step, count = max(1, BLOCK // width), map_.size // width
    for at in (slice(row, min(row + step, count)) for row in range(0, count, step)):
        yield at, Map(None, map_.at(np.arange(at.start * width, at.stop * width)), b"")


def parts(form: Strided, width: int) -> Iterator[tuple[slice, Strided | None]]:
    """(rows, their form or None for padding alone): blocks of the rows of [rows, ``width``], cut along the first digits."""
    at = 0
    while at + 1 < len(form.box) and math.prod(form.box[at:]) > BLOCK and not math.prod(form.box[at + 1 :]) % width:
        at += 1
    at -= bool(at)
    inside = math.prod(form.box[at + 1 :])
    step = form.box[at] if inside % width else max(1, BLOCK // inside)
    row = 0
    for outer in np.ndindex(*form.box[:at]):
        for first in range(0, form.box[at], step):
            fixed = (*outer, first)
            box = (min(step, form.box[at] - first), *form.box[at + 1 :])
            start = form.start + sum(s * v for s, v in zip(form.strides, fixed, strict=False))
            guards = []
            for coefficients, low, high in form.guards:
                known = sum(c * v for c, v in zip(coefficients, fixed, strict=False))
                guards.append((coefficients[at:], low - known, high - known))
            rows = math.prod(box) // width
            yield slice(row, row + rows), normal(box, start, form.strides[at:], guards)
            row += rows
