"""Raw files with a JSON that says what they hold, as device tools write them: numbers row by row, little-endian, mapped.

The JSON is ``{"tensors": {NAME: {"file", "shape", "dtype", "offset"}}}``, or a list of such with ``"name"``, or either without
``"tensors"`` around it. Without ``"file"`` it is NAME.bin or NAME.raw; ``"offset"`` is 0 if missing, so that one file may hold
them all. A file in .npy says its shape and type itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graphcheck.blaming.dumps import npy
from graphcheck.blaming.dumps.lazy import Entry, Tensors, mapped, typed, wrong

NAME = "raw"
_LARGEST = 1 << 26  # bytes of JSON: names and shapes of a million tensors
_FILE, _TYPE, _SHAPE = ("file", "path", "filename", "file_name"), ("dtype", "type", "data_type"), ("shape", "dims")
_ENDINGS = (".bin", ".raw", "")


def accepts(path: Path) -> bool:
    """Whether the path is such a JSON, or a folder with one."""
    return _list_of(path) is not None


def read(path: Path) -> tuple[Tensors, list[str]]:
    """The tensors by name, and what there is to say."""
    listed = _list_of(path)
    assert listed is not None
    source, content = listed
    entries: dict[str, Entry] = {}
    for name, told in _told(source, content):
        if name in entries:
            raise wrong(source, "is listed twice", name)
        entries[name] = _entry(source, name, told)
    return Tensors(entries), []


def _list_of(path: Path) -> tuple[Path, Any] | None:
    """The JSON that lists tensors, and its content."""
    for each in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        if each.suffix != ".json" or each.stat().st_size > _LARGEST:
            continue
        try:
            content = json.loads(each.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        found = content.get("tensors", content) if isinstance(content, dict) else content
        rows = list(found.values()) if isinstance(found, dict) else found
        if (
            isinstance(rows, list)
            and rows
            and all(isinstance(row, dict) and _first(row, _SHAPE + _FILE) for row in rows)
        ):
            return each, found
    return None


def _told(source: Path, content: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(content, dict):
        yield from content.items()
        return
    for number, row in enumerate(content):
        if not isinstance(row.get("name"), str):
            raise wrong(source, f"entry {number} has no name")
        yield row["name"], row


def _first(row: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in row), None)


def _entry(source: Path, name: str, row: Mapping[str, Any]) -> Entry:
    file = _place(source, name, row)
    if file.suffix == ".npy":
        return npy.entry(file, name)
    shape_key, type_key = _first(row, _SHAPE), _first(row, _TYPE)
    if shape_key is None or type_key is None:
        raise wrong(source, f"has no {'shape' if shape_key is None else 'dtype'}", name)
    shape, offset = row[shape_key], row.get("offset", 0)
    if (
        not isinstance(shape, list)
        or not all(type(size) is int and 0 <= size < 2**48 for size in shape)
        or len(shape) > 64
    ):
        raise wrong(source, f"has the shape {str(shape)[:60]}, where a list of sizes is read", name)
    dtype = typed(row[type_key])
    if dtype is None:
        said = str(row[type_key])[:40]
        raise wrong(source, f"is of type {said!r}, which is not known; write float16, bfloat16, int8, ...", name)
    if type(offset) is not int or offset < 0:
        raise wrong(source, f"has the offset {str(offset)[:40]!r}, where a number of bytes is read", name)
    return mapped(file, name, tuple(shape), dtype, offset, exact="offset" not in row)


def _place(source: Path, name: str, row: Mapping[str, Any]) -> Path:
    """The file of a tensor, which has to be in the folder of the JSON."""
    folder, key = source.parent.resolve(), _first(row, _FILE)
    given = [str(row[key])] if key else [name + ending for ending in _ENDINGS]
    for text in given:
        if "\0" in text or not (folder / text).resolve().is_relative_to(folder):
            raise wrong(source, f"is said to be in {text[:80]!r}, which is outside the folder of the JSON", name)
        if (folder / text).is_file():
            return folder / text
    raise wrong(
        source, f"has no file: there is no {' and no '.join(text[:120] for text in given if text != name)}", name
    )
