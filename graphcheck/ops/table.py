"""The table of coverage: every operator that has a taught meaning, by domain. Any other is a function body or opaque."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphcheck.ops import arithmetic, contraction, contrib, movement, reduction

TAUGHT: dict[tuple[str, str], Callable[..., Any]] = {
    **{("", name): op for part in (movement, arithmetic, contraction, reduction) for name, op in part.OPS.items()},
    **{("", name): op for name, op in contrib.STANDARD.items()},
    **{("com.microsoft", name): op for name, op in contrib.OPS.items()},
    # onnxruntime writes this operator in the default domain, before ONNX had RMSNormalization
    ("", "SimplifiedLayerNormalization"): reduction.rms_normalization,
}

RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"})
