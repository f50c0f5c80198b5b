"""Where -inf stands: masks put it, sums and positive factors keep it, Exp and maxima get rid of it.

Everything that is computed from the inputs is taken as finite, so the places depend on constants alone, but for those of a
mask that is computed itself (the function ``masking``): they are not known, and no row of a Softmax is taken as all masked.
"""

from __future__ import annotations

import functools

import numpy as np

from graphcheck.errors import NotFinite, Refused
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Const, Ew, Move, Opaque, Rows, Verb


def masked(terms: Terms, cls: int, computed: bool | None = None) -> np.ndarray:
    """Where the flat values of a class are -inf, as booleans; raises :class:`NotFinite` where a computed mask puts it, if it
    is not said what to take for that."""
    at: dict[int, np.ndarray] = {}
    for c in terms.order([cls], lambda c: not terms.neginf[c]):
        term = terms.term(c)
        if terms.neginf[c]:
            known = not _is_computed(term.verb) or computed is None
            at[c] = _places(terms, c, term.verb, term.args, term.size, at) if known else np.full(term.size, computed)
        else:
            at[c] = np.zeros(term.size, bool)
    return at[terms.find(cls)]


def may_be_neginf(terms: Terms, verb: Verb, args: tuple[int, ...], size: int) -> bool:
    """Whether -inf stands in the result of a verb; raises :class:`NotFinite` where its meaning depends on signs."""
    if (computed := _is_computed(verb)) or True not in [terms.neginf[a] for a in args]:
        return computed
    mask = function(verb.fn).mask if isinstance(verb, Ew) else ""
    if isinstance(verb, (Move, Opaque)) or mask == "any":
        return True
    if mask == "zero":
        return False
    if mask == "factor":
        rest = [a for a in args if not terms.neginf[a]]
        if len(rest) == len(args) - 1 and all(a in terms.arrays and bool((terms.arrays[a] > 0).all()) for a in rest):
            return True
    match verb:
        case Rows("softmax", rows, k):
            if masked(terms, args[0], False).reshape(rows, k).all(axis=1).any():
                raise Refused("every entry of a softmax row is masked by -inf")
            return False
        case Rows("max"):
            mask = "all"
    if mask == "all":
        return bool(_places(terms, -1, verb, args, size, {a: masked(terms, a) for a in args}).any())
    name = verb.fn if isinstance(verb, (Ew, Rows)) else type(verb).__name__.lower()
    raise NotFinite(f"a -inf constant reaches {name}, where its meaning depends on signs")


def _is_computed(verb: Verb) -> bool:
    return isinstance(verb, Ew) and verb.fn == "masking"


def _places(
    terms: Terms, cls: int, verb: Verb, args: tuple[int, ...], size: int, at: dict[int, np.ndarray]
) -> np.ndarray:
    """Where one verb's result is -inf, given that of its operands."""
    below = [at[a] for a in args]
    match verb:
        case Const():
            return np.isneginf(terms.arrays[cls].astype(np.float64))
        case Move(map_):
            return np.asarray(np.concatenate([np.zeros(1, bool), *below])[map_.index])
        case Ew(fn, maps) if function(fn).mask not in ("", "zero"):
            seen = [b if m is None else b[m.index - 1] for b, m in zip(below, maps, strict=True)]
            join = np.logical_and if function(fn).mask == "all" else np.logical_or
            return np.broadcast_to(functools.reduce(join, seen), (size,))
        case Rows("max", rows, k):
            return np.asarray(below[0].reshape(rows, k).all(axis=1))
    raise NotFinite(f"where the -inf of {type(verb).__name__.lower()} stands is not known")
