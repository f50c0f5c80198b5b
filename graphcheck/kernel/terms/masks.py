"""Where -inf stands: constant masks put it, sums and positive factors keep it, Exp and maxima get rid of it.

Everything that is computed from the inputs is taken as finite, so the places depend on constants alone.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Undecided
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms


def masked(terms: Terms, cls: int) -> np.ndarray:
    """Where the flat values of a class are -inf, as booleans."""
    at: dict[int, np.ndarray] = {}
    for c in terms.order([cls], lambda c: not terms.neginf[c]):
        term = terms.term(c)
        if terms.neginf[c]:
            at[c] = _places(terms, c, term.kind, term.params, term.args, term.size, at)
        else:
            at[c] = np.zeros(term.size, bool)
    return at[terms.find(cls)]


def may_be_neginf(terms: Terms, kind: str, params: tuple[Any, ...], args: tuple[int, ...], size: int) -> bool:
    """Whether -inf stands in the result of a verb; raises :class:`Undecided` where its meaning depends on signs."""
    if not any(terms.neginf[a] for a in args):
        return False
    fn = params[0] if params else ""
    mask = function(fn).mask if kind == "ew" else ""
    if kind in ("move", "opaque") or mask == "any":
        return True
    if mask == "zero":
        return False
    if mask == "factor":
        rest = [a for a in args if not terms.neginf[a]]
        if len(rest) == len(args) - 1 and all(a in terms.arrays and bool((terms.arrays[a] > 0).all()) for a in rest):
            return True
    if mask == "all" or (kind, fn) == ("rows", "max"):
        return bool(_places(terms, -1, kind, params, args, size, {a: masked(terms, a) for a in args}).any())
    if kind == "rows" and fn == "softmax":
        if masked(terms, args[0]).reshape(params[1], params[2]).all(axis=1).any():
            raise Refused("every entry of a softmax row is masked by -inf")
        return False
    raise Undecided(
        f"a -inf constant reaches {fn if isinstance(fn, str) and fn else kind}, where its meaning depends on signs"
    )


def _places(
    terms: Terms,
    cls: int,
    kind: str,
    params: tuple[Any, ...],
    args: tuple[int, ...],
    size: int,
    at: dict[int, np.ndarray],
) -> np.ndarray:
    """Where one verb's result is -inf, given that of its operands."""
    if kind == "const":
        return np.isneginf(terms.arrays[cls].astype(np.float64))
    below = [at[a] for a in args]
    if kind == "move":
        return np.asarray(np.concatenate([np.zeros(1, bool), *below])[params[0].index])
    if kind == "ew" and function(params[0]).mask not in ("", "zero"):
        seen = [b if map_ is None else b[map_.index - 1] for b, map_ in zip(below, params[1], strict=True)]
        join = np.logical_and if function(params[0]).mask == "all" else np.logical_or
        return np.broadcast_to(functools.reduce(join, seen), (size,))
    if kind == "rows" and params[0] == "max":
        return np.asarray(below[0].reshape(params[1], params[2]).all(axis=1))
    raise Undecided(f"where the -inf of {kind} stands is not known")
