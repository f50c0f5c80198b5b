"""What makes two pieces of work the same: the content of the models, what is done, its options, the versions."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphcheck.verdict import version

# StringStringEntryProto with key "location", in the order in which every protobuf library writes its two fields.
_LOCATION = b"\x0a\x08location\x12"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is done to every job: ``do`` is compare, guard, analyze or rewrite.

    ``command`` is guard's, ``to`` and ``rewriting`` (the options that are given) rewrite's; ``options`` are those of
    ``compare`` and decide about the answer. The limits (``timeout`` in seconds, ``max_memory`` in bytes) hold for each
    job, ``threads`` is what each may use. ``witness``, ``reduce`` and ``out`` are folders.
    """

    do: str
    options: Mapping[str, Any]
    timeout: float
    max_memory: int
    command: tuple[str, ...] = ()
    to: str | None = None
    rewriting: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    threads: int = 1
    witness: str | None = None
    reduce: str | None = None
    out: str | None = None

    def key(self, digests: list[str]) -> str:
        """The key of these settings on models with ``digests``: limits and folders have no part in it."""
        versions = {name: version(name) for name in ("graphcheck", "onnx", "onnx-ir", "onnxruntime")}
        parts = [self.do, list(self.command), self.to, dict(self.rewriting), dict(self.options), digests, versions]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 over a model file and the external data that it names inside its folder; raises OSError.

    The file is not parsed, since a hostile one must harm nobody here: names of external files are looked for as bytes.
    """
    total = hashlib.sha256(_file(path))
    folder = path.parent.resolve()
    for name in files_of(path)[1:]:
        total.update(name.encode(errors="surrogateescape") + b"\0" + _file((folder / name).resolve()))
    return total.hexdigest()


def files_of(path: Path) -> list[str]:
    """The name of a model file, and those of the external data that it names inside its folder; raises OSError."""
    folder = path.parent.resolve()
    names = []
    for name in sorted(set(_locations(path))):
        target = (folder / name).resolve()
        if target.is_relative_to(folder) and target.is_file():
            names.append(name)
    return [path.name, *names]


def _file(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _locations(path: Path) -> Iterator[str]:
    if not path.stat().st_size:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_LOCATION)
        while at >= 0:
            start = at + len(_LOCATION)
            length, start = _varint(data, start)
            name = data[start : start + min(length, 4096)].decode(errors="surrogateescape")
            if "\0" not in name:
                yield name
            at = data.find(_LOCATION, start)


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    """(value, where it ends) of the one or two bytes of a length."""
    first, second = (*data[at : at + 2], 0, 0)[:2]
    return (first, at + 1) if first < 0x80 else (first & 0x7F | second << 7, at + 2)
