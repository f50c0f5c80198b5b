"""A patchify whose projection is kept from it by a normalization: named, since it cannot become a Conv."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.patches.contraction import Traced
from graphcheck.patches.product import operands
from graphcheck.patches.reading import read
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import NoWindow, recognise

_STEPS = 24  # nodes looked at behind a projection: a decomposed LayerNormalization has nine


def refusal(traced: Traced) -> Refusal | None:
    """The node that stands between a patchify and this projection, if its data would be windows without it."""
    trial, data = traced.trial, traced.data
    if math.prod(traced.kernel_shape) != 1:
        return None
    term = trial.terms.terms[data.cls]
    if term.kind == "move" and len(term.args) > 1:
        return None
    begin, _ = trial.index_of(data.cls)
    carrier = trial.carrier(begin)
    for blocker, value in _moved_behind(carrier, trial):
        tensor = trial.tensor(value)
        assert tensor is not None
        if _is_patchify(tensor, data.shape, trial):
            return Refusal(
                f"{blocker.op_type} stands between the patchify and the projection", model_.node_name(blocker)
            )
    return None


def unknown_weight(traced: Traced) -> Refusal | None:
    """A contraction of windows with a weight that is an input of the model, or moved from one."""
    trial, node, inputs = traced.trial, traced.node, traced.inputs
    for data, weight in ((0, 1), (1, 0)):
        x, w = inputs[data], inputs[weight] if len(inputs) > weight else None
        if not isinstance(x, Tensor) or not isinstance(w, Tensor) or (traced.is_conv and data):
            continue
        carrier = trial.carrier(trial.index_of(w.cls)[0]) if len(trial.sources(w.cls)) == 1 else None
        if carrier is None or carrier.producer() is not None:
            continue
        stand_in = list(inputs)
        stand_in[weight] = np.ones(w.shape, w.dtype)
        if operands(node, stand_in) is None:
            continue  # an Einsum of three
        try:
            found = read(dataclasses.replace(traced, inputs=tuple(stand_in)))
        except NoWindow:
            continue
        if found is not None and not found.flattened:
            return Refusal("its weight is not constant", model_.node_name(traced.source))
    return None


def _moved_behind(value: ir.Value | None, trial: Trial) -> list[tuple[ir.Node, ir.Value]]:
    """(node, its operand) where a chain of same-sized elementwise nodes behind ``value`` reads moved data."""
    found: list[tuple[ir.Node, ir.Value]] = []
    queue, looked = [value], 0
    size = _size(value, trial)
    done: set[ir.Value] = set()
    while queue and looked < _STEPS:
        at = queue.pop(0)
        producer = at.producer() if at is not None else None
        tensor = trial.tensor(at)
        if producer is None or tensor is None or at in done or trial.terms.terms[tensor.cls].kind == "leaf":
            continue  # an input, or a contraction's result
        done.add(at)  # type: ignore[arg-type]
        looked += 1
        same = {v for v in producer.inputs if _size(v, trial) == size}
        if len(same) != 1:
            continue  # a residual sum, a gate: no normalization
        (operand,) = same
        tensor = trial.tensor(operand)
        if tensor is not None and operand is not None:
            kind = trial.terms.terms[tensor.cls].kind
            if kind == "move":
                found.append((producer, operand))
            elif kind != "leaf":
                queue.append(operand)
    return found


def _size(value: ir.Value | None, trial: Trial) -> int:
    tensor = trial.tensor(value)
    return -1 if tensor is None else math.prod(tensor.shape)


def _is_patchify(moved: Tensor, shape: tuple[int, ...], trial: Trial) -> bool:
    if len([a for a in trial.terms.terms[moved.cls].args if trial.terms.scalar(a) != 0.0]) != 1:
        return False
    begin, index = trial.index_of(moved.cls)
    for value in trial.carriers.get(begin, ()):
        origin = trial.tensor(value)
        assert origin is not None
        try:
            window = recognise(index.reshape(-1, moved.shape[-1]), origin.shape)
        except NoWindow:
            continue
        return window.is_window and sum(a.kernel > 1 for a in window.axes if a.role == "spatial") > 0
    return False
