"""The rewrite as an onnx_ir pass that proves what it did."""

from __future__ import annotations

from typing import Any

from graphcheck.rewriting import passes
from graphcheck.runs.apart import load_apart
from graphcheck.verdicts.compare import compare


class PatchEmbedding(passes.PatchEmbedding):
    """Rewrites every patch embedding to the form ``to``; keeps the model as it was where the result cannot be proved.

    For ``onnx_ir.passes.Sequential``, and for ``torch.onnx.export(...).model`` without touching disk. It returns a clone
    and leaves the model that it is given as it is. After a call ``result`` (:class:`graphcheck.rewriting.rewrite.Rewrite`)
    tells what was rewritten and what was refused, with the reasons.

    Args:
        to: ``conv``, ``matmul``, ``unfold`` or ``space-to-depth``.
        options: ``sites``, ``max_rank``, ``fold_normalization`` and ``check``, as for :func:`graphcheck.rewrite`.

    Raises:
        UsageError: when called, for a form or site that there is not.
    """

    def __init__(self, to: str = "conv", **options: Any) -> None:
        super().__init__(to, **{"check": lambda a, b: compare(a, b, graphs=False), "load": load_apart, **options})
