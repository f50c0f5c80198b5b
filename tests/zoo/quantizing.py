"""Patch embeddings quantized by onnxruntime's static QDQ quantizer: Q/DQ pairs around the input, the weight, each result."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from patch_cases import conv, patchify

_CONV = "kernel_shape = [4, 4], strides = [4, 4]"

# name -> (model, options of quantize_static)
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "conv": (lambda: conv(_CONV, (8, 3, 4, 4)), {}),
    "conv, per channel": (lambda: conv(_CONV, (8, 3, 4, 4)), {"per_channel": True}),
    "matmul": (lambda: _image(), {}),
    "matmul, MatMul alone": (lambda: _image(), {"op_types_to_quantize": ["MatMul"]}),
    "matmul, per channel": (lambda: _image(), {"op_types_to_quantize": ["MatMul"], "per_channel": True}),
}


def _image() -> ir.Model:
    return patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48])


def quantized(name: str) -> onnx.ModelProto:
    """The case, calibrated on three seeded batches."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    make, options = CASES[name]

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it carries no types
        """Three batches."""

        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Any]] = iter(
                {"x": np.random.default_rng(seed).normal(size=(2, 3, 8, 12)).astype(np.float32)} for seed in range(3)
            )

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    # with weights of 7 bits, for on x86 without VNNI sums of two products of uint8 and int8 saturate at 16 bits
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "reduce_range": True}
    kinds |= {"quant_format": QuantFormat.QDQ}
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        before, after = Path(folder, "a.onnx"), Path(folder, "b.onnx")
        onnx.save(ir.to_proto(make()), before)
        quantize_static(str(before), str(after), Reader(), **kinds, **options)
        return onnx.load(after)
