"""onnxruntime behind one door: sessions, runs, and fair timing.

Whatever onnxruntime does with a model is a result: a refusal becomes a :class:`RunError`, and so does a crash or a hang
where the session is one of :mod:`remote`.
Models on disk are handed over as paths, so that nothing is copied and external data is found.
"""

from __future__ import annotations

import ctypes
import os
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import ml_dtypes
import numpy as np

from graphcheck.errors import ModelError, UsageError

if TYPE_CHECKING:
    import onnxruntime as ort

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Source = str | os.PathLike[str] | bytes  # a file, or a serialized ModelProto

# What onnxruntime does to a graph, and the name of its level; "on" is what it does by default.
OPTIMIZATIONS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
    "on": "ORT_ENABLE_ALL",
}
# Element types that numpy lacks: onnxruntime takes and gives them only as bits.
_BIT_TYPES: dict[str, Any] = {
    "tensor(bfloat16)": ml_dtypes.bfloat16,
    "tensor(float8e4m3fn)": ml_dtypes.float8_e4m3fn,
    "tensor(float8e4m3fnuz)": ml_dtypes.float8_e4m3fnuz,
    "tensor(float8e5m2)": ml_dtypes.float8_e5m2,
    "tensor(float8e5m2fnuz)": ml_dtypes.float8_e5m2fnuz,
}
_ONNX_NUMBERS = dict(zip(_BIT_TYPES, (16, 17, 18, 19, 20), strict=True))


class RunError(ModelError):
    """What onnxruntime could not do. ``kind``: ``load``, ``run``, ``crash`` or ``timeout``."""

    def __init__(self, path: object, cause: str, kind: str, node: str | None = None) -> None:
        super().__init__(path, cause, node)
        self.kind = kind


@dataclass(frozen=True)
class Timing:
    """Wall milliseconds of one run: over ``runs`` runs."""

    median: float
    min: float
    max: float
    runs: int


class Session:
    """A loaded model. ``name`` is what errors call it: the file, or ``model``."""

    def __init__(self, session: ort.InferenceSession, name: str) -> None:
        self.session, self.name = session, name
        self.inputs = {item.name: str(item.type) for item in session.get_inputs()}
        self.outputs = {item.name: str(item.type) for item in session.get_outputs()}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Arrays:
        """Outputs by name (all, or those asked for); :class:`RunError` naming the node where onnxruntime names one."""
        wanted = list(self.outputs if outputs is None else outputs)
        if not wanted:  # for onnxruntime, none would be all
            return {}
        feed = {name: inputs[name] for name in self.inputs if name in inputs}
        try:
            if any(self.inputs[n] in _BIT_TYPES for n in feed) or any(self.outputs[n] in _BIT_TYPES for n in wanted):
                return self._run_with_bits(feed, wanted)
            results = self.session.run(wanted, feed)
        except Exception as error:  # onnxruntime's exceptions share no base class
            cause, node = _cause(error)
            raise RunError(self.name, f"onnxruntime could not run it: {cause}", "run", node) from None
        if others := [name for name, result in zip(wanted, results, strict=True) if not isinstance(result, np.ndarray)]:
            raise RunError(self.name, f"output {others[0]!r} is of type {self.outputs[others[0]]}, not a tensor", "run")
        return dict(zip(wanted, results, strict=True))

    def _run_with_bits(self, feed: Mapping[str, Array], wanted: list[str]) -> Arrays:
        import onnxruntime as ort

        values = {}
        for name, array in feed.items():
            kind = self.inputs[name]
            if kind in _BIT_TYPES:
                bits = np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}")
                values[name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_NUMBERS[kind])
            else:
                values[name] = ort.OrtValue.ortvalue_from_numpy(array)
        results = self.session.run_with_ort_values(wanted, values)
        return {name: _to_numpy(value) for name, value in zip(wanted, results, strict=True)}


class Runs(Protocol):
    """A session, here or in a child process."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Arrays:
        """Outputs by name."""


def prepare() -> None:
    """Import onnxruntime, which the first :func:`load` does else."""
    import onnxruntime  # noqa: F401


def load(
    model: Source,
    *,
    optimizations: str = "on",
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    prepack: bool = True,
    spinning: bool = False,
) -> Session:
    """An onnxruntime session; :class:`RunError` where onnxruntime refuses the model.

    ``optimizations`` is one of ``OPTIMIZATIONS``; ``threads`` 0 leaves it the number.
    Without ``prepack``, weights stay as and where they are, mapped files included, which suits a single run. With
    ``spinning``, as onnxruntime does by default, idle threads keep their cores, which another session may want.
    :class:`UsageError` for a provider that this onnxruntime has not.
    """
    import onnxruntime as ort

    if optimizations not in OPTIMIZATIONS:
        raise UsageError(f"optimizations are {', '.join(OPTIMIZATIONS)}, not {optimizations!r}")
    available = ort.get_available_providers()
    if unknown := [name for name in providers if name not in available]:
        raise UsageError(f"onnxruntime has no provider {unknown[0]!r} here; it has {', '.join(available)}")
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, OPTIMIZATIONS[optimizations])
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what matters arrives as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
    if folder := getattr(model, "folder", ""):  # of a model in memory whose weights are in files
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    name = _name(model)
    if not isinstance(model, bytes) and not Path(model).is_file():
        raise ModelError(name, "there is no such file")
    source = model if isinstance(model, bytes) else os.fspath(model)
    try:
        return Session(ort.InferenceSession(source, options, providers=list(providers)), name)
    except Exception as error:
        cause, node = _cause(error)
        raise RunError(name, f"onnxruntime refuses it: {cause}", "load", node) from None


def measure(sessions: Mapping[str, tuple[Runs, Mapping[str, Array]]], runs: int, warm_up: int = 1) -> dict[str, Timing]:
    """What :func:`take_turns` gives, in short."""
    times = take_turns(sessions, runs, warm_up)
    return {name: Timing(statistics.median(t), min(t), max(t), len(t)) for name, t in times.items()}


def take_turns(
    sessions: Mapping[str, tuple[Runs, Mapping[str, Array]]], runs: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Milliseconds of each run of each (session, inputs) by its name; they take turns, so that a busy machine slows all
    alike.
    """
    for session, inputs in sessions.values():
        for _ in range(warm_up):
            session.run(inputs)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(runs):
        for name, (session, inputs) in sessions.items():
            start = time.perf_counter()
            session.run(inputs)
            times[name].append(1000 * getattr(session, "seconds", time.perf_counter() - start))
    return times


def _name(model: Source) -> str:
    return "model" if isinstance(model, bytes) else os.fspath(model)


def _cause(error: Exception) -> tuple[str, str | None]:
    """(one line, node name if told) of an onnxruntime error, without its source file names."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", " ".join(str(error).split()))
    text = re.sub(r"(/\S+/)?\S+\.(cc|h):\d+ (\S+ )?", "", text)
    found = re.search(r"running (\S+) node\. Name:'([^']*)'", text)
    text = re.sub(r"^Non-zero status code returned while running.*?Status Message: ", "", text)
    return text.rstrip(". ")[:300] or type(error).__name__, found and (found[2] or found[1])


def _to_numpy(value: Any) -> Array:
    kind = value.data_type()
    if kind not in _BIT_TYPES:
        return np.asarray(value.numpy())
    dtype, shape = np.dtype(_BIT_TYPES[kind]), tuple(value.shape())
    octets = ctypes.string_at(value.data_ptr(), int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    return np.frombuffer(octets, dtype).reshape(shape).copy()
