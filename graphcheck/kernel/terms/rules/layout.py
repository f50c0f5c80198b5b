"""The layout of elementwise functions in normal form: movement that all operands share stands outside, but what leaves out
all that they were joined with or padded by stands inside: the first channels of Relu(Concat(x, 0)) are Relu(x)."""

from __future__ import annotations

from collections.abc import Sequence

from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.rules.flattening import flatten
from graphcheck.kernel.terms.store import Found, Operand, Terms
from graphcheck.kernel.terms.verbs import Ew

_DEEP = 64  # elementwise functions behind what is joined, at most


def arrange(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Found | None:
    """``fn`` of the operands as they are before a movement that is behind it then; None where there is none such."""
    wide = [(c, m) for c, m in views if m is not None or terms.terms[c].size > 1]
    if wide and not [m for _, m in wide if m is not None]:
        return None
    if not wide:
        return None if size == 1 else (0, terms.seen((terms.placed(fn, views, 1), None), size))
    first = wide[0]
    if first[1] is not None and not first[1].has_zero and all(m is first[1] for _, m in wide):
        sizes = {terms.size(c) for c, _ in wide}
        if len(sizes) == 1:
            return 0, terms.move((terms.ew(fn, [(c, None) for c, _ in views], sizes.pop()),), first[1])
    return _pivoted(terms, views, fn, size)


def _pivoted(terms: Terms, views: Sequence[Operand], fn: str, size: int) -> Found | None:
    """Every operand pulled back by the layout of the oldest computed one, so that the layout does not matter."""
    computed = [(c, m) for c, m in views if terms.terms[c].size == size and c not in terms.arrays]
    if not [m for _, m in computed if m is not None]:
        return None
    for _, map_ in sorted(computed, key=lambda view: (terms.constant_like(view[0]), view[0], view[1].key if view[1] else b"")):
        if map_ is None:
            return None
        back = terms.maps.inverse(map_)
        if back is not None:
            moved = [
                (c, terms.whole(c, terms.maps.compose(m, back)) if terms.size(c) > 1 else None) for c, m in views
            ]
            return 0, terms.move((terms.placed(fn, moved, size),), map_)
    return None


def unjoined(terms: Terms, sources: tuple[int, ...], map_: Map) -> tuple[tuple[int, ...], Map]:
    """Movement in normal form, moved inside of an elementwise function where no operand is joined any more by that."""
    sources, map_ = flatten(terms, sources, map_)
    if len(sources) == 1 and 1 < terms.joined[sources[0]] <= _DEEP and map_.size and not map_.has_zero:
        key = sources[0], map_
        if key not in terms.unjoined:
            terms.unjoined[key] = _inside(terms, *key)
        if (found := terms.unjoined[key]) is not None:
            return flatten(terms, (terms.find(found),), terms.maps.whole(map_.size))
    return sources, map_


def _inside(terms: Terms, cls: int, map_: Map) -> int | None:
    term, views = terms.term(cls), []
    if not isinstance(term.verb, Ew):
        return None
    for arg, inner in zip(term.args, term.verb.maps, strict=True):
        scalar = inner is None and terms.size(arg) == 1 < term.size
        view: Operand = arg, None if scalar else terms.maps.compose(inner, map_)
        if terms.joined[arg]:
            view = terms.seen(view, map_.size), None
        if terms.joined[view[0]]:
            return None
        views.append(view)
    return terms.ew(term.verb.fn, views, map_.size)
