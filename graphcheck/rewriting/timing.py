"""Times models in onnxruntime, interleaved, so that a busy machine slows all of them alike."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.files import external
from graphcheck.files import model as model_
from graphcheck.interface import ports
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.session import Array, Arrays, RunError, take_turns

Timer = Callable[[Sequence[ir.Model]], list[list[float]]]


class Unmeasured(GraphcheckError):
    """onnxruntime could not be measured: with the place of the model among those given, and the cause."""

    def __init__(self, at: int, cause: str) -> None:
        super().__init__(f"onnxruntime could not be measured: {cause}")
        self.at, self.cause = at, cause


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
    a load or run of more than ``timeout`` seconds are an :class:`Unmeasured`.
    """

    load = functools.partial(
        RemoteSession, providers=providers, threads=threads, prepack=True, spinning=True, timeout=timeout
    )

    def measure(models: Sequence[ir.Model]) -> list[list[float]]:
        feeds = _inputs(models[0], batch=batch, shapes=shapes or {}, random=np.random.default_rng(seed))
        bounds = dataclasses.replace(limits.current(), deadline=math.inf)  # ``timeout`` alone ends what is measured
        with contextlib.ExitStack() as opened:
            sessions: dict[str, tuple[_Numbered, dict[str, np.ndarray]]] = {}
            for at, model in enumerate(models):
                try:
                    session = opened.enter_context(load(external.serialized(model), bounds=bounds))
                except RunError as error:
                    raise Unmeasured(at, error.cause) from None
                sessions[str(at)] = _Numbered(at, session), feeds
            return list(take_turns(sessions, runs, warm_up).values())

    return measure


@dataclasses.dataclass(frozen=True)
class _Numbered:
    """A session that knows the place of its model."""

    at: int
    session: RemoteSession

    @property
    def seconds(self) -> float:
        """Of the last run."""
        return self.session.seconds

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> Arrays:
        """The outputs, by name."""
        try:
            return self.session.run(inputs, outputs)
        except RunError as error:
            raise Unmeasured(self.at, error.cause) from None


def _inputs(
    model: ir.Model, batch: int, shapes: Mapping[str, Sequence[int]], random: np.random.Generator
) -> dict[str, np.ndarray]:
    feeds = {}
    for value in model_.required_inputs(model):
        name, dims = value.name or "", model_.declared_shape(value) or []
        declared = [batch if at == 0 and not isinstance(d, int) else d for at, d in enumerate(dims)]
        shape = [d for d in shapes.get(name, declared) if isinstance(d, int)]
        if len(shape) != len(dims) or value.dtype is None:
            usual = ports.shapes(ports.pair_interfaces(model, model)).get(name, ())
            like = ",".join(map(str, [batch, *usual[1:]]))
            raise UsageError(
                f"input {name} has symbolic dims {dims}: say which shape to measure at, such as --shape {name}={like}"
            )
        feeds[name] = random.normal(size=shape).astype(value.dtype.numpy())
    return feeds
