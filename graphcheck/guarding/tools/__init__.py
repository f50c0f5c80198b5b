"""Other people's optimizers, pass by pass: a tool is one file of this folder and one row of ``TOOLS``.

A file's ``TOOL`` is a :class:`Tool`. It imports the optimizer inside its functions, which run in a child process alone.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TOOLS = ("onnxoptimizer", "onnxsim", "onnxslim", "onnxscript", "onnxruntime", "onnx-passes")
INLINE = 2**31 - 2**20  # bytes of a model beyond which its weights go into a file of their own


@dataclasses.dataclass(frozen=True)
class Tool:
    """``passes()`` are the names in the tool's usual order, ``others()`` those that it runs only where they are named.

    ``run(names, source, target)`` writes what the passes, and no others, make of a model file: of none of them it is
    what the tool does to every model. ``whole(source, target)`` is the tool as people call it, None where it has no
    usual way. Each raises what the tool raises. ``modules`` of ``package`` are imported before, once for all passes.
    """

    package: str
    modules: tuple[str, ...]
    passes: Callable[[], Sequence[str]]
    run: Callable[[Sequence[str], Path, Path], None]
    others: Callable[[], Sequence[str]] = tuple
    whole: Callable[[Path, Path], None] | None = None


def load(name: str) -> Tool:
    """The tool of that name in ``TOOLS``."""
    tool: Tool = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").TOOL
    return tool


def load_model(path: Path) -> Any:
    """The ModelProto of a file, as an optimizer is given it: with its weights in memory."""
    import onnx

    return onnx.load(path)  # noqa: TID251


def save_model(model: Any, path: Path) -> None:
    """Write a ModelProto, its weights beside it where they do not fit into one file."""
    import onnx

    if model.ByteSize() < INLINE:
        onnx.save(model, path)  # noqa: TID251
    else:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")  # noqa: TID251
