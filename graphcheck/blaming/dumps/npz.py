"""numpy's .npz: members stored as they are are mapped where they lie in the file, compressed ones are read one at a time.

https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html; the zip's local header is section 4.3.7 of PKWARE's
APPNOTE.TXT.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from graphcheck.blaming.dumps.lazy import Array, Entry, Tensors, check_memory, mapped, npy_head, wrong

NAME = "npz"
_LOCAL = struct.Struct("<4s5H3L2H")  # the last two: the lengths of the name and of what follows it


def accepts(path: Path) -> bool:
    """Whether the path is a .npz, or a zip file of another name."""
    return path.is_file() and (path.suffix == ".npz" or (path.suffix != ".npy" and zipfile.is_zipfile(path)))


def read(path: Path) -> tuple[Tensors, list[str]]:
    """The tensors by name, and what there is to say."""
    try:
        archive = zipfile.ZipFile(path)  # is kept open: its directory is read once
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        raise wrong(path, f"is not a .npz file, or is cut off ({error})") from None
    entries: dict[str, Entry] = {}
    others = []
    with open(path, "rb") as file:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.is_dir() or name == info.filename:
                others += [] if info.is_dir() else [info.filename]
                continue
            if name in entries:
                raise wrong(path, "is held twice, and which of them counts is unknown", name)
            entries[name] = _entry(path, archive, file, info, name)
    return Tensors(entries), [
        f"{others[0]!r} and {len(others) - 1} more are not .npy, and were left out"
    ] if others else []


def _entry(path: Path, archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo, name: str) -> Entry:
    if info.flag_bits & 1:
        raise wrong(path, "is encrypted, which is not read", name)
    if info.compress_type == zipfile.ZIP_STORED:
        file.seek(info.header_offset)
        local = file.read(_LOCAL.size)
        if len(local) < _LOCAL.size or local[:4] != b"PK\3\4":
            raise wrong(path, "lies where the file has no member: it is damaged", name)
        *_, named, extra = _LOCAL.unpack(local)
        file.seek(named + extra, 1)
        shape, dtype, order = npy_head(file, path, name)
        begin = file.tell() - (info.header_offset + _LOCAL.size + named + extra)
        _check_size(path, info, name, begin + math.prod(shape) * dtype.itemsize)
        return mapped(path, name, shape, dtype, file.tell(), order)
    try:
        with archive.open(info) as member:
            shape, dtype, order = npy_head(member, path, name)
            _check_size(path, info, name, member.tell() + math.prod(shape) * dtype.itemsize)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise wrong(path, f"cannot be decompressed ({error})", name) from None

    def load() -> Array:
        need = math.prod(shape) * dtype.itemsize
        check_memory(need, path, name)
        try:
            with archive.open(info) as member:
                npy_head(member, path, name)
                octets = bytearray(need)
                view, at = memoryview(octets), 0
                while at < need and (part := member.read(min(need - at, 1 << 24))):
                    view[at : at + len(part)] = part
                    at += len(part)
                member.read(1)  # the end, where zipfile compares the checksum
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise wrong(path, f"cannot be decompressed ({error})", name) from None
        if at < need:
            raise wrong(path, "ends before its last number", name)
        return np.ndarray(shape, dtype, octets, order=order)

    return Entry(shape, dtype, load)


def _check_size(path: Path, info: zipfile.ZipInfo, name: str, need: int) -> None:
    if need != info.file_size:
        raise wrong(
            path, f"takes {need} bytes by its head, and the file has {info.file_size} of it: it is damaged", name
        )
