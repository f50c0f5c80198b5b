"""Deviations of outputs that are quantized, in quantization steps: a tie that moves by one of them is no rounding of float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir

from graphcheck.interface.ports import Interface
from graphcheck.kernel.ops import movement

_WHOLE = 1e-3  # how near to a whole number of steps a deviation has to lie


def in_steps(models: tuple[ir.Model, ir.Model], interface: Interface, runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each output that both models quantize by one scale, where it deviates by whole steps, at the run in which
    the most elements do; its rows in ``runs`` have the ``step`` and how many of them, ``steps``, the largest deviation is."""
    for pair in interface.outputs:
        if pair.a is None or pair.b is None:
            continue
        step, other = (_step(model, port.name) for model, port in zip(models, (pair.a, pair.b), strict=True))
        if step is None or step != other:
            continue
        rows = [(row, at) for at, run in enumerate(runs, 1) for row in run["outputs"] if row["a"] == pair.a.name]
        for row, _ in rows:
            row |= {"step": step, "steps": None if row["max_abs"] is None else row["max_abs"] / step}
        if not rows:
            continue
        row, at = max(rows, key=lambda found: found[0]["unequal"] or 0)
        steps = round(row["steps"] or 0)
        if steps and abs(row["steps"] - steps) < _WHOLE:
            by = "exactly one step" if steps == 1 else f"at most {steps:,} steps"
            where = f"at {row['unequal']:,} elements" + (f" (in run {at})" if len(runs) > 1 else "")
            yield f"output {pair.key!r} is quantized in steps of {step:.6g}: it differs by {by} {where}"


def _step(model: ir.Model, name: str) -> float | None:
    """The scale of the DequantizeLinear that gives an output, behind movement alone; None where there is no single one."""
    value: ir.Value | None = next((output for output in model.graph.outputs if output.name == name), None)
    while value is not None and (node := value.producer()) is not None and node.domain in ("", "ai.onnx"):
        if node.op_type == "DequantizeLinear":
            scale = node.inputs[1].const_value if node.inputs[1] is not None else None
            return float(scale.numpy().reshape(-1)[0]) if scale is not None and scale.size == 1 else None
        if node.op_type != "Identity" and movement.DATA.get(node.op_type) != (0,):  # elements of others may be among them
            return None
        value = node.inputs[0]
    return None
