"""Digests of constants: each array is hashed once, large ones in threads, whoever asks."""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphcheck.wire import HASHED_BYTES, File


class Hashes:
    """SHA-256 of arrays' bytes, remembered by address; an array is kept, so that no other gets its address."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, bytes]] = {}

    def of(self, array: np.ndarray) -> bytes:
        """The digest of the elements in C order; dtype and shape are not part of it."""
        flat = array.reshape(-1)
        key = _address(flat)
        if key not in self._known:
            digest = hashlib.sha256(np.ascontiguousarray(flat).view(np.uint8).data).digest()
            if flat.nbytes < HASHED_BYTES:
                return digest
            self._known[key] = (flat, digest)
        return self._known[key][1]

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
                list(pool.map(self.of, todo))


def _address(flat: np.ndarray) -> tuple[Any, ...]:
    """Where an array lies in memory; one with steps begins where its base does, so dtype and strides count."""
    start = flat.__array_interface__["data"][0]
    return (start, flat.nbytes) if flat.flags.c_contiguous else (start, flat.size, flat.strides, flat.dtype.str)
