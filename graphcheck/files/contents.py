"""Which constants hold the same bytes: told by comparing them, and each array is looked at once, whoever asks.

Arrays of one length that agree at 64 places are compared byte by byte, at the speed of memory. Where several such arrays
differ all the same, as only a file made for it holds many, they are told apart by SHA-256 before they are compared.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import mmap
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.files.wire import HASHED_BYTES, MAPPED_BYTES, File

_PART = 1 << 19  # elements, or bytes, looked at in one piece, which a cache holds
_PLACES, _LENGTH = 64, 64  # how many pieces of how many bytes are looked at before arrays are compared
_FEW = 4  # arrays that agree there and differ elsewhere

Digests = Mapping[tuple[int, int], "concurrent.futures.Future[bytes]"]


class Content:
    """The bytes of an array, equal to itself alone: there is one for all arrays that hold the same."""

    def __init__(self, octets: np.ndarray, digests: Digests) -> None:
        self.octets, self._digests = octets, digests

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256, taken when it is asked for, or while the file was read."""
        begun = self._digests.get(_address(self.octets))
        return hashlib.sha256(self.octets.data).digest() if begun is None else begun.result()

    def __repr__(self) -> str:
        return f"sha256:{self.digest.hex()}"


class Contents:
    """The contents of arrays, remembered by address; an array is kept, so that no other gets its address."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, Content]] = {}
        self._groups: defaultdict[tuple[int, bytes], list[Content]] = defaultdict(list)
        self._finite: dict[tuple[str, Hashable], bool] = {}
        self._moved: dict[tuple[Hashable, str, Hashable], np.ndarray] = {}
        self._digests: dict[tuple[int, int], concurrent.futures.Future[bytes]] = {}
        self._stopped = False

    def of(self, array: np.ndarray) -> Hashable:
        """What two arrays have in common if, and only if, their elements in C order are the same bytes.

        dtype and shape are not part of it.
        """
        flat = array.reshape(-1)
        if flat.nbytes < MAPPED_BYTES:
            return np.ascontiguousarray(flat).view(np.uint8).tobytes()  # not of pointers: an array of objects has no view
        key = _address(flat)
        if key not in self._known:
            self._known[key] = (flat, self._content(np.ascontiguousarray(flat).view(np.uint8)))
            release(flat)
        return self._known[key][1]

    def _content(self, octets: np.ndarray) -> Content:
        alike = self._groups[octets.size, _sample(octets)]
        crowded = len(alike) >= _FEW
        group = self._groups[octets.size, hashlib.sha256(octets.data).digest()] if crowded else alike
        for content in group:
            if _same(content.octets, octets):
                return content
        group.append(made := Content(octets, self._digests))
        if not crowded and len(alike) == _FEW:
            for content in alike:
                self._groups[octets.size, content.digest].append(content)
        return made

    def finite(self, array: np.ndarray) -> bool:
        """Whether no element is infinite or NaN; looked at once, so that a large file is not read again and again."""
        flat = array.reshape(-1)
        if flat.nbytes < HASHED_BYTES:
            return bool(np.isfinite(flat).all())
        key = flat.dtype.str, self.of(flat)
        if key not in self._finite:
            parts = range(0, flat.size, _PART)
            self._finite[key] = all(bool(np.isfinite(flat[at : at + _PART]).all()) for at in parts)
            release(flat)
        return self._finite[key]

    def moved(self, array: np.ndarray, by: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``make`` makes of an array, as ``by`` tells (None: as nothing does): once for all stores, where it is large."""
        if by is None or array.nbytes < HASHED_BYTES:
            return make()
        key = self.of(array), array.dtype.str, by
        if key not in self._moved:
            self._moved[key] = make()
            release(array.reshape(-1))
        return self._moved[key]

    def adopt(self, file: File) -> None:
        """Take over the digests that are made since the file was read."""
        start = np.frombuffer(file.data, np.uint8).__array_interface__["data"][0]
        self._digests.update({(start + at, length): digest for (at, length), digest in file.digests.items()})

    def ahead(self, arrays: Iterable[np.ndarray], threads: int | None = None) -> None:
        """Look at large arrays in threads, those that may be the same in one."""
        flats = {_address(f): f for f in (a.reshape(-1) for a in arrays) if f.nbytes >= HASHED_BYTES}
        alike: defaultdict[Hashable, list[np.ndarray]] = defaultdict(list)
        for key, flat in flats.items():
            if key not in self._known:
                alike[flat.nbytes].append(flat)
        if alike:
            with concurrent.futures.ThreadPoolExecutor(threads or min(4, limits.cores())) as pool:
                list(pool.map(self._look, alike.values()))

    def stop(self) -> None:
        """Let :meth:`ahead` end early: nobody needs the rest any more."""
        self._stopped = True

    def _look(self, flats: Iterable[np.ndarray]) -> None:
        for flat in flats:
            if self._stopped:
                return
            self.of(flat)
            if flat.dtype.kind == "f":
                self.finite(flat)


def _sample(octets: np.ndarray) -> bytes:
    places = np.linspace(0, octets.size - _LENGTH, _PLACES).astype(np.int64).tolist()
    return b"".join(octets[at : at + _LENGTH].tobytes() for at in places)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of bytes of one length are the same."""
    same = all(np.array_equal(a[at : at + _PART], b[at : at + _PART]) for at in range(0, a.size, _PART))
    release(a)
    return same


def release(flat: np.ndarray) -> None:
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
