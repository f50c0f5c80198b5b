"""What the tensors of a model file may be, wherever they stand in it; looked at before anything trusts or reads them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from graphcheck.errors import ModelError

_LONGEST_PATH = 4096
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def elsewhere(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor whose data is external: initializers, and attributes of all nodes in graphs and functions."""
    return (tensor for tensor in _all(proto) if _is_elsewhere(tensor))


def _is_elsewhere(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def check(proto: onnx.ModelProto, path: Path, mapped: frozenset[str] | set[str] = frozenset()) -> None:
    """Raise :class:`ModelError` for tensors that readers would take differently, and for external data that is missing,
    of the wrong size, or outside the model's folder.

    ``mapped`` are main-graph initializers whose bytes were left in the file. External data of any tensor but the main
    graph's initializers, which is rare and small, is read into ``proto``.
    """
    own = {id(tensor): tensor for tensor in proto.graph.initializer}
    tensors, graphs = _inside([proto.graph])
    for graph in graphs:
        if graph.sparse_initializer:
            name = graph.sparse_initializer[0].values.name
            raise ModelError(path, f"initializer {name!r} is sparse, which is not read")
    for tensor in own.values():
        if tensor.name in mapped and (
            tensor.data_location == onnx.TensorProto.EXTERNAL
            or tensor.external_data
            or tensor.HasField("segment")
            or any(len(getattr(tensor, field)) for field in _FIELDS)
        ):
            raise ModelError(path, f"initializer {tensor.name!r} holds its data in more than one way")
    tensors += _beside(proto)
    for tensor in tensors:
        if not _is_elsewhere(tensor) and not (id(tensor) in own and tensor.name in mapped):
            _check_count(tensor, path)
    for tensor in filter(_is_elsewhere, tensors):
        source, offset, length = _place(tensor, path)
        if id(tensor) not in own:
            with open(source, "rb") as file:
                file.seek(offset)
                tensor.raw_data = file.read(length)
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT


def _check_count(tensor: onnx.TensorProto, path: Path) -> None:
    """Raise :class:`ModelError` where a tensor holds another number of elements than its shape says."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError:
        raise ModelError(path, f"tensor {tensor.name!r} has the unknown type {tensor.data_type}") from None
    count = math.prod(tensor.dims)
    if dtype == ir.DataType.UNDEFINED or count < 0 or min(tensor.dims, default=0) < 0:
        return  # for onnx.checker to tell
    if tensor.HasField("raw_data"):
        held, need = len(tensor.raw_data), needed(tensor.dims, dtype)
    else:
        held = sum(len(getattr(tensor, field)) for field in _FIELDS)
        pairs = dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
        packed = dtype != ir.DataType.STRING and dtype.itemsize < 1
        need = needed(tensor.dims, dtype) if packed else count * (2 if pairs else 1)
    if held != need and held:  # nothing at all is for onnx.checker to tell
        what = "bytes" if tensor.HasField("raw_data") else "values"
        raise ModelError(
            path, f"tensor {tensor.name!r} holds {held} {what}, its shape {list(tensor.dims)} needs {need}"
        )


def needed(dims: Sequence[int], dtype: ir.DataType) -> int | None:
    """The bytes of a tensor; None where there is no such tensor: a negative dim, or a type without a size."""
    if any(n < 0 for n in dims) or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return math.ceil(math.prod(dims) * dtype.itemsize)


def _place(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """(file, offset, length) of external data."""

    def refuse(cause: str) -> ModelError:
        return ModelError(path, f"initializer {tensor.name}: {cause}")

    folder = path.parent.resolve()
    fields = {entry.key: entry.value for entry in tensor.external_data}
    location = fields.get("location", "")
    if not location or "\0" in location or len(location) > _LONGEST_PATH:
        raise refuse(f"the location {location[:40]!r} of its external data is not a file name")
    try:
        source = (folder / location).resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise refuse(f"external data {location!r} cannot be found ({error})") from None
    if os.path.isabs(location) or not source.is_relative_to(folder):
        raise refuse(f"external data {location!r} is outside the model's folder")
    try:
        if not source.is_file():
            raise refuse(f"external data file {location!r} is missing")
        found = source.stat()
    except OSError as error:
        raise refuse(f"external data file {location!r} cannot be opened: {error.strerror}") from None
    if found.st_nlink > 1:  # as onnx and onnx_ir do: it may be another's file under a name in here
        raise refuse(f"external data file {location!r} has several hard links, which is refused")
    try:
        need = needed(tensor.dims, ir.DataType(tensor.data_type))
    except ValueError:
        need = None
    if need is None:
        raise refuse(f"external data cannot have its type {tensor.data_type} and shape {list(tensor.dims)}")
    offset, length = (_number(fields.get(key), default) for key, default in (("offset", 0), ("length", need)))
    if offset is None or length is None:
        raise refuse("the offset or length of its external data is not a number")
    if length != need:
        raise refuse(f"its external data has {length} bytes, its shape {list(tensor.dims)} needs {need}")
    if offset + length > found.st_size:
        raise refuse(f"external data file {location!r} is too short")
    return source, offset, length


def _number(text: str | None, default: int) -> int | None:
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _all(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return _inside([proto.graph])[0] + _beside(proto)


def _beside(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """The tensors that are not in the main graph."""
    training = [graph for info in proto.training_info for graph in (info.initialization, info.algorithm)]
    return _inside([*training, *proto.functions])[0]


def _inside(holders: list[Any]) -> tuple[list[onnx.TensorProto], list[onnx.GraphProto]]:
    """The tensors of graphs and functions, in the attributes of their nodes too, and the graphs at any depth."""
    tensors: list[onnx.TensorProto] = []
    graphs: list[onnx.GraphProto] = []
    while holders:
        holder = holders.pop()
        sparse: list[onnx.SparseTensorProto] = []
        if isinstance(holder, onnx.GraphProto):
            graphs.append(holder)
            tensors += holder.initializer
            sparse += holder.sparse_initializer
        attributes = [attribute for node in holder.node for attribute in node.attribute]
        for attribute in (*attributes, *getattr(holder, "attribute_proto", ())):
            tensors += (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors)
            sparse += attribute.sparse_tensors
            sparse += (attribute.sparse_tensor,) if attribute.HasField("sparse_tensor") else ()
            holders += (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs)
        tensors += (part for each in sparse for part in (each.values, each.indices))
    return tensors, graphs
