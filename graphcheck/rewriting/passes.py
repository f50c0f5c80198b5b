"""The rewrite as an onnx_ir pass: ``PatchEmbedding(to="conv")(torch.onnx.export(...).model)``, no file in between."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphcheck.errors import ModelError
from graphcheck.files import model as model_
from graphcheck.rewriting.builder import RULE
from graphcheck.rewriting.checks import Load
from graphcheck.rewriting.rewrite import Prove, Rewrite, rewrite


class PatchEmbedding(ir.passes.FunctionalPass):
    """Rewrites every patch embedding to the form ``to``; ``check`` proves the result against the input.

    A plain clone of the input is returned where nothing applies, a check fails or the proof is missing; ``result``
    keeps what was told about the last call. Usable in ``onnx_ir.passes.Sequential`` and ``PassManager``.
    """

    def __init__(
        self,
        to: str = "conv",
        *,
        check: Prove | None = None,
        sites: Sequence[str] | None = None,
        max_rank: int | None = None,
        fold_normalization: bool = False,
        run: bool = True,
        load: Load | None = None,
    ) -> None:
        super().__init__()
        self.to, self.check, self.sites = to, check, sites
        self.max_rank, self.fold_normalization, self.run, self.load = max_rank, fold_normalization, run, load
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
            run=self.run,
            load=self.load,
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
