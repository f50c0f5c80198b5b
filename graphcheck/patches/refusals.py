"""A patchify whose projection is kept from it by a normalization: named, since it cannot become a Conv."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.terms.verbs import Leaf, Move
from graphcheck.patches.contraction import Traced
from graphcheck.patches.product import operands
from graphcheck.patches.reading import read
from graphcheck.patches.site import NOT_CONSTANT, Refusal
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import NoWindow, recognised

_STEPS = 24  # nodes looked at behind a projection: a decomposed LayerNormalization has nine


def normalization_between(traced: Traced) -> Refusal | None:
    """The node that stands between a patchify and this projection, if its data would be windows without it."""
    trial, data = traced.trial, traced.data
    if math.prod(traced.kernel_shape) != 1:
        return None
    term = trial.terms.terms[data.cls]
    if isinstance(term.verb, Move) and len(term.args) > 1:
        return None
    begin, _ = trial.index_of(data.cls)
    carrier = trial.carrier(begin)
    reads = _moved_behind(carrier, trial)
    if reads is None or not _is_patchify(reads[1], data.shape, trial):
        return None
    blocker = reads[0]
    reason = f"{blocker.op_type} stands between the patchify and the projection"
    return Refusal(Coded(reason, "GC303"), model_.node_name(blocker))


def weight_not_constant(traced: Traced) -> Refusal | None:
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
            reading = read(dataclasses.replace(traced, inputs=tuple(stand_in)))
        except NoWindow:
            continue
        if reading is not None and not reading.flattened:
            return Refusal(NOT_CONSTANT, model_.node_name(traced.source))
    return None


def _moved_behind(value: ir.Value | None, trial: Trial) -> tuple[ir.Node, Tensor] | None:
    """(node, its operand) where a chain of same-sized elementwise nodes behind ``value`` reads moved data."""
    size = _size(value, trial)

    def only(node: ir.Node) -> ir.Value | None:
        same = {v for v in node.inputs if _size(v, trial) == size}
        return same.pop() if len(same) == 1 else None  # several: a residual sum, a gate, no normalization

    reader: ir.Node | None = None
    for at in itertools.islice(walk.chain(value, only), _STEPS + 1):
        tensor = trial.tensor(at)
        verb = None if tensor is None else trial.terms.terms[tensor.cls].verb
        if tensor is None or isinstance(verb, Leaf):
            return None  # an input, or a contraction's result
        if isinstance(verb, Move) and reader is not None:
            return reader, tensor
        reader = at.producer()
    return None


def _size(value: ir.Value | None, trial: Trial) -> int:
    tensor = trial.tensor(value)
    return -1 if tensor is None else math.prod(tensor.shape)


def _is_patchify(moved: Tensor, shape: tuple[int, ...], trial: Trial) -> bool:
    if len([a for a in trial.terms.terms[moved.cls].args if trial.terms.scalar(a) != 0.0]) != 1:
        return False
    begin, seen = trial.index_of(moved.cls)
    for value in trial.carriers.get(begin, ()):
        origin = trial.tensor(value)
        assert origin is not None
        try:
            window = recognised(seen, moved.shape[-1], origin.shape)
        except NoWindow:
            continue
        return window.is_window and sum(a.kernel > 1 for a in window.axes if a.role == "spatial") > 0
    return False
