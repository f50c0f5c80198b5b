"""The only reader and writer of model files: large initializers stay in the mapped file, the rest goes through onnx_ir."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.errors import ModelError, UsageError
from graphcheck.files import atomic, external, loadable, tensors, wire
from graphcheck.files.contents import Contents

ModelLike = str | os.PathLike[str] | onnx.ModelProto | ir.Model

_NO_PARAMETERS = (ir.DataType.INT64, ir.DataType.BOOL)
_UNKNOWN = frozenset({"?", "-1", "None"})  # what exporters write for a dim that they do not know, however often


def read(model: ModelLike) -> ir.Model:
    """The model as onnx_ir, checked by ``onnx.checker``; raises :class:`ModelError` naming the file and the cause.

    Initializers of 1 KiB and more are read-only views of the mapped file, so that reading costs neither time nor memory
    for them.
    """
    if isinstance(model, ir.Model):
        return model
    if isinstance(model, onnx.ModelProto):
        return _read_proto(model)
    if not isinstance(model, (str, os.PathLike)):
        what = f"a model is a path, an onnx.ModelProto or an onnx_ir.Model, not {type(model).__name__}"
        raise UsageError(what)
    path = Path(model)
    file = wire.opened(path)
    try:
        proto = onnx.ModelProto.FromString(file.stripped)
    except Exception as error:  # protobuf's DecodeError has no public home
        raise wire.damaged(path, _first_line(error)) from None
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(path, "is not an ONNX model: it holds no graph with outputs")
    mapped = {name for name, _ in file.raw}
    tensors.check(proto, path, mapped)
    result = _checked(proto, path, mapped)
    file.stripped = b""
    _attach(result, file, path)
    _settle(result)
    result.meta["graphcheck.path"] = str(path)
    result.meta["graphcheck.file"] = file
    return result


def _read_proto(proto: onnx.ModelProto) -> ir.Model:
    """A model in memory; external data is looked for in the working directory."""
    if any(True for _ in tensors.elsewhere(proto)):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
    tensors.check(proto, Path("model"))
    result = _checked(proto, Path("model"))
    _settle(result)
    return result


def _checked(proto: onnx.ModelProto, path: Path, mapped: frozenset[str] | set[str] = frozenset()) -> ir.Model:
    """The model, once ``onnx.checker`` accepts it, with what :mod:`graphcheck.files.loadable` lets pass as notes."""
    proto, maps = loadable.without_maps(proto)
    said = loadable.left_out(maps, proto)
    if not proto.graph.output:
        raise ModelError(path, f"none of its outputs is a tensor: {said[0]}")
    try:
        _check(proto, path, mapped)
    except ModelError:
        proto, sorted_ = loadable.in_order(proto, path)
        stand_in, foreign = loadable.stand_in(proto, path)
        if not sorted_ and not foreign:
            raise
        _check(stand_in, path, mapped)
        said += [*sorted_, *foreign]
    result = _from_proto(proto, path)
    result.graph.meta["graphcheck.maps"] = maps
    result.meta["graphcheck.notes"] = (*said, *dict.fromkeys(_unknown_dims(result)))
    return result


def _from_proto(proto: onnx.ModelProto, path: Path) -> ir.Model:
    try:
        result = ir.from_proto(proto)
    except Exception as error:
        while error.__cause__ is not None:  # onnx_ir says where first, what last
            error = error.__cause__  # type: ignore[assignment]
        raise ModelError(path, f"cannot be read: {_first_line(error)}") from None
    if not isinstance(result, ir.Model):
        raise ModelError(path, "cannot be read: it holds no model")
    for value in (*result.graph.inputs, *result.graph.outputs):
        if value.dtype == ir.DataType.UNDEFINED:
            raise ModelError(path, f"{value.name!r} has no element type")
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer):
        ir.external_data.set_base_dir(result.graph, str(path.parent.resolve()))
        external.share(result)
    return result


def path_of(model: ir.Model) -> str | None:
    """The file that the model was read from, or None for one made in memory."""
    value = model.meta.get("graphcheck.path")
    return None if value is None else str(value)


def file_of(model: ir.Model) -> wire.File | None:
    """That file as it was read."""
    file: wire.File | None = model.meta.get("graphcheck.file")
    return file


def notes(model: ir.Model) -> tuple[str, ...]:
    """What was read otherwise than it stands in the file, a sentence each."""
    return tuple(model.meta.get("graphcheck.notes", ()))


def map_outputs(model: ir.Model) -> list[ir.Value]:
    """The outputs that were left out as they are maps: a file that is written has them again."""
    names = {value.name for _, value in model.graph.meta.get("graphcheck.maps", ())}
    return [value for node in model.graph for value in node.outputs if value.name in names] if names else []


def adopt(model: ir.Model, contents: Contents) -> None:
    """Hand the digests that were made while the model's file was read to ``contents``."""
    if (file := file_of(model)) is not None:
        contents.adopt(file)


