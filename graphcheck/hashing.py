"""Digests of constants: each array is hashed once, large ones in threads, whoever asks."""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

_THREAD_BYTES = 1 << 16  # hashing smaller arrays in a thread costs more than it gains


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
            if flat.nbytes < _THREAD_BYTES:
                return digest
            self._known[key] = (flat, digest)
        return self._known[key][1]

    def ahead(self, arrays: Iterable[np.ndarray], threads: int = 4) -> None:
        """Hash large arrays in threads."""
        flats = {_address(f): f for f in (a.reshape(-1) for a in arrays) if f.nbytes >= _THREAD_BYTES}
        todo = [flat for key, flat in flats.items() if key not in self._known]
        if todo:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                list(pool.map(self.of, todo))


def _address(flat: np.ndarray) -> tuple[Any, ...]:
    """Where an array lies in memory; a slice with steps begins where its base does, so strides count."""
    return (flat.__array_interface__["data"][0], flat.size, flat.strides, flat.dtype.str)

