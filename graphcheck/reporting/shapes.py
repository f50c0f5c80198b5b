"""The drawn record of one model, with the shapes that a trace finds where the model declares none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphcheck.patches.trace import Trial

Sizes = Mapping[str, int]


def graph_of(model: ir.Model, runs: Sequence[Trial] | None = None) -> dict[str, Any]:
    """The ``graph`` record of the JSON (see ``structure.graph_json``), its tensors' shapes traced where no dim is declared.

    A symbolic dim is named where the traces tell which it is ("batch", "batch*196", "height/16"), else None. What cannot
    be traced keeps what it declares. ``runs`` are the model's trials, where they have been made.
    """
    import onnx_ir as ir

    from graphcheck.errors import GraphcheckError, Undecided
    from graphcheck.graphs import structure
    from graphcheck.patches.trace import trials

    graph = structure.graph_json(model)
    try:
        runs = trials(model) if runs is None else runs
    except (GraphcheckError, Undecided, MemoryError, ValueError):
        return graph
    for value, found in runs[0].values.items():
        row = graph["tensors"].get(getattr(value, "name", None))
        seen = [run.values.get(value) for run in runs[:2]]
        if row is None or None not in (row["shape"] or [None]) or any(x is None for x in seen):
            continue
        shapes = [tuple(x.shape) for x in seen if x is not None]
        declared = row["shape"] or [None] * len(shapes[0])
        if {len(shape) for shape in shapes} == {len(declared)}:
            traced = [_dim(dims, [run.sizes for run in runs[:2]]) for dims in zip(*shapes, strict=True)]
            row["shape"] = [t if d is None else d for d, t in zip(declared, traced, strict=True)]
        if row["dtype"] is None and found is not None:
            row["dtype"] = ir.DataType.from_numpy(found.dtype).name.lower()
    for value, found in runs[0].values.items():
        structure.run_at(graph["tensors"].get(getattr(value, "name", None)), found)
    return graph


def _dim(seen: Sequence[int], sizes: Sequence[Sizes]) -> int | str | None:
    """One dim as seen in each trace: a number where all agree, else a multiple or a part of one symbolic dim."""
    if len(set(seen)) == 1:
        return int(seen[0])
    for name in sizes[0]:
        pairs = [(dim, size[name]) for dim, size in zip(seen, sizes, strict=True)]
        for factor in {max(dim // size, 1) for dim, size in pairs}:
            if all(dim == factor * size for dim, size in pairs):
                return name if factor == 1 else f"{name}*{factor}"
        for part in {max(size // max(dim, 1), 1) for dim, size in pairs}:
            if all(dim == size // part for dim, size in pairs):
                return f"{name}/{part}"
    return None
