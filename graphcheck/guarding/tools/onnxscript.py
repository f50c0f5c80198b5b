"""onnxscript: the passes of onnx_ir and the rewrite rules of its optimizer, each rule a pass of its own.

Types and shapes are inferred before each, as its folding does: rules ask for them, and some fail without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphcheck.guarding.tools import Tool, load_model, save_model

_FOLDING = "FoldConstantsPass"
# As onnxscript.optimizer._optimizer.optimize_ir goes, with the arguments that it gives; the rules stand for its rewriter.
_BEFORE = ("InlinePass", _FOLDING)
_BEHIND = (
    "RemoveUnusedNodesPass", "RemoveUnusedFunctionsPass", "RemoveUnusedOpsetsPass", "LiftConstantsToInitializersPass",
    "LiftSubgraphInitializersToMainGraphPass", "DeduplicateInitializersPass", "CommonSubexpressionEliminationPass",
    "OutputFixPass", "NameFixPass",
)  # fmt: skip
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "LiftConstantsToInitializersPass": {"lift_all_constants": True, "size_limit": 0}
}


def _passes() -> Sequence[str]:
    return [*_BEFORE, *_rules(), *_BEHIND]


def _others() -> Sequence[str]:
    import onnx_ir.passes.common as common

    return [name for name in common.__all__ if name not in ("CheckerPass", *_BEFORE, *_BEHIND)]


def _rules() -> dict[str, Any]:
    """The default rules by name, or as ``onnxscript.rewriter.rules.common`` calls them; a commuted one is numbered."""
    from onnxscript import rewriter
    from onnxscript.rewriter.rules import common

    exported = {id(getattr(value, "_replacement_pattern", None)): name for name, value in vars(common).items()}
    seen: Counter[str] = Counter()
    found = {}
    for rule in rewriter._DEFAULT_REWRITE_RULES:
        name = rule.name or exported.get(id(rule._replacement_pattern), "rule")
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}-{seen[name]}"] = rule
    return found


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    import onnx_ir as ir
    import onnx_ir.passes.common as common

    model = common.ShapeInferencePass(strict_mode=False)(ir.serde.deserialize_model(load_model(source))).model
    for name in names:
        _one(name)(model)
    save_model(ir.serde.serialize_model(model), target)


def _one(name: str) -> Any:
    import onnx_ir.passes.common as common
    from onnxscript import rewriter
    from onnxscript.optimizer import _constant_folding as folding

    if name == _FOLDING:
        return folding.FoldConstantsPass(
            shape_inference=True,
            input_size_limit=folding.DEFAULT_CONSTANT_FOLD_INPUT_SIZE_LIMIT,
            output_size_limit=folding.DEFAULT_CONSTANT_FOLD_OUTPUT_SIZE_LIMIT,
        )
    rule = _rules().get(name)
    if rule is not None:
        return rewriter.RewritePass([rule])
    return getattr(common, name)(**_ARGUMENTS.get(name, {}))


def _whole(source: Path, target: Path) -> None:
    import onnxscript.optimizer

    save_model(onnxscript.optimizer.optimize(load_model(source)), target)


TOOL = Tool("onnxscript", ("onnxscript.optimizer", "onnxscript.rewriter.rules.common"), _passes, _run, _others, _whole)
