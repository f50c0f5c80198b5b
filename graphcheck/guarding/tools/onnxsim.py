"""onnxsim: its own build of onnxoptimizer's passes by their skip list, its shape inference and its constant folding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphcheck.guarding.tools import Tool, load_model, save_model

_SHAPES, _FOLDING = "shape_inference", "constant_folding"


def _passes() -> Sequence[str]:
    # As one round of simplify() goes: shapes, then the passes, then the folding.
    return [_SHAPES, *_optimizers(), _FOLDING]


def _optimizers() -> list[str]:
    from onnxsim import onnxsim_cpp2py_export

    return list(onnxsim_cpp2py_export._list_optimizers())


def _others() -> Sequence[str]:
    from onnxsim import onnxsim_cpp2py_export

    return list(onnxsim_cpp2py_export._list_other_optimizers())


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    import onnxsim

    usual = _optimizers()
    made, _ = onnxsim.simplify(
        load_model(source),
        check_n=0,
        perform_optimization=set(names) - {_SHAPES, _FOLDING} != set() or not names,
        skipped_optimizers=[name for name in usual if name not in names],
        extra_optimizers=[name for name in names if name not in (*usual, _SHAPES, _FOLDING)] or None,
        skip_shape_inference=_SHAPES not in names,
        skip_constant_folding=_FOLDING not in names,
    )
    _drop_options(made)
    save_model(made, target)


def _drop_options(model: Any) -> None:
    """onnxsim writes its options into the metadata, so that no two passes would write the same file."""
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnxsim")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def _whole(source: Path, target: Path) -> None:
    import onnxsim

    made, _ = onnxsim.simplify(load_model(source), check_n=0)
    save_model(made, target)


TOOL = Tool("onnxsim", ("onnxsim",), _passes, _run, _others, _whole)
