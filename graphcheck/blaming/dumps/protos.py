"""TensorProtos: what an onnxruntime built with DEBUG_NODE_INPUTS_OUTPUTS dumps, and the .pb files of ONNX's test data.

With ORT_DEBUG_NODE_IO_DUMP_DATA_DESTINATION=files it writes each tensor to NAME.tensorproto, every character of the name that is
neither letter nor digit as ``_`` (two such names overwrite each other), with ``_rank_N`` behind it on request; =sqlite writes
execution-trace-pidN.db with the table Tensors (Step, Name, Value). The proto itself has the name as it is in the model. Source:
onnxruntime/core/framework/debug_node_inputs_outputs_utils.cc.
"""

from __future__ import annotations

import contextlib
import mmap
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from graphcheck.blaming.dumps.lazy import Array, Entry, Tensors, check_memory, mapped, wrong
from graphcheck.files import wire

NAME = "onnxruntime"
_ENDINGS = (".tensorproto", ".pb")
_DIMS, _TYPE, _NAMED, _RAW = 1, 2, 8, 9  # fields of TensorProto
_PACKED = (21, 22, 23, 25, 26)  # 4 and 2 bits an element


def accepts(path: Path) -> bool:
    """Whether the path is a folder of TensorProtos, one of them, or a database of them."""
    if path.is_dir():
        return next((each for end in _ENDINGS for each in path.glob(f"*{end}")), None) is not None
    if path.suffix in _ENDINGS:
        return True
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"
    return False


def read(path: Path) -> tuple[Tensors, list[str]]:
    """The tensors by name, and what there is to say."""
    if path.is_file() and path.suffix not in _ENDINGS:
        return _of_database(path)
    files = sorted(each for each in path.iterdir() if each.suffix in _ENDINGS) if path.is_dir() else [path]
    entries: dict[str, Entry] = {}
    places: dict[str, Path] = {}
    for each in files:
        name, entry = _of_file(each)
        if name in entries:
            raise wrong(
                path, f"is in {places[name].name} and in {each.name}: keep the files of one rank, or of one run", name
            )
        entries[name], places[name] = entry, each
    return Tensors(entries), []


def _of_file(path: Path) -> tuple[str, Entry]:
    try:
        with open(path, "rb") as file:
            empty = not path.stat().st_size
            data: Any = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})") from None
    try:
        shape, number, name, raw = _parts(data, path)
        name = name or path.stem
        dtype = _dtype(number, path, name)
        if raw is not None and number not in _PACKED and dtype.kind != "O":
            if (have := raw[1] - raw[0]) != (need := _bytes(shape, dtype)):
                raise wrong(
                    path, f"of shape {list(shape)} and type {dtype} takes {need} bytes, and {have} are there", name
                )
            return name, mapped(path, name, shape, dtype, raw[0])
    finally:
        if isinstance(data, mmap.mmap):
            data.close()
    return name, Entry(shape, dtype, lambda: _decoded(path.read_bytes, path, name))


def _parts(data: Any, path: Path) -> tuple[tuple[int, ...], int, str, tuple[int, int] | None]:
    """(shape, number of the type, name, where the raw bytes lie) of a TensorProto."""
    dims: list[int] = []
    number, name, raw = 0, "", None
    try:
        for field, kind, _, at, end in wire.fields(data, 0, len(data)):
            if field == _DIMS and kind == 0:
                dims.append(wire.varint(data, at)[0])
            elif field == _DIMS and kind == 2:
                while at < end:
                    size, at = wire.varint(data, at)
                    dims.append(size)
            elif field == _TYPE and kind == 0:
                number = wire.varint(data, at)[0]
            elif field == _NAMED and kind == 2:
                name = bytes(data[at:end]).decode()
            elif field == _RAW and kind == 2:
                raw = (at, end)
    except (IndexError, ValueError) as error:
        raise wrong(path, f"is not a TensorProto, or is cut off ({error})") from None
    if not number or len(dims) > 64 or any(size >= 2**48 for size in dims):
        raise wrong(path, "is not a TensorProto: it says no type and shape")
    return tuple(dims), number, name, raw


def _dtype(number: int, path: Path, name: str) -> np.dtype[Any]:
    import onnx

    try:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number))
    except (KeyError, ValueError, TypeError):
        raise wrong(path, f"has the type {number}, which ONNX does not know", name) from None


def _bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    count = dtype.itemsize
    for size in shape:
        count *= size
    return count


def _decoded(content: Callable[[], bytes], path: Path, name: str) -> Array:
    """The numbers of a TensorProto that holds them in another way than as raw bytes."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return np.asarray(onnx.numpy_helper.to_array(onnx.TensorProto.FromString(content())))
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise wrong(path, f"cannot be decoded ({str(error)[:120]})", name) from None


def _of_database(path: Path) -> tuple[Tensors, list[str]]:
    try:
        base = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        rows = base.execute(
            "select rowid, Step, Name from Tensors where Value is not null order by Step, rowid"
        ).fetchall()
    except sqlite3.Error as error:
        raise wrong(path, f"is not a database of onnxruntime's node dumps ({error})") from None
    steps = sorted({step for _, step, _ in rows})
    entries: dict[str, Entry] = {}
    for row, step, name in rows:
        if step == steps[0]:
            with base.blobopen("Tensors", "Value", row, readonly=True) as blob:
                shape, number, _, _ = _parts(blob, path)
                length = len(blob)
            entries[str(name)] = Entry(shape, _dtype(number, path, name), _loading(base, row, length, path, str(name)))
    return Tensors(entries), [f"of {len(steps)} runs in it the first was read"] if len(steps) > 1 else []


def _loading(base: sqlite3.Connection, row: int, length: int, path: Path, name: str) -> Callable[[], Array]:
    def content() -> bytes:
        check_memory(length, path, name)
        with base.blobopen("Tensors", "Value", row, readonly=True) as blob:
            return blob.read()

    return lambda: _decoded(content, path, name)
