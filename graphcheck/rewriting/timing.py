"""Times models in onnxruntime, interleaved, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphcheck import external
from graphcheck import model as model_
from graphcheck.errors import UsageError

Timer = Callable[[Sequence[ir.Model]], list[list[float]]]


def onnxruntime_timer(
    *,
    batch: int = 1,
    shapes: Mapping[str, Sequence[int]] | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
    runs: int = 15,
    warm_up: int = 3,
    seed: int = 0,
) -> Timer:
    """A timer: models -> milliseconds of each run of each, all optimizations on, seeded normal inputs.

    ``shapes`` gives input shapes by name; without it ``batch`` stands for a symbolic first dim, and any other symbolic
    dim is a :class:`UsageError`. ``threads`` 0 leaves their number to onnxruntime.
    """

    def measure(models: Sequence[ir.Model]) -> list[list[float]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        feeds = _inputs(models[0], batch, shapes or {}, np.random.default_rng(seed))
        sessions = []
        for model in models:
            data = external.serialized(model)
            external.tell_folder(options, data)
            sessions.append(onnxruntime.InferenceSession(bytes(data), options, providers=list(providers)))
        times: list[list[float]] = [[] for _ in models]
        for at in range(warm_up + runs):
            for session, column in zip(sessions, times, strict=True):
                start = time.perf_counter()
                session.run(None, feeds)
                if at >= warm_up:
                    column.append((time.perf_counter() - start) * 1e3)
        return times

    return measure


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
