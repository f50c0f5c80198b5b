"""Writes models whose weights lie in files beside them: data that did not change is copied, cloned or left where it is.

Hard links and symbolic links are no way to share a data file: onnx and onnx_ir refuse to read either, from both sides
of a hard link, and onnxruntime refuses symbolic ones. A copy-on-write clone shares the disk space and is a file like
any other; it needs a file system that can (btrfs, XFS, bcachefs and others on Linux).
"""

from __future__ import annotations

import contextlib
import filecmp
import mmap
import os
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from graphcheck.errors import ModelError, UsageError
from graphcheck.files import atomic

INLINE_LIMIT = 2**31 - 2**20  # bytes of weights in one file: protobuf takes no message of 2 GiB, the rest is the graph
_SMALL = 1024  # initializers below this stay in the model file: shapes and axes that runtimes want at hand
MODES = ("copy", "link", "used")
_ALIGN, _FICLONE = 4096, 0x40049409


class Serialized(bytes):
    """A serialized model whose external data lies in ``folder``; empty where it has none."""

    folder: str = ""


class Mapped(ir.ExternalTensor):
    """External data in one mapping of its file for all tensors of all models: hashed once, however many share it."""

    def _load(self) -> None:
        if self.size == 0 or self.dtype.itemsize < 1:  # 4 bits and fewer are unpacked, which onnx_ir does
            super()._load()  # type: ignore[no-untyped-call]
            return
        self._check_validity()
        self._check_path_containment()
        self.raw = _mapping(Path(self.path))
        dtype = np.dtype(self.dtype.numpy()).newbyteorder("<")
        self._array = np.frombuffer(self.raw, dtype, self.size, self.offset or 0).reshape(self.shape.numpy())

    def release(self) -> None:
        """Forget the array; the mapping stays, since others may use it."""
        self._array = self.raw = None


_mappings: weakref.WeakValueDictionary[tuple[int, ...], mmap.mmap] = weakref.WeakValueDictionary()


