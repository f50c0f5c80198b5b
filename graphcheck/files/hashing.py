"""Digests of constants: each array is hashed once, large ones in threads, whoever asks."""

from __future__ import annotations

import concurrent.futures
import hashlib
import mmap
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphcheck.files.wire import HASHED_BYTES, File

_PART = 1 << 16  # elements looked at in one piece, which a cache holds


class Hashes:
    """SHA-256 of arrays' bytes, remembered by address; an array is kept, so that no other gets its address."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, bytes]] = {}
        self._finite: dict[bytes, bool] = {}
        self._stopped = False

    def of(self, array: np.ndarray) -> bytes:
        """The digest of the elements in C order; dtype and shape are not part of it."""
        flat = array.reshape(-1)
        key = _address(flat)
        if key not in self._known:
            digest = hashlib.sha256(np.ascontiguousarray(flat).view(np.uint8).data).digest()
            if flat.nbytes < HASHED_BYTES:
                return digest
            _give_back(flat)
            self._known[key] = (flat, digest)
        return self._known[key][1]

    def finite(self, array: np.ndarray) -> bool:
        """Whether no element is infinite or NaN; looked at once, so that a large file is not read again and again."""
        flat = array.reshape(-1)
        if flat.nbytes < HASHED_BYTES:
            return bool(np.isfinite(flat).all())
        key = flat.dtype.str.encode() + self.of(flat)
        if key not in self._finite:
            parts = range(0, flat.size, _PART)
            self._finite[key] = all(bool(np.isfinite(flat[at : at + _PART]).all()) for at in parts)
            _give_back(flat)
        return self._finite[key]

    def adopt(self, file: File) -> None:
        """Take over what was hashed while the file was read; waits for it."""
        for (start, length), digest in file.digests.items():
            array = np.frombuffer(file.data, np.uint8, length, start)
            self._known[_address(array)] = (array, digest.result())

    def ahead(self, arrays: Iterable[np.ndarray], threads: int = 4) -> None:
        """Hash large arrays in threads."""
        flats = {_address(f): f for f in (a.reshape(-1) for a in arrays) if f.nbytes >= HASHED_BYTES}
        todo = [flat for key, flat in flats.items() if key not in self._known]
        if todo:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(self._look, todo))

    def stop(self) -> None:
        """Let :meth:`ahead` end early: nobody needs the rest any more."""
        self._stopped = True

    def _look(self, flat: np.ndarray) -> None:
        if self._stopped:
            return
        self.of(flat)
        if flat.dtype.kind == "f":
            self.finite(flat)


def _give_back(flat: np.ndarray) -> None:
    """Let the system have the pages of a mapped file again: what is read once more is mapped once more."""
    base: Any = flat
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if isinstance(base, mmap.mmap) and flat.flags.c_contiguous and hasattr(mmap, "MADV_DONTNEED"):
        start = flat.__array_interface__["data"][0] - np.frombuffer(base, np.uint8).__array_interface__["data"][0]
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if (length := start + flat.nbytes - first) > 0:
            base.madvise(mmap.MADV_DONTNEED, first, length)


def _address(flat: np.ndarray) -> tuple[Any, ...]:
    """Where an array lies in memory; one with steps begins where its base does, so dtype and strides count."""
    start = flat.__array_interface__["data"][0]
    return (start, flat.nbytes) if flat.flags.c_contiguous else (start, flat.size, flat.strides, flat.dtype.str)
