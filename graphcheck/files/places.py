"""Places to read from and write to, looked at before any work; models copied and written, all or nothing."""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphcheck.errors import GraphcheckError, ModelError, UsageError

if TYPE_CHECKING:
    import onnx_ir as ir


def check_sources(*sources: Path) -> None:
    """Raise GraphcheckError for a file that is not there, naming the one beside it that may be meant."""
    for path in sources:
        if str(path) == "-":
            raise UsageError("-: is standard input; name a file, which is what is read here")
        if not path.exists():
            near = difflib.get_close_matches(path.name, _names(path.parent), 1, 0.8)
            meant = f"; did you mean {path.parent / near[0]}?" if near else ""
            raise ModelError(path, f"there is no such file{meant}")


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(folder))[:10_000]
    return []


def check_targets(json: str | Path | None, *files: Path | None, sources: Sequence[Path] = ()) -> None:
    """Raise GraphcheckError, before any work, for what could not be written in the end, or would replace a source.

    ``-`` is standard output for ``json``, and no name for any of ``files``.
    """
    if Path("-") in files:
        raise UsageError("-: only --json writes to standard output; name a file")
    targets = [Path(path) for path in (json, *files) if path is not None and path != "-"]
    for number, path in enumerate(targets):
        if path.is_dir():
            raise GraphcheckError(f"{path}: is a directory, where a file is to be written")
        if not path.parent.is_dir():
            raise GraphcheckError(f"{path}: cannot be written, since there is no folder {path.parent}")
        device = path.exists() and not path.is_file()  # such as /dev/null: written to, not replaced
        if not device and not os.access(path.resolve().parent, os.W_OK):
            raise GraphcheckError(f"{path}: cannot be written, since its folder is read-only")
        if any(path.exists() and source.exists() and path.samefile(source) for source in sources):
            raise UsageError(f"{path}: is read here; name another file to write")
        if any(path.absolute() == other.absolute() for other in targets[:number]):
            raise UsageError(f"{path}: is named twice, for two different things to write")


def check_folders(*folders: Path | None) -> None:
    """Raise GraphcheckError, before any work, for a folder that could not be made."""
    for path in folders:
        known = next((above for above in (path, *path.parents) if above.exists()), None) if path is not None else None
        if known is not None and not known.is_dir():
            raise GraphcheckError(f"{known}: is a file, where a folder is to be written")
        if known is not None and not os.access(known, os.W_OK):
            raise GraphcheckError(f"{path}: cannot be written, since {known} is read-only")


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing; GraphcheckError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphcheckError(f"{path}: cannot be made a folder: {error.strerror}") from None


def files_of(model: Path) -> list[tuple[Path, Path]]:
    """The model's files, external data included, each with its path relative to the model's folder."""
    import onnx_ir as ir

    from graphcheck.files.model import read

    values = [value.const_value for value in read(model).graph.initializers.values()]
    locations = {Path(tensor.location) for tensor in values if isinstance(tensor, ir.ExternalTensor)}
    return [(model, Path(model.name)), *((model.parent / name, name) for name in sorted(locations))]


def copy_model(model: Path, out: Path, external_data: str = "copy") -> None:
    """Copy a model byte by byte, atomically, with its external data, which must not be in anyone's way."""
    from graphcheck.files import atomic, external
    from graphcheck.files.model import read

    with external.placed(read(model), out, external_data, limit=sys.maxsize), atomic.replacing(out) as temporary:
        shutil.copyfile(model, temporary)


def write_model(result: ir.Model | None, model: Path, out: Path, external_data: str = "copy") -> list[str]:
    """Write what was made of ``model``, atomically; None: a byte copy of it.

    Returns what there is to say of the data files of the result.
    """
    from graphcheck.files import model as model_

    if result is None:
        if not (out.exists() and out.samefile(model)):
            copy_model(model, out, external_data)
        return []
    had = {str(name) for _, name in files_of(model)[1:]}
    names = model_.write(result, out, external_data=external_data)
    new = [name for name in names if name not in had]
    notes = [f"its weights exceed what one ONNX file can hold, so they are in {name} beside it" for name in new]
    if kept := [name for name in names if name in had]:
        beside = out.parent.resolve() == model.parent.resolve()
        done = "used where it is" if beside else {"copy": "copied", "link": "cloned"}[external_data] + " beside it"
        notes.append(f"external data {', '.join(kept)} is {done}, unchanged")
    return notes
