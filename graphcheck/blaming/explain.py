"""Which known mistake a convicted operator looks like: each is evaluated on the same inputs, and has to explain the dump
within the bound at every element."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.blaming import pieces
from graphcheck.blaming.changes import Edit
from graphcheck.blaming.editing import Spot
from graphcheck.blaming.holding import held
from graphcheck.blaming.judge import Judged, Walk
from graphcheck.blaming.known import CHANGES, LAST, LOOKS, Change, Look
from graphcheck.blaming.looks import Seen
from graphcheck.blaming.steps import Cut, cut
from graphcheck.errors import Exhausted, GraphcheckError, Undecided
from graphcheck.kernel.values.float64 import Real
from graphcheck.precision.keeping import effort

_EARLIER = 16  # tensors of the same size that are looked at
_MOST, _WORK = 120, 3e10  # changes that are tried for one tensor, and what they may cost


def explained(model: ir.Model, steps: Cut, walk: Walk, row: Judged, right: Real) -> dict[str, Any] | None:
    """The mistake, with the largest ratio of what is left to the bound; None where none is known. ``right`` is the tensor by the
    bound, from what was dumped before it."""
    dumped = np.asarray(walk.tensors[row.result.name])
    for kind, said, real in _hypotheses(model, steps, walk, row, right):
        ratio = _ratio(walk, row, real, dumped)
        if ratio is not None and ratio <= 1:
            return {"kind": kind, "name": said, "ratio": ratio}
    return None


def _hypotheses(
    model: ir.Model, steps: Cut, walk: Walk, row: Judged, right: Real
) -> Iterator[tuple[str, str, Real]]:
    """Kind, name and what the tensor would be."""
    seen = _seen(walk, row, right)
    yield from _looks(seen, LOOKS)
    yield from _changes(model, steps, walk, row)
    yield from _looks(seen, LAST)


def _looks(seen: Seen, looks: Iterable[Look]) -> Iterator[tuple[str, str, Real]]:
    for look in looks:
        for said, value, error in look.values(seen):
            yield look.kind, said, Real(value, np.broadcast_to(error, value.shape))


def _changes(model: ir.Model, steps: Cut, walk: Walk, row: Judged) -> Iterator[tuple[str, str, Real]]:
    """What the tensor would be if a node of its region were another."""
    try:
        whole = pieces.piece(model, steps, walk, row)
    except GraphcheckError:
        return
    tried, most = 0, min(_MOST, _WORK / max(1.0, effort(walk.program) * len(row.steps) / len(walk.program.steps)))
    nodes = list(whole.graph)
    spots = [(at, change) for change in CHANGES for at in reversed(range(len(nodes))) if nodes[at].op_type in change.ops]
    for at, change in spots:
        for said, edit in edits_of(Spot(whole, nodes[at]), change):
            if tried >= most:
                return
            tried += 1
            real = _changed(whole.clone(), at, edit, walk, row)
            if real is not None:
                node = f" ({nodes[at].op_type} {nodes[at].name or nodes[at].outputs[0].name})" if len(nodes) > 1 else ""
                yield change.kind, f"{said}{node}", real


def edits_of(spot: Spot, change: Change) -> Iterator[tuple[str, Edit]]:
    """What a row of the table gives for a node; nothing of what does not fit it."""
    with contextlib.suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
        yield from change.edits(spot)


def _changed(piece: ir.Model, at: int, edit: Edit, walk: Walk, row: Judged) -> Real | None:
    """What a piece gives once a node is changed; None where that cannot be, or has another shape."""
    name = row.result.name
    try:
        edit(Spot(piece, list(piece.graph)[at]))
        given = pieces.typed(piece.graph.inputs, walk.tensors)
        tensors = {key: np.asarray(walk.tensors[key]).reshape(x.shape) for key, x in given.items()}
        tensors |= {name: np.asarray(walk.tensors[name])}
        return Walk(cut(piece, tensors), tensors, walk.arithmetic).exact(name, row.result)
    except Exhausted:
        raise
    except (Undecided, GraphcheckError, AttributeError, IndexError, KeyError, TypeError, ValueError, MemoryError):
        return None


def _seen(walk: Walk, row: Judged, real: Real) -> Seen:
    dumped = np.asarray(walk.tensors[row.result.name]).reshape(-1).astype(np.float64)
    found = held(row.result, real, dumped, walk.arithmetic.of(row.result.dtype, walk.tensors[row.result.name].dtype))
    beyond = found[0] if isinstance(found, tuple) else np.zeros(dumped.shape, bool)
    reads = {name: np.asarray(walk.tensors[name]) for name in row.reads}
    error = np.broadcast_to(real.error, real.raw.shape)

    def earlier() -> Iterator[tuple[str, np.ndarray]]:
        for name in walk.earlier(row.step, dumped.size)[:_EARLIER]:
            yield name, np.asarray(walk.tensors[name])

    return Seen(real.value, error, dumped, beyond, row.result.shape, row.result.dtype, row.step.op_type, reads, earlier)


def _ratio(walk: Walk, row: Judged, real: Real, dumped: np.ndarray) -> float | None:
    """The largest ratio of deviation to bound if the tensor were this; None where it is not judged at as many elements."""
    if real.raw.size != dumped.size:
        return None
    store = walk.arithmetic.of(row.result.dtype, dumped.dtype)
    with np.errstate(all="ignore"):
        found = held(row.result, real, dumped.reshape(-1).astype(np.float64), store)
        known = np.isfinite(dumped.reshape(-1))
        if isinstance(found, str) or int((found[3] & known).sum()) > row.seen.unknown + dumped.size // 100:
            return None
        return float(np.where(found[1] > 0, found[1] / found[2], 0.0).max(initial=0.0))
