"""Dumps of a device's tensors: ``read(path)`` gives them by name, each left in its file until it is asked for.

A format is a module of this folder in ``READERS``, or an entry point of the group ``graphcheck.dumps``: an object with
``NAME``, ``accepts(path) -> bool`` and ``read(path) -> (tensors by name, notes)``. Escaped names (``/`` written as ``_``)
stay as they are: which tensor of a model is meant is found by :mod:`graphcheck.blaming.pairing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from graphcheck import plugins
from graphcheck.blaming.dumps import npy, npz, polygraphy, protos, raw
from graphcheck.blaming.dumps.lazy import Array, Tensors, head, wrong
from graphcheck.errors import GraphcheckError, UsageError

GROUP = "graphcheck.dumps"


class Reader(Protocol):
    """What reads a format."""

    NAME: str

    def accepts(self, path: Path) -> bool:
        """Whether the path is of the format; it may be a folder."""

    def read(self, path: Path) -> tuple[Mapping[str, Array], Sequence[str]]:
        """The tensors by name, best as a Mapping that reads each when it is asked for, and what there is to say."""


READERS: tuple[Any, ...] = (npz, polygraphy, raw, protos, npy)  # the first that accepts a path reads it


@dataclasses.dataclass(frozen=True)
class Dump:
    """Tensors of a device by name; ``source`` is what they were read from, ``notes`` sentences for whoever asked."""

    source: str
    tensors: Mapping[str, Array]
    notes: tuple[str, ...] = ()


def read(path: Path, readers: Sequence[Any] = READERS) -> Dump:
    """The dump at a path, by the first reader that accepts it; those of other distributions are asked last.

    Raises :class:`UsageError` in one sentence, with the file, the tensor and the cause.
    """
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder")
    asked = []
    for reader in (*readers, *_others()):
        asked.append(str(reader.NAME))
        try:
            if not reader.accepts(path):
                continue
            tensors, notes = reader.read(path)
        except GraphcheckError:
            raise
        except OSError as error:
            raise wrong(path, f"cannot be read ({error.strerror or error})") from None
        except Exception as error:  # of somebody else's reader: whatever it raises is about this path
            if reader in readers:
                raise
            cause = f"{type(error).__name__}: {str(error)[:200]}"
            raise wrong(path, f"the reader of {reader.NAME} dumps failed ({cause})") from error
        if not tensors:
            raise wrong(path, "holds no tensor")
        return Dump(str(path), tensors, tuple(notes))
    kind = "folder" if path.is_dir() else "file"
    raise wrong(path, f"is not a {kind} of tensors in a format that is read here ({', '.join(asked)})")


def _others() -> Iterator[Any]:
    """The readers that other distributions bring."""
    for _, _, reader in plugins.loaded(GROUP, "reader of dumps", ("NAME", "accepts", "read")):
        yield reader


__all__ = ["GROUP", "READERS", "Array", "Dump", "Reader", "Tensors", "head", "read"]
