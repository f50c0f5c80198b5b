"""How far the tensors of two graphs are apart along the depth of the network: rounding grows smoothly, a bug jumps."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import GraphcheckError, Late, Undecided
from graphcheck.files import model as model_
from graphcheck.interface.inputs import Arrays, leaves_of, side_inputs
from graphcheck.interface.ports import Interface
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.parting.alignment import Divergence
from graphcheck.parting.partners import Partners, partners
from graphcheck.parting.witness import unit_of
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.numeric import Run
from graphcheck.runs.pictures import round_to

NEAR = 1e-3
MAX_POINTS, MAX_HELD, MAX_WORK, MAX_SECONDS, MAX_PARAMETERS = 150, 30_000_000, 2e9, 20.0, 2_000_000_000


def curve(
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    pair: Pair,
    divergence: Divergence | None,
    inputs: Arrays,
    seed: int,
    *,
    equal: bool = False,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """[{"a", "b", "op_type", "deviation", "rise", "spread"}] of up to 150 tensors in A's order; [] where the models are too
    large to look at.

    Both models run once in onnxruntime, optimizations off, on ``inputs`` (by pair key, of the shapes that ``pair`` was
    traced at). Tensors are paired by their class; behind a divergence by op and shape, in order, where the functions are
    ``equal`` only if they are near each other. ``deviation`` is the largest |A - B|, ``spread`` the largest that seeded
    noise of the declared type's rounding causes (None where that is not known), both relative to the tensor's largest
    magnitude; ``rise`` is by how much the deviation is above that of all tensors before. The second result is the absolute
    spread of outputs by A's name. Raises :class:`GraphcheckError` where onnxruntime cannot run one of them.
    """
    outputs = [(p.a.name, p.b.name) for p in interface.outputs if p.a is not None and p.b is not None]
    chosen = _chosen(list(partners(models, pair, outputs, divergence)))
    constants = [
        v.const_value for model in models for v in model.graph.initializers.values() if v.const_value is not None
    ]
    if not chosen or sum(c.nbytes for c in constants) > MAX_PARAMETERS:
        return [], {}
    feeds = side_inputs(interface, inputs)
    seen = [
        _run(models[0], feeds[0], [row[0] for row in chosen]),
        _run(models[1], feeds[1], [row[1] for row in chosen]),
    ]
    spread = _spread(pair, [row[2].cls for row in chosen], inputs, seed)
    points: list[dict[str, Any]] = []
    absolute, highest = {}, 0.0
    for a, b, tensor, sure in chosen:
        raw = [found[str(v.name)] for found, v in zip(seen, (a, b), strict=True)]
        if any(value.dtype.kind in "OSUT" for value in raw):
            continue
        x, y = (np.asarray(value, np.float64).reshape(-1) for value in raw)
        apart, scale = _largest(x - y), _largest(x)
        if x.size and np.isfinite(apart) and scale > 0 and (sure or not equal or apart < NEAR * scale):
            noise = spread.get(pair.terms.find(tensor.cls))
            if noise is not None and a.is_graph_output():
                absolute[str(a.name)] = noise
            op = None if (node := a.producer()) is None else model_.op_name(node)
            row = {"a": a.name, "b": b.name, "op_type": op, "deviation": round_to(apart / scale)}
            row["rise"] = round_to(max(0.0, apart / scale - highest))
            highest = max(highest, apart / scale)
            points.append(row | {"spread": None if noise is None else round_to(noise / scale)})
    return points, absolute


def first_curve(
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    pairs: Iterable[Pair],
    divergence: Divergence | None,
    runs: Iterable[Run],
    seed: int,
    equal: bool,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The curve of the first run whose shapes were traced; nothing if there is none, or it cannot be had."""
    ran = [run for run in runs if run.a.error is None and run.b.error is None]
    for pair in pairs:
        run = next((r for r in ran if dict(r.shapes) == dict(pair.shapes)), None)
        if run is not None:
            try:
                return curve(models, interface, pair, divergence, run.inputs, seed, equal=equal)
            except (GraphcheckError, Undecided, MemoryError):
                return [], {}
    return [], {}


def _chosen(rows: list[Partners]) -> list[Partners]:
    """At most 150 of them and 30 million elements, evenly along the network, and the outputs."""
    count = MAX_POINTS
    while rows:
        step = max(1.0, (len(rows) - 1) / max(count - 1, 1))
        places = {round(i * step) for i in range(int((len(rows) - 1) / step) + 1)}
        chosen = [row for i, row in enumerate(rows) if i in places or row[0].is_graph_output()]
        if sum(int(np.prod(row[2].shape)) for row in chosen) <= MAX_HELD or count < 4:
            return chosen
        count = count * 2 // 3
    return []


def _run(model: ir.Model, feed: Arrays, values: list[ir.Value]) -> Arrays:
    """The values in onnxruntime, from a copy of the model that has them as outputs."""
    copy = model.clone()
    named = {v.name: v for node in copy.graph for v in node.outputs}
    present = {v.name for v in copy.graph.outputs}
    names = list(dict.fromkeys(str(v.name) for v in values))
    copy.graph.outputs.extend(named[name] for name in names if name not in present)
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        path = Path(folder, "model.onnx")
        model_.write(copy, path)
        with RemoteSession(path, optimizations="off") as session:
            return session.run(feed, names)


def _spread(pair: Pair, classes: list[int], inputs: Arrays, seed: int) -> dict[int, float]:
    """The largest deviation of each class by one run with noise; fewer, or {}, where that would take too long."""
    terms = pair.terms
    if sum(terms.size(cls) for cls in terms.order(classes)) > MAX_WORK:
        return {}
    leaves = leaves_of(inputs)
    deadline = time.monotonic() + MAX_SECONDS
    found: dict[int, float] = {}

    def check(*_: object) -> None:
        if time.monotonic() > deadline:
            raise Late("the noise run took too long")

    def compare(cls: int, value: Real) -> None:
        check()
        if cls in exact:
            found[cls] = _largest(value.value - exact[cls].value)

    try:
        with np.errstate(all="ignore"):
            exact = evaluate(terms, Float64(leaves, bounds=False), classes, visit=check)
            evaluate(terms, Float64(leaves, bounds=False, unit=unit_of(pair.a, pair.b), seed=seed), classes, visit=compare)
    except (Undecided, KeyError, MemoryError):
        pass  # what was seen until then stands
    return {cls: size for cls, size in found.items() if np.isfinite(size)}


def _largest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0))
