"""Tensors that stay in their files until they are asked for: mapped where they lie plainly, else decoded one at a time."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

import ml_dtypes
import numpy as np

from graphcheck import limits
from graphcheck.errors import UsageError
from graphcheck.words import size

Array = np.ndarray[Any, Any]
Order = Literal["C", "F"]
_BF16 = np.dtype(ml_dtypes.bfloat16)
# What people call the types: ONNX, C, Rust's safetensors, vendors. The names of numpy and ml_dtypes are known as they are.
_NAMES = {
    **dict.fromkeys(("float", "f32", "fp32"), "float32"),
    **dict.fromkeys(("double", "f64", "fp64"), "float64"),
    **dict.fromkeys(("half", "f16", "fp16"), "float16"),
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("char", "i8", "s8"), "int8"),
    **dict.fromkeys(("byte", "u8"), "uint8"),
    **dict.fromkeys(("short", "i16", "s16"), "int16"),
    **dict.fromkeys(("ushort", "u16"), "uint16"),
    **dict.fromkeys(("int", "i32", "s32"), "int32"),
    **dict.fromkeys(("uint", "u32"), "uint32"),
    **dict.fromkeys(("long", "i64", "s64"), "int64"),
    **dict.fromkeys(("ulong", "u64"), "uint64"),
    **dict.fromkeys(("boolean",), "bool"),
    **dict.fromkeys(("float8e4m3fn", "f8_e4m3", "fp8_e4m3"), "float8_e4m3fn"),
    **dict.fromkeys(("float8e5m2", "f8_e5m2", "fp8_e5m2"), "float8_e5m2"),
    "float8e4m3fnuz": "float8_e4m3fnuz",
    "float8e5m2fnuz": "float8_e5m2fnuz",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a tensor before it is read, and how it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], Array]


class Tensors(Mapping[str, Array]):
    """Tensors by name, each read when it is asked for; the last one alone is kept."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = dict(entries)
        self._last: tuple[str, Array] | None = None

    def __getitem__(self, name: str) -> Array:
        entry = self.entries[name]
        if self._last is None or self._last[0] != name:
            self._last = None  # before the next one is read
            self._last = (name, entry.load())
        return self._last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def without(self, names: Iterable[str]) -> Tensors:
        """All but those of some names."""
        left = set(names)
        return Tensors({name: entry for name, entry in self.entries.items() if name not in left})

    def __contains__(self, name: object) -> bool:  # without reading it
        return name in self.entries


def joined(*parts: Mapping[str, Array]) -> Tensors:
    """All of them, the last of a name; arrays are held as they are."""
    entries: dict[str, Entry] = {}
    for part in parts:
        if isinstance(part, Tensors):
            entries |= part.entries
        else:
            entries |= {name: _held(np.asarray(x)) for name, x in part.items()}
    return Tensors(entries)


def _held(x: Array) -> Entry:
    return Entry(x.shape, x.dtype, lambda: x)


def head(tensors: Mapping[str, Array], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a tensor, read only where there is no other way."""
    found = tensors.entries[name] if isinstance(tensors, Tensors) else tensors[name]
    return tuple(found.shape), found.dtype


def wrong(path: object, cause: str, tensor: str | None = None) -> UsageError:
    """The error for a dump: the file, the tensor, the cause."""
    return UsageError(f"{path}: {f'tensor {tensor!r} ' if tensor is not None else ''}{cause}")


def typed(text: object) -> np.dtype[Any] | None:
    """The type of a name, in whichever way it is written; None for what is no type of numbers of whole bytes."""
    name = str(text).strip().lower().removeprefix("tensor(").removesuffix(")").rpartition(".")[2]
    name = _NAMES.get(name, name)
    try:
        found = np.dtype(getattr(ml_dtypes, name, name))
    except TypeError:
        return None
    packed = found.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn")
    strange = found.kind in "SUMmV" and found.name not in vars(ml_dtypes)
    return None if found.hasobject or strange or packed else found


def mapped(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    offset: int = 0,
    order: Order = "C",
    *,
    exact: bool = False,
) -> Entry:
    """A tensor that lies plainly in a file from ``offset`` on; with ``exact``, the file has to end with it."""
    need = math.prod(shape) * dtype.itemsize
    try:
        held = os.stat(path).st_size - offset
    except OSError as error:
        raise wrong(path, f"cannot be read ({error.strerror})", name) from None
    if held < need or (exact and held != need):
        held = max(held, 0)
        raise wrong(
            path, f"of shape {list(shape)} and type {dtype} takes {need} bytes, and the file has {held} for it", name
        )

    def load() -> Array:
        if not need:
            return np.empty(shape, dtype)
        try:
            octets = np.memmap(path, np.uint8, "r", offset, (need,))
        except (OSError, ValueError) as error:
            raise wrong(path, f"can no longer be read ({error})", name) from None
        return np.ndarray(shape, dtype, octets.data, order=order)

    return Entry(shape, dtype, load)


def npy_head(file: IO[bytes], path: object, name: str) -> tuple[tuple[int, ...], np.dtype[Any], Order]:
    """(shape, type, order) at the start of a .npy, which is left behind its head (numpy.lib.format, versions 1 to 3)."""
    try:
        version = np.lib.format.read_magic(file)
        reads = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reads(file)
    except (ValueError, OSError, EOFError, TypeError, SyntaxError) as error:
        text = str(error).splitlines() or [type(error).__name__]
        raise wrong(path, f"is not a .npy array ({text[0][:120]})", name) from None
    if dtype.hasobject:
        raise wrong(
            path, "holds pickled Python objects, which are not read: they could run code; save plain numbers", name
        )
    if dtype.names:
        raise wrong(path, f"is an array of records ({', '.join(dtype.names)}), where one of numbers is read", name)
    if dtype.kind == "V" and dtype.itemsize == 2:
        dtype = _BF16  # the only type of two bytes whose name .npy files do not know
    return shape, dtype, "F" if fortran else "C"


def check_memory(need: int, path: object, name: str) -> None:
    """Raise where a tensor that has to be decoded would not fit into the memory."""
    if need > limits.current().memory:
        have = size(limits.current().memory)
        raise wrong(
            path,
            f"takes {size(need)} once it is decoded, beyond the memory limit of {have}: save it uncompressed",
            name,
        )
