"""onnx-passes: the passes and groups of its registry by their names; it has no usual order but that of the registry.

Of the functions that it gives to every model those that nothing calls are dropped again: they are of opset 19, and the
ONNX checker refuses a model of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphcheck.guarding.tools import Tool, load_model, save_model

_COMPOSED = ("streamline", "cleanup", "eliminate")  # of other groups, so that they run only where they are named


def _passes() -> Sequence[str]:
    from onnx_passes import passes

    groups = passes._registry.items()
    kind = passes.base.Analysis  # looks, and changes nothing
    return [name for name, of in groups if name not in _COMPOSED and not all(issubclass(one, kind) for one in of)]


def _others() -> Sequence[str]:
    from onnx_passes import passes

    return sorted({*_COMPOSED, *(one.__name__ for group in passes._registry.values() for one in group)})


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    import onnx_ir as ir
    import onnx_ir.passes.common as common
    from onnx_passes import passes
    from onnx_passes.ops import inject_custom_ops

    model = inject_custom_ops(ir.serde.deserialize_model(load_model(source)))
    classes = {one.__name__: one for group in passes._registry.values() for one in group}
    wanted = [one for name in names for one in passes._registry.get(name) or [classes[name]]]
    config: dict[str, object] = {}
    state: dict[str, object] = {}
    if wanted:
        model = ir.passes.PassManager([one(config, state) for one in wanted], steps=1)(model).model
    for drop in (common.RemoveUnusedFunctionsPass, common.RemoveUnusedOpsetsPass):
        model = drop()(model).model
    save_model(ir.serde.serialize_model(model), target)


TOOL = Tool("onnx-passes", ("onnx_passes.passes", "onnx_passes.ops"), _passes, _run, _others)
