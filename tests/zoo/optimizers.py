"""Other people's optimizers, each as a function from a model to a model (or an exception): the equivalent pairs' makers."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx

Optimizer = Callable[[onnx.ModelProto], Any]


def _onnxruntime(level: str) -> Optimizer:
    def optimize(model: onnx.ModelProto) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options.optimized_model_filepath = str(path)
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            return onnx.ModelProto.FromString(path.read_bytes())

    return optimize


def _onnxscript(model: onnx.ModelProto) -> Any:
    import onnxscript.optimizer

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return onnxscript.optimizer.optimize(copy)


def _onnxsim(model: onnx.ModelProto) -> Any:
    import onnxsim

    simplified, _ = onnxsim.simplify(model, check_n=0)
    return simplified


def _onnxslim(model: onnx.ModelProto) -> Any:
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return onnxslim.slim(copy)


OPTIMIZERS: dict[str, Optimizer] = {
    "onnxruntime basic": _onnxruntime("BASIC"),
    "onnxruntime extended": _onnxruntime("EXTENDED"),
    "onnxscript": _onnxscript,
    "onnxsim": _onnxsim,
    "onnxslim": _onnxslim,
}


def optimize(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """What the optimizer makes of the model, quietly; raises what it raises."""
    with quiet():
        optimized: onnx.ModelProto = OPTIMIZERS[name](model)
        return optimized


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, logging or prints."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