def release(*models: ir.Model) -> None:
    """Give the mapped pages of model files back to the system; what is read again is mapped again."""
    for model in models:
        if (file := file_of(model)) is not None:
            wire.give_back(file.data)


def write(
    model: ir.Model, path: str | os.PathLike[str], *, external_data: str = "copy", limit: int | None = None
) -> list[str]:
    """Write the model to ``path`` atomically: a temporary file beside it, then a rename; nothing is left on failure.

    Its external data stays where it is if it lies beside ``path``; else see :func:`graphcheck.files.external.placed`, also
    for models of more than ``limit`` bytes (about 2 GiB). Returns the names of the data files that ``path`` refers to.
    """
    with external.placed(model, Path(path), external_data, limit) as placed:
        try:
            proto = ir.to_proto(placed)
            for at, value in model.graph.meta.get("graphcheck.maps", ()):
                proto.graph.output.insert(at, value)
            data = proto.SerializeToString(deterministic=True)
        except Exception as error:  # protobuf's EncodeError has no public home
            raise ModelError(path, f"cannot be written: {_first_line(error)}") from None
        atomic.write_bytes(data, path)
        return external.files(placed)


def check_full(model: ir.Model | onnx.ModelProto, name: object = "model") -> None:
    """Raise :class:`ModelError` unless ``onnx.checker`` accepts the model with full check (strict shape inference)."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(external.without_weights(model))
    proto, _ = loadable.stand_in(proto, name)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise ModelError(name, f"is refused by the ONNX checker: {_first_line(error)}") from None


def declared_shape(value: ir.Value) -> list[int | str | None] | None:
    """The declared shape of a value: sizes, names of symbolic dims, None for unknown dims; None if no rank is known.

    A negative size and a name such as ``?`` say that a dim is unknown: two of that name need not be of one size.
    """
    if value.shape is None:
        return None
    dims = [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    return [None if _is_unknown(dim) else dim for dim in dims]


def _is_unknown(dim: int | str | None) -> bool:
    return dim is None or (dim < 0 if isinstance(dim, int) else not dim.strip() or dim in _UNKNOWN)


def _unknown_dims(model: ir.Model) -> Iterator[str]:
    """A note on each input with a negative size, or with a name that stands for no size at two places."""
    seen: set[str] = set()
    for value in required_inputs(model):
        for dim in value.shape or ():
            size = dim if isinstance(dim, int) else dim.value
            if isinstance(size, int) and size < 0:
                yield f"the size {size} of input {value.name!r} is taken as unknown"
            elif isinstance(size, str) and _is_unknown(size):
                if size in seen:
                    yield f"dims named {size!r} are taken as unknown, each of its own size"
                seen.add(size)


def required_inputs(model: ir.Model) -> list[ir.Value]:
    """Graph inputs that have no initializer as their default."""
    return [value for value in model.graph.inputs if value.name not in model.graph.initializers]


def summary(
    model: ir.Model, sha256: str | None = None, *, digest: bool = True, traced: int | None = None
) -> dict[str, Any]:
    """What a person wants to know first of a model, as plain data; ``sha256`` if the file's ``digest`` is known already.

    ``traced`` is the largest rank that a trace met: most files declare no shapes of what lies between. Parameters are the
    elements of initializers and Constant nodes, without int64 and bool: those are shapes, axes, indices and flags.
    """
    path = path_of(model)
    nodes = list(all_nodes(model))
    ranks = [len(v.shape) for node in nodes for v in node.outputs if v.shape is not None]
    ranks += [len(v.shape) for v in (*model.graph.inputs, *model.graph.outputs) if v.shape is not None]
    ranks += [] if traced is None else [traced]
    weights = [tensor for tensor in stored(model) if tensor.dtype not in _NO_PARAMETERS]
    return {
        "path": path,
        "sha256": sha256 or (file_digest(path) if path and digest else None),
        "bytes": os.path.getsize(path) if path else None,
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "opsets": dict(model.opset_imports),
        "inputs": [_describe(v) for v in required_inputs(model)],
        "outputs": [_describe(v) for v in model.graph.outputs],
        "ops": dict(Counter(op_name(node) for node in nodes).most_common()),
        "nodes": len(nodes),
        "notes": list(notes(model)),
        "parameters": sum(math.prod(t.shape.numpy()) for t in weights),
        "parameter_bytes": sum(t.nbytes for t in weights),
        "largest_rank": max(ranks, default=None),
    }


def largest_rank(traced: Iterable[object]) -> int | None:
    """The most dims that any of these tensors has; None where there are none."""
    return max((len(value.shape) for value in traced if hasattr(value, "shape")), default=None)


def stored(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The initializers of all graphs, and what the Constant nodes hold."""
    for graph in model.graphs():
        yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)
    for node in all_nodes(model):
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            yield from () if tensor is None else (tensor,)


