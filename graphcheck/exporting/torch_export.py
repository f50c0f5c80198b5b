"""torch's two ONNX exporters, made quiet and clean (torch is imported here)."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import nn

from graphcheck.exporting import torch_models
from graphcheck.exporting.catalogue import Variant

if TYPE_CHECKING:
    import onnx


def to_onnx(variant: Variant) -> onnx.ModelProto:
    """The ONNX model that ``variant.exporter`` makes of ``variant``, weights inside; raises what the exporter does."""
    module = torch_models.build(variant)
    outputs = torch_models.output_names(variant)
    # 2, since both exporters take a batch of 1 for a constant
    batch = 2 if variant.dynamic_batch else 1
    pixels = torch.zeros(variant.input_shape(batch))
    with torch.no_grad():
        return (_torchscript if variant.exporter == "torchscript" else _dynamo)(variant, module, pixels, outputs)


def _torchscript(variant: Variant, module: nn.Module, pixels: torch.Tensor, outputs: list[str]) -> onnx.ModelProto:
    import onnx

    names = [variant.inputs[0][0]]
    buffer = io.BytesIO()
    # on failure this prints the whole graph, past sys.stdout; torch's own switch for it is always on
    with mock.patch.object(torch._C, "_jit_onnx_log"):
        torch.onnx.export(
            module,
            (pixels,),
            buffer,  # type: ignore[arg-type]  # the TorchScript exporter takes any binary file
            dynamo=False,
            opset_version=variant.opset,
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in names + outputs} if variant.dynamic_batch else None,
        )
    return onnx.load_model_from_string(buffer.getvalue())


def _dynamo(variant: Variant, module: nn.Module, pixels: torch.Tensor, outputs: list[str]) -> onnx.ModelProto:
    with _one_registry():
        program = torch.onnx.export(
            module,
            (pixels,),
            dynamo=True,
            verbose=False,
            opset_version=variant.opset,
            input_names=[variant.inputs[0][0]],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("batch")},) if variant.dynamic_batch else None,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _one_registry() -> Iterator[None]:
    """While it lasts, exports share the exporter's registry of operators, one for each operator set.

    torch makes it anew for each export, from the source of hundreds of functions: more than half of what a small export
    takes. A torch that has no such registry is left as it is.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        shared = functools.partial(_made_once, ONNXRegistry.from_torchlib)
    except (ImportError, AttributeError):
        yield
        return
    with mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(shared)):
        yield


@functools.cache
def _made_once(make: Callable[..., Any], **given: Any) -> Any:
    return make(**given)
