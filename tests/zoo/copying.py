"""Right copies in lower precision: each net by each exporter, and each kind of copy with who makes it and what to allow."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto, numpy_helper

from tests.zoo import architectures, keras_nets, quantized

VITS = ("vit", "deit", "dinov2", "clip-vision", "siglip-vision")
TORCH = (*VITS, *architectures.RECURRENT, *architectures.ARCHITECTURES)
NETS: dict[str, tuple[str, ...]] = {
    "torchscript": TORCH,
    "dynamo": TORCH,
    "tf2onnx": (*keras_nets.NETS, *keras_nets.LARGER),
    "text": tuple(quantized.NETS),
}  # exporter -> nets; those by "text" are written by hand


class Net(NamedTuple):
    """A net, its exporter, and the model in float32."""

    name: str
    exporter: str
    model: onnx.ModelProto

    @classmethod
    def of(cls, name: str, exporter: str) -> Net:
        """That net by that exporter; raises what that or the checker raises: tf2onnx leaves calls of TensorFlow in some."""
        onnx.checker.check_model(model := exported(name, exporter))
        return cls(name, exporter, model)

    def cast(self, dtype: str) -> Pair:
        """The module, and the module in another type, exported alike: BatchNormalizations stay, for folded in that type they
        are rounded several times."""
        if self.exporter not in ("torchscript", "dynamo"):
            raise ValueError("only torch has modules to cast")
        plain, copy = (exported(self.name, self.exporter, each, folds=False) for each in ("float32", dtype))
        return plain, copy


Pair = tuple[onnx.ModelProto, onnx.ModelProto]  # a model, and a copy of it


class Kind(NamedTuple):
    """What a copy is allowed, and who makes it of a net; ``calibrated``: a range may end at 0 because its data does."""

    allow: str
    make: Callable[[Net], Pair]
    calibrated: bool = False


def exported(name: str, exporter: str, dtype: str = "float32", folds: bool | None = None) -> onnx.ModelProto:
    """One of the nets, a module of torch in ``dtype``; its BatchNormalizations stay where they are if ``folds`` is False."""
    if exporter == "text":
        return quantized.NETS[name]()
    if exporter == "tf2onnx":
        return keras_nets.export(name)
    if name in VITS:
        return _vit(f"{name}-conv-{exporter}-dynamic", dtype)
    return architectures.export(name, exporter, folds=folds, dtype=dtype)


def _vit(name: str, dtype: str) -> onnx.ModelProto:
    from graphcheck.exporting.run import _clean, _quiet, select

    with _quiet():
        import torch

        from graphcheck.exporting import torch_export, torch_models

        (variant,) = select([name])
        module = torch_models.build(variant).to(kind := getattr(torch, dtype))
        export = torch_export._torchscript if variant.exporter == "torchscript" else torch_export._dynamo
        with torch.no_grad():
            outputs = torch_models.output_names(variant)
            return _clean(export(variant, module, torch.zeros(variant.input_shape(2), dtype=kind), outputs))


def fresh(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to change."""
    return onnx.ModelProto.FromString(model.SerializeToString())


def stored(model: onnx.ModelProto) -> list[str]:
    """What a copy computes with, whatever its names: each node with its attributes and the constants that it reads."""
    held = {t.name: zlib.crc32(numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer}
    bare = [onnx.helper.make_node(n.op_type, [str(held.get(i, "x")) for i in n.input], ["y"]) for n in model.graph.node]
    for node, whole in zip(bare, model.graph.node, strict=True):
        node.attribute.extend(whole.attribute)
    return sorted(str(node) for node in bare)


def to_float16(model: onnx.ModelProto, by: str = "onnxruntime.transformers", **options: Any) -> onnx.ModelProto:
    """By onnxruntime's converter, or by another one's ``float16``, which has the same options; inputs and outputs stay."""
    convert = importlib.import_module(f"{by}.float16").convert_float_to_float16
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made: onnx.ModelProto = convert(fresh(model), **{"keep_io_types": True, **options})
    return made


def mixed(model: onnx.ModelProto, by: str = "onnxruntime.transformers") -> onnx.ModelProto:
    """In float16 but for each third node, and each Softmax and normalization."""
    converter = importlib.import_module(f"{by}.float16")
    kept = [*converter.DEFAULT_OP_BLOCK_LIST, "Softmax", "LayerNormalization", "BatchNormalization"]
    nodes = [node.name for node in model.graph.node if node.name][::3]
    return to_float16(model, by, op_block_list=kept, node_block_list=nodes)


def to_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """All that is float32 in bfloat16: constants, inputs, outputs and what is cast to float32. There is no converter of it."""
    made = fresh(model)
    _narrow(made.graph)
    del made.graph.value_info[:]
    return made


def _narrow(graph: onnx.GraphProto) -> None:
    import ml_dtypes

    def narrow(tensor: onnx.TensorProto) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    for tensor in graph.initializer:
        narrow(tensor)
    for port in (*graph.input, *graph.output):
        if port.type.tensor_type.elem_type == TensorProto.FLOAT:
            port.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                narrow(attribute.t)
            if attribute.HasField("g"):
                _narrow(attribute.g)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.BFLOAT16


def _of(allow: str, make: Callable[..., onnx.ModelProto], calibrated: bool = False, **options: Any) -> Kind:
    return Kind(allow, lambda net: (net.model, make(net.model, **options)), calibrated)


COMMON = "onnxconverter_common"
KINDS: dict[str, Kind] = {
    "float16": _of("float16", to_float16),
    "float16, ports": _of("float16", to_float16, keep_io_types=False),
    "float16, mixed": _of("float16", mixed),
    "common": _of("float16", to_float16, by=COMMON),
    "common, ports": _of("float16", to_float16, by=COMMON, keep_io_types=False),
    "common, mixed": _of("float16", mixed, by=COMMON),
    "half()": Kind("float16", lambda net: net.cast("float16")),
    "bfloat16": _of("bfloat16", to_bfloat16),
    "bfloat16()": Kind("bfloat16", lambda net: net.cast("bfloat16")),
    **{
        kind: _of("int8", functools.partial(quantized.quantized, **quantized.COPIES[kind]), kind.startswith("Q"))
        for kind in (
            "dynamic",
            "dynamic, per channel",
            "QDQ",
            "QDQ, per channel",
            "QOperator",
            "QOperator, per channel",
        )
    },
    "int4": _of("int4", quantized.packed),
    "int4, zero points": _of("int4", quantized.packed, symmetric=False),
}
