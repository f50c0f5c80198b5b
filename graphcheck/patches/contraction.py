"""One contraction, made once and handed to all that read it: its node, and what it was given in every trial."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.patches import ends
from graphcheck.patches.product import operands
from graphcheck.patches.trace import Trial


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A contraction in one trial: ``node`` is ``source`` as operators see it, ``inputs`` are what it was given there."""

    trial: Trial
    source: ir.Node
    node: Node
    inputs: tuple[Value, ...]

    @functools.cached_property
    def pair(self) -> tuple[int, int]:
        """Positions of the data and of the constant weight."""
        pair = operands(self.node, list(self.inputs))
        assert pair is not None
        return pair

    @property
    def data(self) -> Tensor:
        """The computed operand."""
        data = self.inputs[self.pair[0]]
        assert isinstance(data, Tensor)
        return data

    @property
    def weight(self) -> np.ndarray:
        """The constant operand."""
        weight = self.inputs[self.pair[1]]
        assert isinstance(weight, np.ndarray)
        return weight

    @property
    def values(self) -> tuple[ir.Value, ir.Value]:
        """What the node takes its data and its weight from."""
        data, weight = (self.source.inputs[i] for i in self.pair)
        assert data is not None and weight is not None
        return data, weight

    @property
    def is_conv(self) -> bool:
        """Whether it is a Conv, fused or not."""
        return "Conv" in self.node.op_type

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Sizes of a Conv's kernel; () for any other contraction."""
        return tuple(self.inputs[1].shape[2:]) if self.is_conv else ()  # type: ignore[union-attr]


@dataclasses.dataclass(frozen=True, eq=False)
class Contraction:
    """A node that multiplies a computed tensor by a constant one.

    ``traced`` are the trials that could evaluate it, the first trial first; ``whole`` tells whether all of them could.
    """

    node: ir.Node
    traced: tuple[Traced, ...]
    whole: bool

    @property
    def first(self) -> Traced:
        """In the first trial."""
        return self.traced[0]

    @property
    def name(self) -> str:
        """The name of the node."""
        return model_.node_name(self.node)

    @functools.cached_property
    def ends(self) -> tuple[ir.Value, ...]:
        """Where a site of this contraction may end, the node's own output first."""
        node, inputs = self.first.node, self.first.inputs
        fused = node.op_type in ("FusedConv", "FusedGemm") and (node.attr("activation") or len(inputs) > 3)
        return (self.node.outputs[0],) if fused else tuple(ends.after(self.node.outputs[0], self.first.trial))


def contractions(runs: Sequence[Trial], *, transposed: bool = False) -> dict[ir.Node, Contraction]:
    """The contractions of a computed tensor and a constant that the first trial met, by node; or its ConvTransposes."""
    met = [(run, run.transposed if transposed else run.products) for run in runs]
    return {
        node: Contraction(node, traced, len(traced) == len(runs))
        for node in met[0][1]
        if (traced := tuple(Traced(run, node, *given[node]) for run, given in met if node in given))
    }
