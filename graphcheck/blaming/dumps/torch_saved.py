"""Tensors that torch.save wrote, read without torch and without running what a pickle may hold.

The file is a zip with data.pkl, a pickle that rebuilds tensors out of storages, and data/KEY, their bytes
(torch/serialization.py). Of the pickle's functions only those that rebuild a tensor are known here, and they note what they are
given; anything else is refused.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from graphcheck.blaming.dumps.lazy import Array, check_memory, wrong

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
}
Tensor = tuple[tuple[int, ...], np.dtype[Any], Callable[[], Array]]


def tensor(octets: bytes, path: Path, name: str) -> Tensor:
    """(shape, type, what reads it) of the one tensor of a file."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(octets))
        (pickled,) = [each for each in archive.namelist() if each.endswith("data.pkl")]
        found = _Notes(io.BytesIO(archive.read(pickled))).load()
    except Exception as error:  # whatever a broken pickle leads to
        raise wrong(path, f"is not a tensor that torch.save wrote ({str(error)[:120]})", name) from None
    if not isinstance(found, _Told):
        raise wrong(path, f"is a {type(found).__name__} of torch, where a tensor is read", name)
    strides = [math.prod(found.shape[axis + 1 :]) for axis in range(len(found.shape))]
    if any(s != t for s, t, size in zip(strides, found.strides, found.shape, strict=True) if size > 1):
        raise wrong(path, "does not lie row by row: save tensor.contiguous()", name)

    def load() -> Array:
        need = math.prod(found.shape) * found.dtype.itemsize
        check_memory(need, path, name)
        data = bytearray(archive.read(f"{pickled.removesuffix('data.pkl')}data/{found.key}"))
        begin = found.offset * found.dtype.itemsize
        if len(data) < begin + need:
            raise wrong(path, f"takes {need} bytes, and {len(data) - begin} are there", name)
        return np.frombuffer(data, found.dtype, math.prod(found.shape), begin).reshape(found.shape)

    return found.shape, found.dtype, load


class _Told:
    """What a pickle says of a tensor."""

    def __init__(
        self, storage: tuple[str, str], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
    ) -> None:
        kind, self.key = storage
        self.dtype = np.dtype(getattr(ml_dtypes, kind, kind))
        self.offset, self.shape, self.strides = int(offset), tuple(map(int, shape)), tuple(map(int, strides))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor behind its making")


class _Notes(pickle.Unpickler):
    """Knows the functions that rebuild a tensor, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor")):
            return _Told
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, key = pid[1], pid[2]
        if pid[0] != "storage" or not isinstance(kind, str):
            raise pickle.UnpicklingError("it holds no plain storage")
        return kind, str(key)
