"""Integers by which a graph looks things up (the token ids of a Gather) take values before a witness is looked for.

While they are free, what is looked up is an unknown function, which float64 cannot evaluate: no deviation behind it is
known. Traced at values of theirs, it is a choice among elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.errors import Exhausted, Oversized, Undecided
from graphcheck.interface.inputs import Arrays, InputSpec, generate
from graphcheck.interface.ports import Interface, Shapes
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.store import NAN, Terms
from graphcheck.kernel.terms.verbs import Ew, Leaf, Move, Opaque
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.parting.budget import work

_TABLES = 1e8  # work (see budget.py) for comparing two tables that are looked up
_DRAWS = 4  # small numbers, numbers from all the legal ones (twice), and zeros


def pairs(
    pair: Pair,
    interface: Interface,
    roots: Sequence[tuple[int, int]],
    spec: InputSpec,
    given: Mapping[str, np.ndarray] | None,
    build: Callable[[Arrays], Pair],
) -> Iterator[Pair]:
    """The pair traced again by ``build`` at the ``given`` values of all integers, if there are any; then as it is where no
    such integer is free, else traced at a few values of those. The pair itself where none of them can be traced."""
    counts = needed(pair.terms, [c for row in roots for c in row], interface)
    own = {name: given[name] for name in _whole(interface) if name not in pair.concrete} if given is not None else {}
    found = False
    free = set(counts) - _asked(interface, spec)
    made = telling(pair, [c for row in roots for c in row], free, drawn(counts, interface, pair.shapes, spec))
    for values in itertools.chain([own] if own else [], made if counts else ()):
        try:
            traced = build(values)
        except (Exhausted, Oversized):
            raise
        except Undecided:
            continue
        found = True
        yield traced
    if not found or not counts:
        yield pair


def needed(terms: Terms, roots: Sequence[int], interface: Interface) -> dict[str, int | None]:
    """The integer inputs that alone compute an operand of an unknown function below the roots, or where a NaN stands. Each
    comes with the number of values from 0 on that are legal (the length of the axis that a Gather picks from), or None."""
    whole = {("input", name) for name in _whole(interface)}
    below: dict[int, frozenset[Any]] = {}
    found: dict[str, int | None] = {}
    for cls in terms.order(roots):
        term = terms.terms[cls]
        args = [terms.find(a) for a in term.args]
        leaf = [term.verb.key] if isinstance(term.verb, Leaf) else []
        below[cls] = frozenset(leaf).union(*(below[a] for a in args))
        opaque = term.verb if isinstance(term.verb, Opaque) else None
        chosen = isinstance(term.verb, Ew) and term.verb.fn == "mul" and below[cls] & {NAN}
        for arg in args if chosen else ():  # a mask times NaN
            found |= {key[1]: found.get(key[1]) for key in sorted(below[arg]) if below[arg] <= whole}
        for place, arg in enumerate(args if opaque is not None else ()):
            assert opaque is not None
            if below[arg] and below[arg] <= whole:
                found |= {key[1]: found.get(key[1]) for key in sorted(below[arg])}
                name, count = _leaf(terms, arg), _count(opaque.key, place)
                if name is not None and count is not None:
                    found[name] = min(count, found[name] or count)
    return found


def _whole(interface: Interface) -> list[str]:
    """The inputs of integers and booleans."""
    return [p.key for p in interface.inputs if all(q.numpy_dtype().kind in "iub" for q in p.ports())]


def _asked(interface: Interface, spec: InputSpec) -> set[str]:
    """The inputs that have a range of their own."""
    asked = {name for name, _, _ in spec.ranges}
    return {pair.key for pair in interface.inputs if asked & {"", *(port.name for port in pair.ports())}}


def telling(pair: Pair, roots: Sequence[int], free: set[str], draws: Iterator[Arrays]) -> Iterator[Arrays]:
    """The draws; before them the first one with the rows in which two constant tables differ most, where there are such: an
    element of an embedding that was damaged is met by one draw in thousands."""
    first = next(draws, None)
    if first is None:
        return
    rows = {name: found for name in sorted(free) if (found := _unequal_rows(pair.terms, roots, name)).size}
    if rows:
        yield first | {n: np.resize(found, first[n].shape).astype(first[n].dtype) for n, found in rows.items()}
    yield from itertools.chain([first], draws)


def _unequal_rows(terms: Terms, roots: Sequence[int], name: str) -> np.ndarray:
    """The rows, the farthest first, in which two constant tables differ that Gathers of one kind look up by an input."""
    tables: dict[Any, list[int]] = {}
    for cls in terms.order(roots):
        verb, args = terms.terms[cls].verb, terms.terms[cls].args
        if isinstance(verb, Opaque) and _count(verb.key, 1) is not None and _leaf(terms, args[1]) == name:
            tables.setdefault((verb.key[0], verb.key[2][0][0]), []).append(terms.find(args[0]))
    for (node, shape), found in tables.items():
        below = terms.order(found)
        constant = not any(isinstance(terms.terms[c].verb, Leaf | Opaque) for c in below)
        if len(set(found)) != 2 or not constant or sum(work(terms.terms[c]) for c in below) > _TABLES or node[1] != "Gather":
            continue
        values = evaluate(terms, Float64({}, bounds=False), found)
        x, y = (values[cls].value.reshape(shape) for cls in sorted(set(found)))
        axis = dict(node[3]).get("axis", 0) % len(shape)
        apart = np.abs(x - y).max(axis=tuple(i for i in range(len(shape)) if i != axis))
        return np.argsort(-apart, kind="stable")[: np.count_nonzero(apart)]
    return np.zeros(0, np.int64)


def _leaf(terms: Terms, cls: int) -> str | None:
    """The input that a class is, but for movement and casts."""
    term = terms.terms[cls]
    while len(term.args) == 1 and (
        isinstance(term.verb, Move) or (isinstance(term.verb, Ew) and term.verb.fn.startswith(("cast:", "wrap:")))
    ):
        term = terms.terms[terms.find(term.args[0])]
    return str(term.verb.key[1]) if isinstance(term.verb, Leaf) else None


def _count(key: tuple[Any, ...], place: int) -> int | None:
    """The length of the axis that a Gather or GatherElements of this key picks from by its operand number ``place``."""
    (domain, op, _, attributes, _), _, operands = key[:3]
    if domain or op not in ("Gather", "GatherElements") or place != 1:
        return None
    shape = operands[0][0]
    return int(shape[dict(attributes).get("axis", 0)])


def drawn(
    counts: Mapping[str, int | None], interface: Interface, shapes: Shapes, spec: InputSpec
) -> Iterator[Arrays]:
    """Values for the inputs of :func:`needed`, the likeliest to be legal first; asked ranges and masks (0 and 1) are kept."""
    asked = _asked(interface, spec)
    for number in range(_DRAWS):
        arrays = generate(interface, shapes, InputSpec(spec.seed + number, ranges=spec.ranges))
        values = {name: arrays[name] for name in counts}
        for position, port in enumerate(interface.inputs):
            mask = any("mask" in p.name.lower() for p in port.ports())
            if port.key not in counts or port.key in asked or mask:
                continue
            count, old = counts[port.key], values[port.key]
            if number == _DRAWS - 1:
                values[port.key] = np.zeros_like(old)
            elif count:
                rng = np.random.default_rng([spec.seed, number, position])
                new = rng.integers(0, count, old.shape) if number else old.astype(np.int64) % count
                values[port.key] = new.astype(old.dtype)
        yield values
