"""What a comparison is about: two models, how their inputs and outputs pair, and what the caller asked for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from graphcheck.errors import Late
from graphcheck.files import kept
from graphcheck.files import model as model_
from graphcheck.files.contents import Contents
from graphcheck.interface import fixing, inputs
from graphcheck.interface import ports as ports_
from graphcheck.kernel.proof.sizes import Sizes
from graphcheck.options import Options
from graphcheck.runs import numeric, shapes
from graphcheck.verdicts import steering


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two models: what the caller gave, and the model that was read from it."""

    source: model_.ModelLike
    model: ir.Model


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A comparison as every rung of the ladder sees it.

    Attributes:
        given: The first file of ``inputs``, where one was given.
        threads: For work beside the proof.
        say: Called with a few words of progress.
        started: On the clock of ``time.monotonic``, as ``deadline``.
        seconds: What reading both took.
    """

    a: Side
    b: Side
    interface: ports_.Interface
    options: Options
    contents: Contents
    sizes: Sizes
    given: inputs.Given | None
    threads: concurrent.futures.Executor
    say: Callable[[str], None]
    started: float
    deadline: float
    seconds: float

    @property
    def models(self) -> tuple[ir.Model, ir.Model]:
        """A's and B's."""
        return self.a.model, self.b.model

    @property
    def sources(self) -> tuple[model_.ModelLike, model_.ModelLike]:
        """A's and B's."""
        return self.a.source, self.b.source

    @property
    def unfit(self) -> tuple[ports_.Mismatch, ...]:
        """The mismatches that leave nothing to compare; shapes of outputs are only declared, and may fit all the same."""
        return tuple(m for m in self.interface.mismatches if m.where == "input" or m.kind in ("missing", "dtype"))

    @property
    def can_run(self) -> bool:
        """Whether both models may run on the same inputs: types may differ."""
        return self.options.run and all(m.kind == "dtype" for m in self.unfit)

    def check_time(self) -> None:
        """Raise :class:`Late` once the time is up."""
        if time.monotonic() > self.deadline:
            raise Late(f"the time limit of {self.options.timeout:g} s was reached")


@contextlib.contextmanager
def opened(
    a: model_.ModelLike, b: model_.ModelLike, options: Options, usual: Mapping[str, int] | None = None
) -> Iterator[Case]:
    """The case of two models, with these sizes of free dims in place of usual ones; its threads are waited for at the end.

    onnxruntime begins to load A's file before it is read: of a large graph both take seconds.
    """
    with numeric.ahead(a, options) if isinstance(a, str | os.PathLike) else contextlib.nullcontext():
        yield from _opened(a, b, options, usual)


def _opened(
    a: model_.ModelLike, b: model_.ModelLike, options: Options, usual: Mapping[str, int] | None
) -> Iterator[Case]:
    started = time.monotonic()
    if options.replay is not None:
        options = dataclasses.replace(options, inputs=kept.find(options.replay), replay=None)
    sides = Side(a, model_.read(a)), Side(b, model_.read(b))
    seconds = time.monotonic() - started
    held = fixing.notes((sides[0].model, sides[1].model), options.fix)
    sides = _held(sides[0], options), _held(sides[1], options)
    models = (sides[0].model, sides[1].model)
    interface = ports_.pair_interfaces(*models, options.ignore_outputs)
    interface = dataclasses.replace(interface, notes=(*held, *interface.notes), usual=usual or {})
    inputs.check_ranges(interface, options.ranges)
    contents, deadline = Contents(), started + options.timeout
    given = None if options.inputs is None else inputs.Given(options.inputs, interface)
    observe = shapes.of_node if options.run else None
    met = steering.met(models, interface, options.ranges)
    sizes = Sizes(models, interface, options, deadline, contents, given, observe, met)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:  # onnxruntime is waited for in one of them
        say = options.progress or _silent
        yield Case(*sides, interface, options, contents, sizes, given, threads, say, started, deadline, seconds)
    for file in (model_.file_of(side.model) for side in sides if isinstance(side.source, (str, os.PathLike))):
        if file is not None:
            file.check_unchanged()


def _held(side: Side, options: Options) -> Side:
    """The side with the inputs that are held as constants: it is then run as it is in memory."""
    model = fixing.fixed(side.model, options.fix)
    return side if model is side.model else Side(model, model)


def _silent(text: str) -> None:
    """Progress that nobody asked for."""
