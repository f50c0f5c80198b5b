"""Inputs that one of two models does not take: by what onnxruntime says of them, or by the operators' definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import words
from graphcheck.errors import GraphcheckError
from graphcheck.interface import inputs
from graphcheck.interface.ports import Interface
from graphcheck.options import Options
from graphcheck.parting.difference import replayed
from graphcheck.parting.witness import Witness, as_executed, source_of
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.session import RunError

_FAR = 0.01  # of an output's largest magnitude: no rounding


def refusal(
    sources: tuple[Any, Any],
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    shapes: dict[str, tuple[int, ...]],
    options: Options,
    stated: int | None = None,
    undefined: str | None = None,
) -> Witness | None:
    """An input that one model runs and the other refuses, or answers in another shape, in onnxruntime.

    ``stated``: the side whose operators, by their definitions, take no shapes that it declares. Of that one it is enough
    that onnxruntime does not load it. ``undefined`` says of an operator of one side alone that it does not take these shapes:
    then it is enough that what onnxruntime gives all the same is far from what it gives of the other.
    """
    arrays = inputs.generate(interface, shapes, inputs.InputSpec(options.seed))
    feeds = inputs.side_inputs(interface, arrays)
    results: list[Any] = []
    for source, model, feed in zip(sources, models, feeds, strict=True):
        try:
            with RemoteSession(source_of(source, model), optimizations="off") as session:
                results.append(session.run(feed))
        except GraphcheckError as error:
            results.append(error)
    failed = [isinstance(r, GraphcheckError) for r in results]
    text = words.shapes(shapes)
    if any(
        isinstance(r, RunError) and r.kind != "run" and (side, r.kind) != (stated, "load") for side, r in enumerate(results)
    ):
        return None  # a missing kernel, an invalid model, a crash, a time-out: they say nothing of the function
    if failed[0] != failed[1]:
        runs, refuses = ("A", "B") if failed[1] else ("B", "A")
        reason = f"{runs} runs at {text} and {refuses} does not: {results[failed[1]]}"
    elif not failed[0]:
        shown = None
        for port in interface.outputs:
            if port.a is not None and port.b is not None:
                x, y = results[0][port.a.name].shape, results[1][port.b.name].shape
                shown = shown or (
                    f"output {port.key!r} has shape {list(x)} in A and {list(y)} in B" if x != y else None
                )
        if shown is None and undefined is not None:
            far = (name for name, both in as_executed(interface, results).items() if _far(*both))
            shown = next((f"{undefined}, and output {name!r} of onnxruntime differs far beyond rounding" for name in far), None)
        if shown is None:
            return None
        reason = f"at {text} {shown}"
    else:
        return None
    return Witness(arrays, reason, "shape", options.seed, None, None).save(models, options)


def _far(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two outputs differ by more than a hundredth of the largest magnitude, or are not finite at other places."""
    whole = np.isfinite(x)
    if not np.array_equal(whole, np.isfinite(y)):
        return True
    return replayed(x, y) > _FAR * float(np.abs(x[whole]).max(initial=0.0))
