"""The rewrite as an onnx_ir pass: ``PatchEmbedding(to="conv")(torch.onnx.export(...).model)``, no file in between."""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx_ir as ir

from graphcheck.errors import ModelError
from graphcheck.files import model as model_
from graphcheck.options import RewriteOptions, check_names
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.proving import Prove
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison
from graphcheck.verdicts.compare import compare


def _compare(original: ir.Model, rewritten: ir.Model) -> Comparison:
    return compare(original, rewritten, graphs=False)


class PatchEmbedding(ir.passes.FunctionalPass):
    """Rewrites every patch embedding to the form ``to``; keeps the model as it was where the result cannot be proved.

    For ``onnx_ir.passes.Sequential``, and for ``torch.onnx.export(...).model`` without touching disk. It returns a clone
    and leaves the model that it is given as it is. After a call ``result`` (:class:`graphcheck.rewriting.rewrite.Rewrite`)
    tells what was rewritten and what was refused, with the reasons.

    Args:
        to: ``conv``, ``matmul``, ``unfold`` or ``space-to-depth``; ``conv-transpose``, ``matmul`` or ``depth-to-space`` of
            an un-embedding.
        check: Proves the result against the input: :func:`graphcheck.compare`, or one like it; None leaves it unproved.
        run: False leaves onnxruntime out, for a form that its CPU provider cannot run.
        options: ``sites``, ``max_rank``, ``fold_normalization``, ``pointwise``, ``ordinary``, ``movement`` and ``stills``, as
            for :func:`graphcheck.rewrite`.

    Raises:
        UsageError: for an option that there is not; when called, for a form or site that there is not.
    """

    def __init__(
        self,
        to: str = "conv",
        *,
        check: Prove | None = _compare,
        run: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        check_names("PatchEmbedding", options, (field.name for field in dataclasses.fields(RewriteOptions)))
        self.to, self.check, self.run, self.options = to, check, run, options
        self.result: Rewrite | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clone, rewrite, prove; a clone of the model as it was on failure."""
        self.result = rewrite(model, self.to, check=self.check, run=self.run, **self.options)
        changed = self.result.changed
        return ir.passes.PassResult(self.result.model if changed else model.clone(), modified=changed)

    def ensures(self, model: ir.Model) -> None:
        """A model that was rewritten is valid; raises ``PostconditionError`` otherwise."""
        if not any(RULE in node.metadata_props for node in model.graph):
            return
        try:
            model_.check_full(model)
        except ModelError as error:
            raise ir.passes.PostconditionError(str(error)) from error
