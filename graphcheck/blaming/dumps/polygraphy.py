"""Polygraphy's JSON: ``polygraphy run MODEL --trt --trt-outputs mark all --save-outputs FILE.json``, or a folder of one JSON for
each iteration, or what ``--save-inputs`` writes. Polygraphy itself is not needed.

RunResults is ``{"lst": [[RUNNER, [ITERATION, ...]], ...]}``, an iteration ``{"outputs": {NAME: {"values": ARRAY}}}``, and an
array ``{"array": TEXT}``, a .npy in base64 (in latin-1 where Polygraphy is old), or ``{"tensor": TEXT}``, a file of torch.save
in base64 (polygraphy/json/serde.py and comparator/struct.py). The texts stay in the file, mapped, until they are asked for.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import mmap
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphcheck.blaming.dumps import torch_saved
from graphcheck.blaming.dumps.lazy import Array, Entry, Order, Tensors, check_memory, npy_head, wrong

NAME = "polygraphy"
_TEXT = re.compile(rb'"(array|tensor)"\s*:\s*"')
_SIGN = (b"polygraphy_class", b"__polygraphy_encoded_")
_HEAD = 4096  # of base64: the head of any .npy
_LEFT = "\0"  # a text that was left in the file, and its number: no JSON holds the character unescaped
_LARGEST = 1 << 28  # bytes of what is left of the JSON without the texts


def accepts(path: Path) -> bool:
    """Whether the path is such a JSON, or a folder of them."""
    files = sorted(path.glob("*.json"))[:1] if path.is_dir() else [path] if path.suffix == ".json" else []
    for each in files:
        with open(each, "rb") as file:  # the marks stand behind the first array
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if each.stat().st_size else b""
            return any(data.find(sign) >= 0 for sign in _SIGN)
    return False


def read(path: Path) -> tuple[Tensors, list[str]]:
    """The tensors by name, and what there is to say."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    notes = [f"of {len(files)} iterations in it the first was read"] if len(files) > 1 else []
    texts = _Texts(files[0])
    runs = _runs(texts.content, path)
    if len(runs) > 1:
        names = ", ".join(runs)
        raise wrong(
            path, f"holds what {len(runs)} runners gave ({names}): save the outputs of the one that is in question"
        )
    (iterations,) = runs.values() or ([],)
    if len(iterations) > 1 and not notes:
        notes.append(f"of {len(iterations)} iterations in it the first was read")
    entries = {name: texts.entry(name, found) for name, found in (iterations[0] if iterations else {}).items()}
    return Tensors(entries), notes


def _runs(content: Any, path: Path) -> dict[str, list[dict[str, Any]]]:
    """Runner -> for each iteration what there is by name."""

    def outputs(of: Any) -> dict[str, Any]:
        held = of.get("outputs", of.get("dct", of)) if isinstance(of, dict) else None
        if not isinstance(held, dict):
            raise wrong(path, "is not a file of Polygraphy's: an iteration holds no outputs by name")
        return {
            name: x for name, x in held.items() if not name.startswith(("polygraphy_class", "__polygraphy_encoded_"))
        }

    if isinstance(content, dict) and isinstance(content.get("lst"), list):
        pairs = content["lst"]
        if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[1], list) for p in pairs):
            raise wrong(path, "is not a file of Polygraphy's: its runs are not pairs of a runner and its iterations")
        return {str(runner): list(map(outputs, iterations)) for runner, iterations in pairs}
    return {"": list(map(outputs, content if isinstance(content, list) else [content]))}


class _Texts:
    """A JSON without its long texts, and where those lie."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spans: list[tuple[int, int]] = []
        try:
            with open(path, "rb") as file:
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise wrong(path, f"cannot be read ({error})") from None
        parts, size = [], 0
        for part in self._without():
            size += len(part)
            if size > _LARGEST:
                raise wrong(path, "is not a file of Polygraphy's: it is too large beside its arrays")
            parts.append(part)
        try:
            self.content = json.loads(b"".join(parts))
        except (ValueError, RecursionError) as error:
            raise wrong(path, f"is not JSON, or is cut off ({error})") from None

    def _without(self) -> Iterator[bytes]:
        at = 0
        while (found := _TEXT.search(self.data, at)) is not None:
            begin = found.end()
            end = self._end(begin)
            if end < 0:
                raise wrong(self.path, "is cut off within an array")
            yield self.data[at:begin] + b"\\u0000%d" % len(self.spans)
            self.spans.append((begin, end))
            at = end
        yield self.data[at:]

    def _end(self, begin: int) -> int:
        """Where a text ends: at the first quote that is not escaped."""
        end = self.data.find(b'"', begin)
        while end >= 0 and (len(tail := self.data[max(begin, end - 64) : end]) - len(tail.rstrip(b"\\"))) % 2:
            end = self.data.find(b'"', end + 1)
        return end

    def entry(self, name: str, found: Any) -> Entry:
        """The tensor of what stands in the place of an array."""
        held = found.get("values", found) if isinstance(found, dict) else None
        held = held if isinstance(held, dict) else {}
        kind = next((kind for kind in ("array", "tensor") if kind in held), "")
        if not str(held.get(kind)).startswith(_LEFT):
            raise wrong(self.path, "is not an array", name)
        begin, end = self.spans[int(held[kind][1:])]
        if kind == "tensor":
            shape, dtype, _ = torch_saved.tensor(self._decoded(begin, end, name), self.path, name)
            return Entry(
                shape, dtype, lambda: torch_saved.tensor(self._decoded(begin, end, name), self.path, name)[2]()
            )
        shape, dtype, order = npy_head(io.BytesIO(self._decoded(begin, min(end, begin + _HEAD), name)), self.path, name)
        return Entry(shape, dtype, self._loading(begin, end, name, shape, dtype, order))

    def _loading(
        self, begin: int, end: int, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], order: Order
    ) -> Callable[[], Array]:
        def load() -> Array:
            need = math.prod(shape) * dtype.itemsize
            check_memory(need, self.path, name)
            file = io.BytesIO(self._decoded(begin, end, name))
            npy_head(file, self.path, name)
            octets = bytearray(file.read())
            if len(octets) != need:
                raise wrong(self.path, f"takes {need} bytes by its head, and {len(octets)} are there", name)
            return np.ndarray(shape, dtype, octets, order=order)

        return load

    def _decoded(self, begin: int, end: int, name: str) -> bytes:
        text = self.data[begin:end]
        if text.startswith(b"\\u0093NUMPY"):
            text = text[: text.rfind(b"\\u") if len(text) == _HEAD and b"\\u" in text[-8:] else len(text)]
            return str(json.loads(b'"' + text + b'"')).encode("latin-1")
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise wrong(self.path, f"is not base64 ({error})", name) from None
