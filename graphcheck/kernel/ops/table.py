"""The table of coverage: every operator with a taught meaning. Any other has a function body or is opaque."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.ops import (
    arithmetic,
    contraction,
    contrib,
    erasing,
    ml,
    movement,
    nchwc,
    outside,
    quantized,
    recurrent,
    reduction,
    resizing,
    signals,
)
from graphcheck.kernel.ops.node import Node

_STANDARD = (movement, resizing, arithmetic, contraction, reduction, recurrent, signals)
TAUGHT: dict[tuple[str, str], Callable[..., Any]] = {
    **{("", name): op for part in _STANDARD for name, op in part.OPS.items()},
    **{("", name): op for name, op in quantized.STANDARD.items()},
    **{("com.microsoft", name): op for name, op in contrib.OPS.items()},
    **{(ml.DOMAIN, name): op for name, op in ml.OPS.items()},
    **{(nchwc.DOMAIN, name): op for name, op in nchwc.OPS.items()},
    **{("", name): op for name, op in contrib.IN_ONNX_DOMAIN.items()},
}


def meaning_of(domain: str, op_type: str) -> Callable[..., Any] | None:
    """What an operator means, here or as another distribution teaches it; None where nobody does."""
    return TAUGHT.get((domain, op_type)) or outside.taught(domain).get(op_type)


# Operators that are taught where the roundings of quantizers are erased; else their bodies are, or they are unknown functions.
ERASED: dict[tuple[str, str], Callable[..., Any]] = {
    ("", "DynamicQuantizeLinear"): erasing.dynamic,
    **{("com.microsoft", name): op for name, op in contrib.ERASED.items()},
}

# Operators whose integer result may leave the range of its type: it is taken modulo the size of that type.
_WRAPPING = "Abs Add CumSum Div Einsum Gemm MatMul Mul Neg PRelu Pow ReduceL1 ReduceProd ReduceSum ReduceSumSquare Sub Sum"
WRAPPING = frozenset(_WRAPPING.split())

# Operators of any domain that draw numbers, and where the others say so: at input ``training_mode``, behind the ratio.
RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial", "Sampling"}
)
_TRAINING = {"Dropout": 2, "BitmaskDropout": 2, "BiasDropout": 4, "BitmaskBiasDropout": 4}


def is_random(node: Node, inputs: Sequence[Any]) -> bool:
    """Whether the operator draws numbers: the random ones, and Dropout in training at a ratio that is not 0."""
    at = _TRAINING.get(node.op_type, len(inputs))
    if at >= len(inputs) or inputs[at] is None:
        return node.op_type in RANDOM
    ratio, training = inputs[at - 1 : at + 1]
    off = isinstance(training, np.ndarray) and not training.any()
    return not (off or (isinstance(ratio, np.ndarray) and not ratio.any()))
