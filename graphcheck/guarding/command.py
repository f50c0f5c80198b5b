"""``guard``: runs someone's optimizer on a model, then compares what it made with what it was given."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from graphcheck import processes
from graphcheck.errors import GraphcheckError, ModelError, UsageError
from graphcheck.files import places
from graphcheck.verdict import Comparison


def guard(
    model: Path,
    command: Sequence[str],
    check: Callable[[Path, Path], Comparison],
    *,
    out: Path | None = None,
    accept: Callable[[Comparison], bool] = lambda result: result.exit_code() == 0,
) -> Comparison:
    """``check(model, what command made of it)``; ``{in}`` and ``{out}`` become files of a temporary folder.

    ``{in}`` is a copy, with its external data, so that a command that works in place harms nobody. With ``out``, the
    result is put there if ``accept`` holds. Raises UsageError where the command lacks a placeholder, GraphcheckError
    where it cannot be started, fails, or writes no ``{out}``.
    """
    for placeholder in ("{in}", "{out}"):
        if not any(placeholder in part for part in command):
            raise UsageError(
                f"the command must name {placeholder}, as in: graphcheck guard MODEL -- onnxsim {{in}} {{out}}"
            )
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        source, target = Path(folder, "in", model.name), Path(folder, "out", model.name)
        copy_files(model, source.parent)
        target.parent.mkdir()
        run([part.replace("{in}", str(source)).replace("{out}", str(target)) for part in command])
        if not target.is_file():
            raise GraphcheckError(f"{command[0]}: the command ended without an error, but wrote no {{out}}")
        try:
            result = check(model, target)
        except ModelError as error:
            if error.path != str(target):
                raise
            raise GraphcheckError(f"{command[0]}: what the command wrote, {{out}}, {error.cause}") from None
        kept = out is not None and accept(result)
        if out is not None and kept:
            places.copy_model(target, out)
    # The temporary file is gone: what the command made is called by where it lies now, or as the command called it.
    renamed = {"b": (result.evidence.get("b") or {}) | {"path": str(out) if kept else "{out}"}}
    if result.evidence.get("witness"):
        renamed["witness"] = result.evidence["witness"] | {"replay": None}
    return dataclasses.replace(result, evidence=result.evidence | renamed)


def copy_files(model: Path, folder: Path) -> None:
    """Copy a model with its external data into a folder, which is made."""
    for path, name in places.files_of(model):
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def run(command: Sequence[str], timeout: float | None = None) -> str:
    """What a command prints; GraphcheckError where it cannot be started, fails, or takes more than ``timeout`` seconds.

    The answer must stay readable, so what the command prints is shown only where it fails.
    """
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
            timeout=timeout,
        )  # fmt: skip
    except OSError as error:
        raise GraphcheckError(f"{command[0]}: the command cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise GraphcheckError(f"{command[0]}: the command took more than {timeout:g} s") from None
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        how = "was ended by" if done.returncode < 0 else "failed with"
        how = f"{command[0]}: the command {how} {processes.ended(done.returncode)}"
        last = processes.last_words(said.splitlines())
        raise GraphcheckError(f"{how}: {last}" if last else how)
    return said
