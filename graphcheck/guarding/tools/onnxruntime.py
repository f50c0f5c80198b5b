"""onnxruntime: its graph transformers and rewrite rules at level "all", the others of them disabled.

The transformers are read from the log of a session; the rules inside of two of them are logged nowhere, and stand here
(onnxruntime's core/optimizer/graph_transformer_utils.cc, as of 1.32). Rules of another version that are not in the list
run under the name of their transformer.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphcheck.guarding.tools import INLINE, Tool

_RULES = (
    "EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout", "ExpandElimination",
    "CastElimination", "CastChainElimination", "PreShapeNodeElimination", "NoopElimination", "DivMulFusion",
    "FuseReluClip", "GemmSumFusion", "GemmTransposeFusion", "NotWhereFusion", "ConvAddFusion", "ConvMulFusion",
    "ConvBNFusion", "Pad_Fusion", "MatMul_BatchNormalization_Fusion", "LabelEncoderFusion", "ClipQuantRewrite",
    "ReluQuantRewrite",
)  # fmt: skip
_OF_RULES = ("Level1_RuleBasedTransformer", "Level2_RuleBasedTransformer")
_WEIGHTS = "session.optimized_model_external_initializers_file_name"
_PROBE = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) { y = Relu (x) }'


def _passes() -> Sequence[str]:
    """The rules, then the transformers in the order in which a session runs them, without those that always run."""
    always = _logged([*_RULES, *_logged(_RULES)])
    return [*_RULES, *(name for name in _logged(_RULES) if name not in always)]


def _logged(disabled: Sequence[str]) -> list[str]:
    """The transformers that a session runs, in order, each once."""
    import onnx

    with tempfile.TemporaryFile() as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            _session(onnx.parser.parse_model(_PROBE).SerializeToString(), disabled, None, severity=0)
        finally:
            os.dup2(before, 2)
            os.close(before)
        log.seek(0)
        return list(dict.fromkeys(re.findall(r"GraphTransformer (\w+) modified", log.read().decode(errors="replace"))))


def _run(names: Sequence[str], source: Path, target: Path) -> None:
    wanted = {*names, *(_OF_RULES if set(names) & set(_RULES) else ())}
    everything = [*_RULES, *_logged(()), *_OF_RULES]
    _session(str(source), [name for name in everything if name not in wanted], target)


def _whole(source: Path, target: Path) -> None:
    _session(str(source), (), target)


def _session(model: Any, disabled: Sequence[str], target: Path | None, severity: int = 4) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = severity
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if target is not None:
        options.optimized_model_filepath = str(target)
        if sum(file.stat().st_size for file in Path(model).parent.iterdir()) >= INLINE:
            options.add_session_config_entry(_WEIGHTS, f"{target.name}.data")
    onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=set(disabled) or None
    )


TOOL = Tool("onnxruntime", ("onnxruntime", "onnx.parser"), _passes, _run, lambda: _OF_RULES, _whole)
