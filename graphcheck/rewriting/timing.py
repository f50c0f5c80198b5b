"""Times models in onnxruntime, interleaved, so that a busy machine slows all of them alike.

All of them run in one process of its own: a crash or a hang there is an error message here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.files import external
from graphcheck.files import model as model_

Timer = Callable[[Sequence[ir.Model]], list[list[float]]]

_START = "import sys; from graphcheck.rewriting.timing import serve; serve(sys.argv[1])"


def onnxruntime_timer(
    *,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    runs: int = 15,
    warm_up: int = 3,
    seed: int = 0,
    timeout: float = 600.0,
) -> Timer:
    """A timer: models -> milliseconds of each run of each, all optimizations on, seeded normal inputs.

    ``shapes`` gives input shapes by name; without it ``batch`` stands for a symbolic first dim, and any other symbolic
    dim is a :class:`UsageError`. ``threads`` 0 leaves their number to onnxruntime. What onnxruntime refuses, a crash and
    more than ``timeout`` seconds are a :class:`GraphcheckError`.
    """

    def measure(models: Sequence[ir.Model]) -> list[list[float]]:
        feeds = _inputs(models[0], batch, shapes or {}, np.random.default_rng(seed))
        task: dict[str, Any] = {"providers": list(providers), "threads": threads, "runs": runs, "warm_up": warm_up}
        with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
            task["models"] = [_placed(model, Path(folder, f"{at}.onnx")) for at, model in enumerate(models)]
            for name, array in feeds.items():
                path = Path(folder, f"input{len(task.setdefault('inputs', {}))}.npy")
                np.save(path, array.view(f"V{array.itemsize}") if array.dtype.kind == "V" else array)
                task["inputs"][name] = [str(path), array.dtype.name]
            Path(folder, "task.json").write_text(json.dumps(task))
            return _apart(Path(folder), timeout)

    return measure


def _placed(model: ir.Model, path: Path) -> list[str]:
    """[file, folder of its external data] of a model, written for the other process."""
    data = external.serialized(model)
    path.write_bytes(data)
    return [str(path), data.folder and str(Path(data.folder).resolve())]


def _apart(folder: Path, timeout: float) -> list[list[float]]:
    """Run :func:`serve` in a process of its own; the times, or an error with what it said last."""
    command = [sys.executable, "-P", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {_START}", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise GraphcheckError(f"onnxruntime was not done after {timeout:.3g} s of measuring") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
        raise GraphcheckError(f"onnxruntime could not be measured (exit code {done.returncode}): {last}")
    times: list[list[float]] = json.loads((folder / "times.json").read_text())
    return times


def serve(folder: str) -> None:
    """What the other process does: load every model, run them in turn, write the times."""
    import ml_dtypes
    import onnxruntime

    task = json.loads(Path(folder, "task.json").read_text())
    feeds = {}
    for name, (path, dtype) in task["inputs"].items():
        feeds[name] = np.load(path).view(np.dtype(getattr(ml_dtypes, dtype, dtype)))
    sessions = []
    for path, data in task["models"]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = task["threads"]
        options.log_severity_level = 3
        if data:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", data)
        # as bytes: of a file, onnxruntime looks for external data beside it
        sessions.append(onnxruntime.InferenceSession(Path(path).read_bytes(), options, providers=task["providers"]))
    times: list[list[float]] = [[] for _ in sessions]
    for at in range(task["warm_up"] + task["runs"]):
        for session, column in zip(sessions, times, strict=True):
            start = time.perf_counter()
            session.run(None, feeds)
            if at >= task["warm_up"]:
                column.append((time.perf_counter() - start) * 1e3)
    Path(folder, "times.json").write_text(json.dumps(times))


def _inputs(
    model: ir.Model, batch: int, shapes: Mapping[str, Sequence[int]], random: np.random.Generator
) -> dict[str, np.ndarray]:
    feeds = {}
    for value in model_.required_inputs(model):
        name, dims = value.name or "", model_.declared_shape(value) or []
        declared = [batch if at == 0 and not isinstance(d, int) else d for at, d in enumerate(dims)]
        shape = [d for d in shapes.get(name, declared) if isinstance(d, int)]
        if len(shape) != len(dims) or value.dtype is None:
            raise UsageError(
                f"input {name} has symbolic dims {dims}: say which shape to measure at (--shape {name}=...)"
            )
        feeds[name] = random.normal(size=shape).astype(value.dtype.numpy())
    return feeds
