"""Models for workers that see another disk: files travel by their content, and what a task writes comes back.

A worker looks for each model under its path, by its digest, and then among those that came to it before. What it lacks
it names, and is given; it keeps it for later tasks of the sweep. Plain data and bytes only: Dask moves them.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphcheck.files.atomic import replacing_folder
from graphcheck.formats.json import renamed
from graphcheck.sweeping.child import failure, run_task
from graphcheck.sweeping.keys import digest, files_of

Files = dict[str, bytes]  # by the path below a folder
_MODEL = "graphcheck-sent.onnx"
_SIDES = ("a", "b")
_WRITTEN = ("witness", "reduce", "out")  # what a task may write, and where


def contents(path: Path) -> Files:
    """A model file and the external data that it names inside its folder; raises OSError."""
    _, *others = files_of(path)
    read = {name: (path.parent / name).read_bytes() for name in others if _is_inside(name)}
    return read | {_MODEL: path.read_bytes()}


def _is_inside(name: str) -> bool:
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def perform(task: dict[str, Any], sent: Mapping[str, Files], place: str) -> dict[str, Any]:
    """On a worker: the answer to a task, with the ``files`` that it wrote, or what it ``lacks``.

    ``task["digests"]`` are those of the models by their paths, ``sent`` models by their digests, ``place`` is a name
    for the folder of models. What it lacks are digests of models to send to the worker ``at`` this address.
    """
    folder = _folder(place)
    digests: dict[str, str] = task["digests"]
    there: dict[str, str] = {}
    for path, wanted in digests.items():
        if not _is(Path(path), wanted):
            there[path] = str(folder / wanted / _MODEL)
            if wanted in sent and not _is(Path(there[path]), wanted):
                _keep(sent[wanted], folder / wanted)
    lacking = sorted({digests[path] for path, kept in there.items() if not _is(Path(kept), digests[path])})
    if lacking:
        return {"lacks": lacking, "at": _address()}
    if not there:
        return run_task(task)
    return _elsewhere(task, there)


def _folder(place: str) -> Path:
    return Path(tempfile.gettempdir(), f"graphcheck-models-{place}")


def forget(place: str) -> None:
    """On a worker: take the models away that were sent to it."""
    shutil.rmtree(_folder(place), ignore_errors=True)


def _address() -> str | None:
    with contextlib.suppress(ImportError, ValueError):
        import distributed

        return str(distributed.get_worker().address)
    return None


def _is(path: Path, wanted: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.is_file() and digest(path) == wanted
    return False


def _keep(files: Files, folder: Path) -> None:
    """Write files into a folder that is there afterwards as a whole, in the place of one with other content."""
    with replacing_folder(folder) as made:
        for name, data in files.items():
            assert _is_inside(name), name
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(data)


def _elsewhere(task: dict[str, Any], there: Mapping[str, str]) -> dict[str, Any]:
    """Do a task with models in other places; what it writes goes into a folder of its own, and comes back as bytes."""
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        moved = {name: str(Path(folder, name)) for name in _WRITTEN if task.get(name)}
        if "out" in moved:
            moved["out"] = str(Path(moved["out"], Path(task["out"]).name))
        sides = {side: there.get(task[side], task[side]) for side in _SIDES if task[side]}
        answer = run_task(task | moved | sides)
        files = {
            name: {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
            for name, root in ((name, Path(folder, name)) for name in moved)
        }
        back = {new: task[name] for name, new in (moved | sides).items() if new != task[name]}
        return {name: renamed(value, back) for name, value in answer.items()} | {"files": files}


def received(task: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """On the side of the one who sweeps: write what a task wrote elsewhere; its answer as that of a task done here."""
    for name, files in answer.pop("files", {}).items():
        root = Path(task[name]).parent if name == "out" else Path(task[name])
        for file, data in files.items():
            if not _is_inside(file):
                wrong = failure("trouble", "error", f"the worker sent a file {file!r}, which lies outside its folder")
                return answer | wrong
            target = root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return answer
