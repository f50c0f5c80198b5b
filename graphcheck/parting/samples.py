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
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Leaf, Move, Opaque

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
    for values in itertools.chain([own] if own else [], drawn(counts, interface, pair.shapes, spec) if counts else ()):
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
    """The integer inputs that alone compute an operand of an unknown function below the roots. Each comes with the number
    of values from 0 on that are legal (the length of the axis that a Gather picks from), or None."""
    whole = {("input", name) for name in _whole(interface)}
    below: dict[int, frozenset[Any]] = {}
    found: dict[str, int | None] = {}
    for cls in terms.order(roots):
        term = terms.terms[cls]
        args = [terms.find(a) for a in term.args]
        leaf = [term.verb.key] if isinstance(term.verb, Leaf) else []
        below[cls] = frozenset(leaf).union(*(below[a] for a in args))
        opaque = term.verb if isinstance(term.verb, Opaque) else None
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
    asked = {name for name, _, _ in spec.ranges}
    for number in range(_DRAWS):
        arrays = generate(interface, shapes, InputSpec(spec.seed + number, ranges=spec.ranges))
        values = {name: arrays[name] for name in counts}
        for position, port in enumerate(interface.inputs):
            names = {p.name for p in port.ports()}
            if port.key not in counts or asked & {"", *names} or any("mask" in n.lower() for n in names):
                continue
            count, old = counts[port.key], values[port.key]
            if number == _DRAWS - 1:
                values[port.key] = np.zeros_like(old)
            elif count:
                rng = np.random.default_rng([spec.seed, number, position])
                new = rng.integers(0, count, old.shape) if number else old.astype(np.int64) % count
                values[port.key] = new.astype(old.dtype)
        yield values
