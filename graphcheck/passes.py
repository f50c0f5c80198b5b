"""The rewrite as an onnx_ir pass: ``PatchEmbedding(to="conv")(torch.onnx.export(...).model)``, no file in between."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphcheck.errors import ModelError
from graphcheck.files import model as model_
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.rewrite import Prove, Rewrite, rewrite
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
        sites: As for :func:`graphcheck.rewrite`, and so are ``max_rank``, ``fold_normalization``, ``pointwise``,
            ``ordinary``, ``movement`` and ``stills``.
        run: False leaves onnxruntime out, for a form that its CPU provider cannot run.

    Raises:
        UsageError: when called, for a form or site that there is not.
    """

    def __init__(
        self,
        to: str = "conv",
        *,
        check: Prove | None = _compare,
        sites: Sequence[str] | None = None,
        max_rank: int | None = None,
        fold_normalization: bool = False,
        pointwise: bool = False,
        ordinary: bool = False,
        movement: bool = False,
        stills: bool = False,
        run: bool = True,
    ) -> None:
        super().__init__()
        self.to, self.check, self.sites = to, check, sites
        self.max_rank, self.fold_normalization, self.run = max_rank, fold_normalization, run
        self.pointwise, self.ordinary, self.movement, self.stills = pointwise, ordinary, movement, stills
        self.result: Rewrite | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clone, rewrite, prove; a clone of the model as it was on failure."""
        self.result = rewrite(
            model,
            self.to,
            check=self.check,
            sites=self.sites,
            max_rank=self.max_rank,
            fold_normalization=self.fold_normalization,
            pointwise=self.pointwise,
            ordinary=self.ordinary,
            movement=self.movement,
            stills=self.stills,
            run=self.run,
        )
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
