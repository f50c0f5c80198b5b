"""The rewrite as an onnx_ir pass that proves what it did."""

from __future__ import annotations

from typing import Any

from graphcheck.equivalence.compare import compare
from graphcheck.rewriting import passes


class PatchEmbedding(passes.PatchEmbedding):
    """Rewrites every patch embedding to the form ``to``; keeps the model as it was where the result cannot be proved.

    For ``onnx_ir.passes.Sequential``, and for ``torch.onnx.export(...).model`` without touching disk. ``options`` are those
    of :class:`graphcheck.rewriting.passes.PatchEmbedding`; after a call ``result`` tells what was rewritten and what was
    refused, with the reasons.
    """

    def __init__(self, to: str = "conv", **options: Any) -> None:
        super().__init__(to, **{"check": lambda a, b: compare(a, b, graphs=False), **options})
