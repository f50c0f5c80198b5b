"""onnxoptimizer: passes by name, each also on its own; without any, a model goes through its C++ graph and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphcheck.guarding.tools import Tool, load_model, save_model


def _passes() -> Sequence[str]:
    import onnxoptimizer

    return list(onnxoptimizer.get_fuse_and_elimination_passes())


def _others() -> Sequence[str]:
    import onnxoptimizer

    return list(onnxoptimizer.get_available_passes())


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    import onnxoptimizer

    save_model(onnxoptimizer.optimize(load_model(source), list(names)), target)


def _whole(source: Path, target: Path) -> None:
    import onnxoptimizer

    save_model(onnxoptimizer.optimize(load_model(source)), target)


TOOL = Tool("onnxoptimizer", ("onnxoptimizer",), _passes, _run, _others, _whole)
