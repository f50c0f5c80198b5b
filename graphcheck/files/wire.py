"""A model file, mapped, or read where it is small: its protobuf without the large initializers, and where those lie.

Needs the standard library alone, so that files are read and hashed while the heavy packages load.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from graphcheck import limits
from graphcheck.errors import ModelError

MAPPED_BYTES = 1024  # initializers from this size on are left in the file
READ_BYTES = 1 << 20  # files up to this size are read: what somebody writes into one meanwhile does not reach us
HASHED_BYTES = 1 << 16  # from this size on, hashing in a thread gains more than it costs
# field numbers of ModelProto.graph, GraphProto.initializer, TensorProto.name and .raw_data
_GRAPH, _INITIALIZER, _NAME, _RAW_DATA = 7, 5, 8, 9

Spans = list[tuple[str, tuple[int, int]]]


class File:
    """``data`` is the file, ``stripped`` its protobuf without large initializers, ``raw`` [(name, (start, length))]."""

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, _state(path)
        self.data = _map(path)
        try:
            self.stripped, self.raw = _strip(memoryview(self.data))
        except Exception as error:  # whatever strange bytes lead to
            raise damaged(path, "it ends within a field" if isinstance(error, IndexError) else str(error)) from None
        self.digests: dict[tuple[int, int], concurrent.futures.Future[bytes]] = {}

    def check_unchanged(self) -> None:
        """Raise :class:`ModelError` where the path no longer has what was read: onnxruntime may have met something else."""
        if _state(self.path) != self.state:
            raise ModelError(self.path, "was changed while it was being compared: compare again once nobody writes it")

    def hash_in(self, pool: concurrent.futures.Executor) -> None:
        """Have the large initializers hashed; ``digests`` maps (start, length) to what comes of it."""
        for _, span in self.raw:
            if span[1] >= HASHED_BYTES and span not in self.digests:
                self.digests[span] = pool.submit(self._digest, *span)

    def _digest(self, start: int, length: int) -> bytes:
        digest = hashlib.sha256(memoryview(self.data)[start : start + length]).digest()
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if start + length > first:  # its pages are mapped again where they are read again
            give_back(self.data, first, start + length - first)
        return digest


_ahead: dict[tuple[int, ...], concurrent.futures.Future[File]] = {}  # by what the file was when it was begun


def ahead(*paths: str | os.PathLike[str]) -> None:
    """Read these files in threads, and hash the first; :func:`opened` hands out what came of it, once, while they stay the same.

    The numbers that a proof draws depend on the digests of its constants, most of which both files hold.
    """
    _ahead.clear()
    if not all(os.path.isfile(path) for path in paths):
        return  # the reader will say so; hashing the others would only delay it
    pool = concurrent.futures.ThreadPoolExecutor(min(4, max(1, limits.cores() - 1)))  # one core imports meanwhile

    def begin(path: Path, first: bool) -> File:
        file = File(path)
        if first:
            file.hash_in(pool)
        return file

    files = {_state(p): Path(p) for p in reversed(paths)}
    for state, path in files.items():  # the one that is hashed last: no other waits for that
        _ahead[state] = pool.submit(begin, path, state == _state(paths[0]))


def _state(path: str | os.PathLike[str]) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def opened(path: Path) -> File:
    """The file, mapped and taken apart; raises :class:`ModelError` for one that is no model."""
    begun = _ahead.pop(_state(path), None)
    return File(path) if begun is None else begun.result()


def damaged(path: Path, cause: str) -> ModelError:
    """The error for a file that is no protobuf of a model, or not the whole of one."""
    return ModelError(path, f"is not an ONNX model, or is cut off ({cause})")


def give_back(data: mmap.mmap | bytes, *span: int) -> None:
    """Let the system have the pages of a mapped file again, all or those of (start, length)."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED, *span)


def _map(path: Path) -> mmap.mmap | bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode) and not path.is_dir():
            raise ModelError(path, "is not a regular file")  # opening a pipe would wait for ever
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ModelError(path, "is an empty file, no ONNX model")
            if size <= READ_BYTES:
                return file.read()
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelError(path, "there is no such file") from None
    except IsADirectoryError:
        raise ModelError(path, "is a directory, no ONNX file") from None
    except OSError as error:
        raise ModelError(path, f"cannot be opened: {error.strerror}") from None


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it."""
    result = shift = 0
    while True:
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ValueError("a length is not a number")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, start of the field, start of its content, end) of a protobuf message."""
    at = start
    while at < end:
        begin = at
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        content = at
        if wire == 0:
            _, at = varint(data, at)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        elif wire == 2:
            length, content = varint(data, at)
            at = content + length
        else:
            raise ValueError("it holds an unknown wire type")
        if at > end or number == 0:
            raise ValueError("a field reaches beyond the end")
        yield number, wire, begin, content, at


def _strip(data: memoryview) -> tuple[bytes, Spans]:
    """The model without the bytes of its large initializers, and where those are: [(name, (start, length))]."""
    raw: Spans = []
    parts: list[bytes] = []
    for number, wire, begin, content, end in fields(data, 0, len(data)):
        if number != _GRAPH or wire != 2:
            parts.append(bytes(data[begin:end]))
            continue
        graph: list[bytes] = []
        kept = content  # from here on as it is
        for field, kind, first, inner, last in fields(data, content, end):
            if last - first >= MAPPED_BYTES and field == _INITIALIZER and kind == 2:
                graph += bytes(data[kept:first]), _strip_tensor(data, inner, last, raw)
                kept = last
        body = b"".join((*graph, data[kept:end]))
        parts += [_encode(_GRAPH << 3 | 2), _encode(len(body)), body]
    return b"".join(parts), raw


def _strip_tensor(data: memoryview, start: int, end: int, raw: Spans) -> bytes:
    kept, found, name, count = [], None, "", 0
    for number, wire, begin, content, last in fields(data, start, end):
        if number == _RAW_DATA:
            count += 1
            if wire == 2 and last - content >= MAPPED_BYTES:
                found = (content, last - content)
                continue
        if number == _NAME and wire == 2:
            name = bytes(data[content:last]).decode()
        kept.append(bytes(data[begin:last]))
    if count > 1:  # readers differ in which of them counts
        raise ValueError(f"initializer {name!r} holds its data {count} times")
    if found:
        raw.append((name, found))
    body = b"".join(kept)
    return _encode(_INITIALIZER << 3 | 2) + _encode(len(body)) + body
