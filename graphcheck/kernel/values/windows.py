"""Large windows of a Conv, made a few rows at a time where a contraction reads them row by row."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from graphcheck.kernel.terms.guards import Guard, extent
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.pieces import Pieces, refined
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.strided import Strided, normal
from graphcheck.kernel.terms.verbs import Contract, Move, Rows

LARGE, BLOCK, _TOLD = 2_000_000, 1_000_000, 2**17  # elements of windows: not made whole; made at a time, by forms; by a table
GROWTH = 2  # times the elements of their source


def is_large(terms: Terms, cls: int) -> bool:
    """Whether a class is windows that are much larger than what they are made of."""
    term = terms.terms[cls]
    return isinstance(term.verb, Move) and term.size > max(LARGE, GROWTH * sum(map(terms.size, term.args)))


def by_rows(verb: object, map_: Map) -> bool:
    """Whether a verb reads its first operand, windows by a map, row by row: a maximum, or a product; of several batches, each
    with a matrix of its own (a depthwise Conv), where a digit of the map begins with each."""
    if isinstance(verb, Rows):
        return verb.fn in ("max", "min") and verb.k > 0
    if not isinstance(verb, Contract) or verb.batches[0] != verb.batches[1]:
        return False
    boxes = [form.box for form in map_.pieces or ()]
    ends = (math.prod(box[at:]) == verb.m * verb.k for box in boxes for at in range(len(box)))
    return verb.batches[0] == 1 or (len(boxes) == 1 and any(ends))


def block(verb: Contract, rows: slice) -> tuple[slice, Contract]:
    """(batches, their contraction): what a block of rows is to a contraction."""
    count = rows.stop - rows.start
    first, many = rows.start // verb.m, max(1, count // verb.m)
    return slice(first, first + many), dataclasses.replace(verb, batches=(many, many), m=count // many)


def run(start: int, count: int) -> Map:
    """So many elements of one source, from one on."""
    form = normal((count,), start, (1,), ())
    assert form is not None
    return Map((form,), None, b"")


def blocks(map_: Map, width: int) -> Iterator[tuple[slice, Map]]:
    """(rows, their map): blocks of the rows of [rows, ``width``]."""
    forms = refined(map_.pieces) if map_.pieces is not None else None
    if forms is not None:
        for at, found in parts(forms, width):
            yield at, Map(found or None, None if found else np.zeros((at.stop - at.start) * width, np.int32), b"")
        return
    step, count = max(1, min(BLOCK, _TOLD) // width), map_.size // width
    for at in (slice(row, min(row + step, count)) for row in range(0, count, step)):
        yield at, Map(None, map_.at(np.arange(at.start * width, at.stop * width)), b"")


def parts(forms: Sequence[Strided], width: int) -> Iterator[tuple[slice, Pieces]]:
    """(rows, their pieces, none for padding alone): blocks of the rows of [rows, ``width``], of forms over one box that is cut
    along its first digits."""
    digits, at = forms[0].box, 0
    while at + 1 < len(digits) and math.prod(digits[at:]) > BLOCK and not math.prod(digits[at + 1 :]) % width:
        at += 1
    at -= bool(at)
    inside = math.prod(digits[at + 1 :])
    step = digits[at] if inside % width else max(1, BLOCK // inside)
    row = 0
    for outer in np.ndindex(*digits[:at]):
        for first in range(0, digits[at], step):
            box = (min(step, digits[at] - first), *digits[at + 1 :])
            rows = math.prod(box) // width
            some = (_after(form, (*outer, first), box) for form in forms)
            yield slice(row, row + rows), tuple(form for form in some if form is not None)
            row += rows


def _after(form: Strided, fixed: tuple[int, ...], box: tuple[int, ...]) -> Strided | None:
    """The part of a form over a ``box`` whose last digits are its last ones, from ``fixed`` first digits on."""
    at = len(fixed) - 1
    start = form.start + sum(s * v for s, v in zip(form.strides, fixed, strict=False))
    guards = []
    for coefficients, low, high in form.guards:
        known = sum(c * v for c, v in zip(coefficients, fixed, strict=False))
        least, most = extent(box, coefficients[at:])
        if low - known > least or high - known < most:
            guards.append((coefficients[at:], low - known, high - known))
    found = _normal(box, form.strides[at:], tuple(guards))  # the same for many parts
    return None if found is None else dataclasses.replace(found, start=found.start + start)


@functools.lru_cache(4096)
def _normal(box: tuple[int, ...], strides: tuple[int, ...], guards: tuple[Guard, ...]) -> Strided | None:
    return normal(box, 0, strides, guards)
