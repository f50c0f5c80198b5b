"""onnxslim: its stages by their skip list, and each pattern of its fusion by that of patterns.

Without any pass it fuses no pattern, and cleans the graph up as its fusion and most of its stages do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphcheck.guarding.tools import Tool, load_model, save_model

_FUSION = "graph_fusion"


def _passes() -> Sequence[str]:
    # As optimize() of onnxslim.core goes: the folding, the patterns, the other stages.
    first, fusion, *others = _stages()
    return [first, *(_patterns() if fusion == _FUSION else [fusion]), *others]


def _stages() -> list[str]:
    from onnxslim.core import OptimizationSettings

    return list(OptimizationSettings.keys())


def _patterns() -> list[str]:
    from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

    return list(DEFAULT_FUSION_PATTERNS)


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    import onnxslim

    patterns = _patterns()
    stages = {*names, _FUSION} if set(names) & set(patterns) or not names else set(names)
    made = onnxslim.slim(
        load_model(source),
        skip_optimizations=[stage for stage in _stages() if stage not in stages],
        skip_fusion_patterns=[pattern for pattern in patterns if pattern not in names],
    )
    save_model(made, target)


def _whole(source: Path, target: Path) -> None:
    import onnxslim

    save_model(onnxslim.slim(load_model(source)), target)


TOOL = Tool("onnxslim", ("onnxslim", "onnxslim.core"), _passes, _run, lambda: [_FUSION], _whole)
