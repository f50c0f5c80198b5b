"""A weight that a DequantizeLinear gives, through movement: its integers, so that a rewrite keeps them as they are."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphcheck.graphs import walk
from graphcheck.kernel.ops import reference
from graphcheck.kernel.ops.movement import DATA
from graphcheck.patches.site import Quantized
from graphcheck.patches.trace import Trial


def stored_integers(weight: ir.Value, used: np.ndarray, trial: Trial) -> Quantized | None:
    """The stored integers of ``weight`` in its own order; None where it is not quantized, or not per tensor or channel.

    ``used`` is int [out_channels, ...], the flat elements of the weight that each out_channel reads (-1: none).
    """
    dequantized = _behind(weight, trial)
    if dequantized is None:
        return None
    node, index = dequantized
    stored, scale, *rest = (trial.values.get(v) if v is not None else None for v in node.inputs)
    zero = rest[0] if rest else None
    if not isinstance(stored, np.ndarray) or not isinstance(scale, np.ndarray) or node.attributes.get("block_size"):
        return None
    if zero is not None and (not isinstance(zero, np.ndarray) or np.unique(zero).size != 1):
        return None
    flat = stored.reshape(-1)[index]
    if scale.size == 1:
        return flat, scale.reshape(()), None if zero is None else zero.reshape(-1)[:1].reshape(())
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    along = np.unravel_index(index, stored.shape)[axis % stored.ndim]
    channel = _channel_of(used, flat.size)
    by_channel = np.full(int(channel.max()) + 1, -1)
    by_channel[channel[channel >= 0]] = along[channel >= 0]
    if not bool((by_channel[channel[channel >= 0]] == along[channel >= 0]).all()) or bool((by_channel < 0).any()):
        return None
    return flat, scale.reshape(-1)[by_channel], None if zero is None else zero.reshape(-1)[by_channel]


def _channel_of(used: np.ndarray, size: int) -> np.ndarray:
    """The out_channel that each element of the weight belongs to, -1 where it is not used."""
    channel = np.full(size + 1, -1)
    channel[used.reshape(used.shape[0], -1)] = np.arange(used.shape[0])[:, None]
    return channel[:size]


def _behind(weight: ir.Value, trial: Trial) -> tuple[ir.Node, np.ndarray] | None:
    """The DequantizeLinear behind ``weight`` and which of its elements, flat, each element of ``weight`` is."""
    *moved, last = walk.chain(weight, lambda node: node.inputs[0] if _moves(node) else None)
    node = last.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return None
    shape = np.shape(trial.values[node.outputs[0]])  # type: ignore[arg-type]
    index = np.arange(math.prod(shape)).reshape(shape)
    for step in reversed(walk.makers(moved)):
        if step.op_type != "Identity":
            others = [None if v is None else trial.values[v] for v in step.inputs[1:]]
            index = reference.run(trial.resolved(step), [index, *others])[0]
    return node, index.reshape(-1)


def _moves(node: ir.Node) -> bool:
    return (node.op_type in DATA or node.op_type == "Identity") and len(node.outputs) == 1
