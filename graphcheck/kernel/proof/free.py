"""Sizes that are free: for which symbols a proof at one size is a proof at every size, and where the graphs change with one.

If all outputs of both graphs are rows of one symbol (:mod:`graphcheck.kernel.ops.rows`), block n of each is the same
function of row n for every size N: what is proved at one N is proved at all of them. docs/explanation.md has the theorem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from graphcheck import words
from graphcheck.kernel.every import Sizing
from graphcheck.kernel.ops import rows
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.segments import Everywhere, Segments

_MOST, LARGEST = 12, 2048  # so many sizes at breakpoints are sampled, up to this one


class Tried(Protocol):
    """Both graphs at one choice of sizes; ``pair`` is None where they could not be traced."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def pair(self) -> Pair | None: ...

    @property
    def prover(self) -> Prover | None: ...

    @property
    def proved(self) -> bool: ...


@dataclasses.dataclass(frozen=True)
class Free:
    """The free sizes of a comparison: ``places`` has them by name, as (input, axis) wherever they stand; ``outputs`` pairs the
    positions of outputs in A and B, by A's name; ``alone`` has the sizes that are free in one model (0: A, 1: B) and 1 in
    the other, with their places."""

    places: Mapping[str, Sequence[tuple[str, int]]]
    outputs: Mapping[str, tuple[int, int]]
    alone: Mapping[str, tuple[int, Sequence[tuple[str, int]]]]

    @property
    def typed(self) -> dict[str, Sequence[tuple[str, int]]]:
        """All of them, to type tensors by."""
        return {**self.places, **{name: there for name, (_, there) in self.alone.items()}}

    def row_by_row(self, attempts: Sequence[Tried]) -> list[str]:
        """The symbol of one model that does to each row what it does to one alone, which is what the other model takes.

        One at most, as of :meth:`every`: what is typed for each of two beside one size of the other says nothing of both.
        """
        pairs = [attempt.pair for attempt in attempts]
        return [
            name
            for name, (side, _) in self.alone.items()
            if pairs and all(p is not None and not self._not_rows(p, name, side) for p in pairs)
        ][:1]

    def _not_rows(self, pair: Pair, symbol: str, side: int) -> list[tuple[str, rows.Kind]]:
        """Compared outputs of one model that have no axis of one element for each row, with their types."""
        kinds = _sizing((pair.a, pair.b)[side], symbol).outputs
        found = [(name, kinds[at[side]]) for name, at in self.outputs.items()]
        return [(name, kind) for name, kind in found if not (isinstance(kind, rows.Rows) and kind.outer == kind.inner == 1)]

    def every(self, attempts: Sequence[Tried]) -> list[str]:
        """The symbols at whose every size a proof at all of ``attempts`` holds.

        All of them at once where the graphs are the same by names and segments; else one at most, the batch if it may be,
        since its types were found at sampled sizes of the others. None beside :meth:`row_by_row`.
        """
        if self.row_by_row(attempts):
            return []
        ordered = sorted(self.places, key=lambda symbol: self.places[symbol][0][1] != 0)
        found = [symbol for symbol in ordered if self._by_rows(symbol, attempts)][:1]
        if len(found) < len(self.places) and attempts:  # names and segments cost more
            told = [self.everywhere(attempt) for attempt in attempts]
            if all(each is not None and each.holds for each in told):
                return list(self.places)
        return found

    def everywhere(self, attempt: Tried) -> Everywhere | None:
        """What names and segments say of all sizes, once a proof at one is done."""
        pair, prover = attempt.pair, attempt.prover
        if pair is None or prover is None or not attempt.proved:
            return None
        if pair.everywhere is None:
            pair.everywhere = Segments(pair, prover, self.places).everywhere(list(self.outputs.values()))
            if pair.everywhere.holds:
                prover.tiers += pair.everywhere.tiers
        found: Everywhere = pair.everywhere
        return found

    def _by_rows(self, symbol: str, attempts: Sequence[Tried]) -> bool:
        pairs = [attempt.pair for attempt in attempts]
        told = (p is not None and all(reason is None for *_, reason in self._outputs(p, symbol)) for p in pairs)
        return bool(pairs) and all(told)

    def _outputs(self, pair: Pair, symbol: str) -> Iterator[tuple[str, rows.Kind, rows.Kind, str | None]]:
        """Each pair of outputs with its types, and why it is not the same at every size: None where it is."""
        a, b = (_sizing(trace, symbol) for trace in (pair.a, pair.b))
        for name, (i, j) in self.outputs.items():
            x, y = a.outputs[i], b.outputs[j]
            both = (rows.is_fixed(x) and rows.is_fixed(y)) or (isinstance(x, rows.Rows) and x == y)
            mixed = isinstance(x, rows.Mixed) or isinstance(y, rows.Mixed)
            yield name, x, y, None if both else "" if mixed else "it has the size on another axis, or not at all"

    def beyond(self, attempts: Sequence[Tried]) -> Iterator[tuple[str, int]]:
        """Sizes at breakpoints that were not tried, the nearest first, as (symbol, size); ``attempts`` may grow meanwhile."""
        tried: set[tuple[str, int]] = set()
        while len(tried) < _MOST:
            new = [
                (symbol, size)
                for symbol in self.places
                if symbol not in self.every(attempts)
                for size in sorted(breakpoints(symbol, attempts))
                if size <= LARGEST and (symbol, size) not in tried
            ]
            if not new:
                return
            tried.add(new[0])
            yield new[0]

    def limits(self, attempts: Sequence[Tried]) -> dict[str, Any]:
        """For each symbol for which a proof does not hold at every size: why, the sizes tried, the breakpoints."""
        found: dict[str, Any] = {}
        for symbol, ((key, axis), *_) in self.places.items():
            if symbol in self.every(attempts):
                continue
            reasons: dict[str, Any] = {"a": None, "b": None, "output": None}
            for pair in [a.pair for a in attempts if a.pair is not None]:
                for name, x, y, reason in self._outputs(pair, symbol):
                    for side, kind in (("a", x), ("b", y)):
                        if isinstance(kind, rows.Mixed):
                            reasons[side] = reasons[side] or {"node": kind.node, "reason": kind.reason}
                    if reason:
                        reasons["output"] = reasons["output"] or {"name": name, "reason": reason}
            tried = sorted({attempt.shapes[key][axis] for attempt in attempts})
            breaks = sorted(breakpoints(symbol, attempts).items())
            known = [self.everywhere(attempt) for attempt in attempts]
            reasons["apart"] = next((each.node for each in known if each is not None and each.node), None)
            rows_ = [{"size": size, "node": node, "tried": size in tried} for size, node in breaks]
            found[symbol] = {**reasons, "reason": _phrase(reasons), "sizes": tried, "breakpoints": rows_}
        kept = self.row_by_row(attempts)
        for symbol, (of, _) in self.alone.items():
            others = [row for a in attempts if a.pair is not None for row in self._not_rows(a.pair, symbol, of)]
            mixed = next((kind for _, kind in others if isinstance(kind, rows.Mixed)), None)
            reasons = {"a": None, "b": None, "output": None}
            reasons["ab"[of]] = mixed and {"node": mixed.node, "reason": mixed.reason}
            if others and not mixed:
                reasons["output"] = {"name": others[0][0], "reason": "it has no axis of one element for each row"}
            if symbol not in kept:
                found[symbol] = {**reasons, "reason": _phrase(reasons), "sizes": [1], "breakpoints": []}
        return found


def _phrase(reasons: Mapping[str, Any]) -> str:
    """What keeps a proof from holding at every size."""
    sides = [(side, reasons[side]) for side in "ab" if reasons[side]]
    told = [f"{words.short(found['node'])} of {side.upper()}: {found['reason']}" for side, found in sides]
    if output := reasons["output"]:
        told.append(f"output {words.short(output['name'])}: {output['reason']}")
    if reasons.get("apart"):
        told.append(f"{words.short(reasons['apart'])} of B is not shown to be what A has at every size")
    return "; ".join(told) or "another size is free beside it, or one of the graphs could not be traced"


def _sizing(trace: Any, symbol: str) -> Sizing:
    found: Sizing = next(s for s in trace.sizings if s.symbol.name == symbol)
    return found


def breakpoints(symbol: str, attempts: Sequence[Tried]) -> dict[int, str]:
    """Sizes on both sides of where a graph changes with ``symbol``, with the node that changes."""
    found: dict[int, str] = {}
    for attempt in attempts:
        for trace in (attempt.pair.a, attempt.pair.b) if attempt.pair is not None else ():
            found = {**_sizing(trace, symbol).breaks, **found}
    return found
