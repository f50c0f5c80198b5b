"""The table of known mistakes: one row for each, with the operators that it befalls and how to make the mistaken value.

Most are a small change of a node (:mod:`graphcheck.blaming.changes`), and are evaluated as any other graph is; the others are
told by the tensor itself (:mod:`graphcheck.blaming.looks`). A row says what is tried; whether it explains a dump is decided by
the same bound as everything else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from graphcheck.blaming import changes, looks, operands
from graphcheck.blaming.changes import Edits
from graphcheck.blaming.editing import Spot
from graphcheck.blaming.looks import Seen, Values

_NORMS = "LayerNormalization InstanceNormalization GroupNormalization BatchNormalization RMSNormalization"


@dataclasses.dataclass(frozen=True)
class Change:
    """A mistake that is a change of a node: ``edits`` gives each form of it with what is said of it."""

    kind: str
    ops: frozenset[str]
    edits: Callable[[Spot], Edits]


@dataclasses.dataclass(frozen=True)
class Look:
    """A mistake that the tensor tells: ``values`` gives what it would be, with its radius."""

    kind: str
    values: Callable[[Seen], Values]


def _ops(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CHANNELS = " QuantizeLinear DequantizeLinear Mul Add Sub Div Conv PRelu QLinearConv"
_SUMS = "Conv Gemm MatMul Add BatchNormalization Mul Sub ConvTranspose "
_ACTIVATIONS = "Relu Clip Gelu LeakyRelu PRelu Elu HardSwish Swish Mish"
_COUNTED = changes.flag("count_include_pad", "its pads counted", "its pads not counted")
CHANGES = (
    Change("gelu", _ops("Gelu FastGelu BiasGelu"), changes.gelu),
    Change("gelu", _ops("Erf"), changes.erf),
    Change("count_include_pad", _ops("AveragePool"), _COUNTED),
    Change("resize", _ops("Resize Upsample"), changes.resize),
    Change("softmax axis", _ops("Softmax LogSoftmax Hardmax ArgMax ArgMin CumSum"), changes.axis),
    Change("missing activation", _ops("Relu Clip LeakyRelu Sigmoid Tanh Gelu Softmax HardSwish Elu PRelu"), changes.skipped),
    Change("missing bias", _ops("Conv ConvTranspose Gemm LayerNormalization Add"), changes.bias),
    Change("extra activation", _ops(_SUMS + _ACTIVATIONS), changes.clipped),
    Change("epsilon", _ops(_NORMS), changes.epsilon),
    Change("epsilon", _ops("Add"), changes.added_epsilon),
    Change("index", _ops("Gather GatherElements GatherND Slice"), changes.shifted),
    Change("reduced axes", _ops("ReduceMean ReduceSum ReduceMax ReduceMin ReduceL2 ReduceProd ReduceSumSquare"), changes.reduced),
    Change("transposition", _ops("Transpose"), changes.moved),
    Change("padding", _ops("Conv MaxPool AveragePool Pad ConvTranspose"), changes.padded),
    Change("neighbour channel", _ops(_NORMS + _CHANNELS), operands.channels),
    Change("weight", _ops("MatMul Gemm Conv ConvTranspose"), operands.weight),
    Change("missing products", _ops("MatMul"), operands.cut),
    Change("windows", _ops("Conv MaxPool AveragePool"), operands.moved_windows),
    Change("straight lines", _ops("Sigmoid Tanh"), changes.saturating),
    Change("order of operands", _ops("Sub Div Concat Where"), changes.order),
    Change("direction", _ops("LSTM GRU RNN"), operands.recurrent),
    Change("missing factor", _ops("Mul Div"), operands.unscaled),
    Change("parameter", _ops("LeakyRelu Elu HardSigmoid Selu ThresholdedRelu PRelu Gemm Celu"), changes.numbers),
    Change("flag", _ops("CumSum"), changes.flag("exclusive", "exclusive sums", "inclusive sums")),
    Change("flag", _ops("CumSum"), changes.flag("reverse", "sums from the end", "sums from the begin")),
    Change("rounding", _ops("Floor Ceil Round"), changes.rounded),
)

LOOKS = (
    Look("softmax maximum", looks.softmax),
    Look("layout", looks.layout),
    Look("integer", looks.whole),
)
LAST = (  # where no change of a node explains it
    Look("output equals an input", looks.input_as_it_is),
    Look("layout", looks.axes),
    Look("tile", looks.zeros),
    Look("order or sign", looks.turned),
    Look("overflow", looks.overflow),
    Look("one channel", looks.one_channel),
    Look("parts exchanged", looks.exchanged),
    Look("stale sums", looks.stale),
    Look("tensor before", looks.before),
)