class _Operator(Protocol):  # a node of onnx_ir, and one as the kernel sees it
    @property
    def domain(self) -> str: ...

    @property
    def op_type(self) -> str: ...


def op_name(node: _Operator) -> str:
    """``Conv``, or ``com.microsoft.FusedConv`` outside the default domain."""
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def node_name(node: ir.Node) -> str:
    """The node's name, or its operator and first output where it has none."""
    return node.name or f"{node.op_type}({node.outputs[0].name if node.outputs else ''})"


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of the graph, its subgraphs and the model-local functions."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(value: ir.Value) -> dict[str, Any]:
    dtype = value.dtype.name.lower() if value.dtype is not None else str(value.type)
    return {"name": value.name, "dtype": dtype, "shape": declared_shape(value)}


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("==>")]
    return " ".join(lines)[:300] if lines else type(error).__name__


def _check(proto: onnx.ModelProto, name: object, mapped: frozenset[str] | set[str] = frozenset()) -> None:
    """Run the checker; initializers whose bytes stayed in the file stand in as graph inputs."""
    subject = proto
    external = {t.name for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    if mapped or external:
        subject = onnx.ModelProto()
        subject.CopyFrom(proto)
        have = {value.name for value in proto.graph.input}
        kept = [t for t in proto.graph.initializer if t.name not in mapped and t.name not in external]
        for t in proto.graph.initializer:
            if (t.name in mapped or t.name in external) and t.name not in have:
                subject.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
        del subject.graph.initializer[:]
        subject.graph.initializer.extend(kept)
    try:
        onnx.checker.check_model(subject)
    except Exception as error:
        raise ModelError(name, f"is refused by the ONNX checker: {_first_line(error)}") from None


def _attach(model: ir.Model, file: wire.File, path: Path) -> None:
    for name, (start, length) in file.raw:
        value = model.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        dtype, dims = value.const_value.dtype, tuple(int(d) for d in value.const_value.shape.numpy())
        if tensors.needed(dims, dtype) != length:
            cause = f"has {length} bytes, its shape {list(dims)} needs another number"
            raise ModelError(path, f"initializer {name!r} {cause}")
        kind = np.dtype(dtype.numpy()).newbyteorder("<")
        array = np.frombuffer(file.data, kind, math.prod(dims), start).reshape(dims)
        value.const_value = ir.Tensor(array, dtype=dtype, shape=ir.Shape(dims), name=name)


def _settle(model: ir.Model) -> None:
    """Have one array for each large initializer that stayed in the protobuf, which gives a new one whenever it is asked."""
    for value in model.graph.initializers.values():
        t = value.const_value
        if isinstance(t, ir.serde.TensorProtoTensor) and t.nbytes >= wire.MAPPED_BYTES and t.dtype.bitwidth >= 8:
            array = t.numpy()
            array.setflags(write=False)
            value.const_value = ir.Tensor(array, dtype=t.dtype, shape=t.shape, name=t.name, doc_string=t.doc_string)