def _mapping(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if (data := _mappings.get(key)) is None:
            data = _mappings[key] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return data


def share(model: ir.Model) -> None:
    """Let the external initializers of a model be :class:`Mapped`."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            t = value.const_value
            if isinstance(t, ir.ExternalTensor):
                value.const_value = Mapped(
                    t.location, t.offset, t.length, t.dtype, shape=t.shape, name=t.name, base_dir=t.base_dir
                )


def tensors(model: ir.Model) -> list[ir.ExternalTensor]:
    """The initializers whose data is in other files."""
    values = [v.const_value for graph in _graphs(model) for v in graph.initializers.values()]
    return [t for t in values if isinstance(t, ir.ExternalTensor)]


def _graphs(model: ir.Model) -> list[ir.Graph]:
    return list(dict.fromkeys([model.graph, *model.graph.subgraphs()]))


def inline_bytes(model: ir.Model) -> int:
    """Bytes of the initializers that the model itself holds."""
    values = (v.const_value for v in model.graph.initializers.values())
    return sum(t.nbytes for t in values if t is not None and not isinstance(t, ir.ExternalTensor))


def serialized(model: ir.Model) -> Serialized:
    """The model as bytes, with the folder that onnxruntime is to look in for its external data."""
    data = Serialized(ir.to_proto(model).SerializeToString())
    data.folder = next((str(t.base_dir) for t in tensors(model)), "")
    return data


def without_weights(model: ir.Model, limit: int | None = None) -> ir.Model:
    """The model for the checker, which reads no external data: such initializers, and all large ones of a model beyond
    ``limit`` bytes, are graph inputs of a clone; the model itself where there are none.
    """
    everything = inline_bytes(model) > (INLINE_LIMIT if limit is None else limit)
    if not everything and not tensors(model):
        return model
    work = model.clone()
    for value in list(work.graph.initializers.values()):
        t = value.const_value
        if t is not None and (isinstance(t, ir.ExternalTensor) or (everything and t.nbytes >= _SMALL)):
            value.dtype, value.shape = t.dtype, ir.Shape(t.shape.numpy())
            del work.graph.initializers[value.name or ""]
            value.const_value = None
            if value not in work.graph.inputs:
                work.graph.inputs.append(value)
    _embed(work)  # what is left is in subgraphs, which have no inputs
    return work


@contextlib.contextmanager
def placed(model: ir.Model, path: Path, mode: str = "copy", limit: int | None = None) -> Iterator[ir.Model]:
    """A clone of the model whose data files lie beside ``path``, where its own file is to be written within the block.

    Data files in another folder are copied (``mode`` "copy"), cloned ("link"), or only the tensors in use are taken out
    of them ("used"). Initializers go to a new file where the model would exceed ``limit`` bytes without that. Raises
    :class:`ModelError`; whatever was made is taken away again if the block fails.
    """
    if mode not in MODES:
        raise UsageError(f"external data is treated by {', '.join(MODES)}, not {mode!r}")
    work, folder = model.clone(), path.parent.resolve()
    with contextlib.ExitStack() as undo:
        try:
            if mode == "used":
                _embed(work)
            sources = _sources(work, folder, path)
            for source, target in sources.items():
                _bring(source, target, mode, undo)
            _move(work, folder)
            if inline_bytes(work) > (INLINE_LIMIT if limit is None else limit):
                _unload(work, path, undo)
        except OSError as error:
            raise ModelError(path, f"its external data cannot be written: {error.strerror or error}") from None
        yield work
        undo.pop_all()


def files(model: ir.Model) -> list[str]:
    """The names of the data files that a model refers to."""
    return sorted({str(t.location) for t in tensors(model)})


def _sources(model: ir.Model, folder: Path, path: Path) -> dict[Path, Path]:
    """Data file -> where it must lie, for those that do not lie there; raises before anything is written."""
    found: dict[Path, Path] = {}
    for tensor in tensors(model):
        source, target = Path(tensor.path).resolve(), folder / tensor.location
        if source == target.resolve() or source in found:
            continue
        if not target.resolve().is_relative_to(folder) or target == folder / path.name or target in found.values():
            raise ModelError(path, f"the external data file {tensor.location!r} would be in the way there")
        if target.exists() and not filecmp.cmp(source, target, shallow=False):
            raise ModelError(target, "is in the way of the model's external data")
        if not target.exists():
            found[source] = target
    return found


def _bring(source: Path, target: Path, mode: str, undo: contextlib.ExitStack) -> None:
    missing = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        undo.callback(_remove_folder, folder)

    def fill(temporary: Path) -> None:
        if mode == "copy":
            shutil.copyfile(source, temporary)
        else:
            _clone(source, temporary)

    _install(target, fill, undo)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # someone else may have put a file there meanwhile
        folder.rmdir()


def _clone(source: Path, target: Path) -> None:
    """A copy-on-write clone; raises :class:`ModelError` where the file system has none."""
    try:
        import fcntl

        with open(source, "rb") as from_, open(target, "wb") as to:
            fcntl.ioctl(to.fileno(), _FICLONE, from_.fileno())
    except (ImportError, OSError) as error:
        raise ModelError(
            source,
            f"cannot be linked: this file system has no copy-on-write clones ({error}), and onnx refuses hard and "
            "symbolic links; take --external-data copy, or write into the model's own folder",
        ) from None


def _install(target: Path, fill: Callable[[Path], None], undo: contextlib.ExitStack) -> None:
    """``target``, written whole; taken away again if a later step fails."""
    with atomic.replacing(target) as temporary:
        fill(temporary)
    undo.callback(target.unlink, missing_ok=True)


def _embed(model: ir.Model) -> None:
    """Take the tensors in use into the model, as views of the mapped files."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            t = value.const_value
            if isinstance(t, ir.ExternalTensor):
                value.const_value = ir.Tensor(t.numpy(), dtype=t.dtype, shape=t.shape, name=t.name)


def _move(model: ir.Model, folder: Path) -> None:
    """Make the tensors relative to ``folder``, without touching those of other models."""
    for graph in _graphs(model):
        for value in graph.initializers.values():
            t = value.const_value
            if isinstance(t, ir.ExternalTensor):
                value.const_value = ir.ExternalTensor(
                    t.location, t.offset, t.length, t.dtype, shape=t.shape, name=t.name or "", base_dir=folder
                )  # fmt: skip


def _unload(model: ir.Model, path: Path, undo: contextlib.ExitStack) -> None:
    """Write the model's own large initializers to one new file, one after the other."""
    chosen = [
        (value, tensor)
        for value in model.graph.initializers.values()
        if (tensor := value.const_value) is not None
        and not isinstance(tensor, ir.ExternalTensor)
        and tensor.nbytes >= _SMALL
        and tensor.dtype != ir.DataType.STRING
    ]
    names = [f"{path.name}.data", *(f"{path.name}.{at}.data" for at in range(1, 1000))]
    location = next(name for name in names if not (path.parent / name).exists())
    places: list[tuple[int, int]] = []

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            for _, tensor in chosen:
                file.seek(-file.tell() % _ALIGN, os.SEEK_CUR)
                start = file.tell()
                if isinstance(tensor, ir.Tensor):
                    tensor.tofile(file)
                else:
                    file.write(tensor.tobytes())
                places.append((start, file.tell() - start))

    _install(path.parent / location, fill, undo)
    for (value, tensor), (start, length) in zip(chosen, places, strict=True):
        value.const_value = ir.ExternalTensor(
            location, start, length, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=value.name or "",
            base_dir=path.parent.resolve(),
        )  # fmt: skip
