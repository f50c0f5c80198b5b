"""Both models in onnxruntime, in a thread beside the proof, and what their outputs say for and against a verdict."""

from __future__ import annotations

import concurrent.futures
import contextvars
import dataclasses
import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Undecided
from graphcheck.files import external
from graphcheck.files import model as model_
from graphcheck.interface import inputs
from graphcheck.interface.ports import Interface
from graphcheck.kernel.proof.pair import Pair, weights
from graphcheck.options import Options
from graphcheck.parting.difference import SPREAD_FACTOR, Executed
from graphcheck.parting.spread import spread_of
from graphcheck.parting.witness import by_output
from graphcheck.runs import child as remote
from graphcheck.runs import numeric
from graphcheck.runs.tolerances import Saved, Tolerances
from graphcheck.verdicts import quantization

_PLAINLY = 2.0**16  # ulps of the output's largest magnitude: such a difference is looked into before a costly proof
_FAR_BEYOND = 2.0**14  # above which the executions of a proved pair are looked into
_MOST = 0.5  # of the elements of integer and boolean outputs: a few may well fall on the other side of a threshold
_CLOSE = 2.0**8  # ulps of the output's largest magnitude, below which deep networks that only rounding separates stay
_PATIENCE = 5.0  # seconds
_LARGE = 2**24  # bytes of weights of a comparison in which a process that idles costs more than another start
_BUG = "a bug of the runtime, or of graphcheck's interpreter. Please report it"
_SATURATES = (
    "sums of products of uint8 and int8 that saturate at 16 bits, as onnxruntime's do on x86 without VNNI "
    "(its quantizers' reduce_range avoids that); or "
)


class Executions:
    """The runs that were asked for: ``numbers`` is their JSON, ``runs`` the feeds and outputs; None and [] without any."""

    def __init__(
        self,
        sources: tuple[model_.ModelLike, model_.ModelLike],
        models: tuple[ir.Model, ir.Model],
        pairing: Interface,
        options: Options,
        given: inputs.Given | None,
    ) -> None:
        self.sources, self.models, self.interface, self.options = sources, models, pairing, options
        self.tolerances, self.saved = Tolerances(pairing, options), Saved(pairing, options)
        self.numbers: dict[str, Any] | None = None
        self.runs: list[numeric.Run] = []
        self.light: list[numeric.Run] = []  # every run, in the order of its JSON, without arrays
        more = [functools.partial(inputs.load_npz, file, pairing) for file in options.more_inputs]
        self.given: list[numeric.Given] = [] if given is None else [given, *more]
        self.seconds = self.waited = 0.0  # what the runs took, and how long they were waited for
        self.running: concurrent.futures.Future[None] | None = None
        self.patience: float | None = None  # in seconds, for each wait

    def start(self, pool: concurrent.futures.Executor) -> None:
        """Begin in a thread, where runs were asked for."""
        if self.options.run:
            self.running = pool.submit(contextvars.copy_context().run, self.execute)

    def wait(self) -> None:
        """Until they are through, or patience is."""
        started = time.monotonic()
        try:
            if self.running is not None:
                concurrent.futures.wait([self.running], self.patience)
                if not self.running.done():
                    after = f"{time.monotonic() - started:.0f} s"
                    self.abort(f"onnxruntime was ended after {after}, since a loop has no end in sight")
                self.running.result()
        finally:
            self.waited += time.monotonic() - started

    def hurry(self) -> None:
        """Have patience for a few seconds only: a model may never come to its end."""
        self.patience = _PATIENCE

    def abort(self, why: str = "") -> None:
        """End the child processes, also one that is being started; ``why`` is told of their runs."""
        while self.running is not None and not self.running.done():
            remote.end_all(why)
            time.sleep(0.05)

    def execute(self) -> None:
        """Run both now; that it was not possible is a warning among the numbers."""
        pairs = zip(self.sources, self.models, strict=True)
        a, b = (str(s) if isinstance(s, (str, os.PathLike)) else external.serialized(m) for s, m in pairs)
        started = time.monotonic()
        try:
            self.numbers = numeric.numeric(a, b, self.interface, self.options, given=self.given, on_run=self._see)
            if not self._apart() and sum(w.nbytes for model in self.models for w in weights(model)) > _LARGE:
                remote.end_idle()
            self.numbers["warnings"] += quantization.in_steps(self.models, self.interface, self.numbers["runs"])
        except (Undecided, MemoryError) as error:
            warning = f"onnxruntime was not run: {error}"
            self.numbers = {"runs": [], "warnings": [warning], "time_a_ms": None, "time_b_ms": None}
            self.tolerances.rows.clear()  # what a part of the runs kept says nothing of the rest
        finally:
            self.seconds = time.monotonic() - started

    def _see(self, run: numeric.Run) -> None:
        a, b = (dataclasses.replace(side, outputs={}) for side in (run.a, run.b))
        self.light.append(dataclasses.replace(run, inputs={}, a=a, b=b))
        if run.place == 0 or not self.given:  # the arrays of many files would not fit into memory
            self.runs.append(run)
        self.saved.see(run)
        if self.options.gated:
            self.tolerances.see(run)

    def gate(self) -> dict[str, Any]:
        """What the runs say of the tolerances, under ``tolerances``; nothing where none was asked for or nothing can run."""
        return {"tolerances": self.tolerances.to_json()} if self.options.gated and self.numbers is not None else {}

    def rows(self) -> list[dict[str, Any]]:
        """The statistics of each output in each run."""
        return [row for run in (self.numbers or {"runs": []})["runs"] for row in run["outputs"]]

    def same_shape(self, output: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Whether both gave an output (by A's name) in one shape when they ran at these input shapes."""
        self.wait()
        runs = [r for r in (self.numbers or {"runs": []})["runs"] if _sizes(r["inputs"]["shapes"]) == _sizes(shapes)]
        rows = [row for run in runs for row in run["outputs"] if row["a"] == output]
        return bool(rows) and all(row["shape"] == row["shape_b"] for row in rows)

    def plainly_apart(self) -> bool:
        """Whether they show a gross difference: a witness is looked for then, and no costly proof tried."""
        self.wait()
        return self._apart()

    def _apart(self) -> bool:
        return any((row.get("scale_ulp") or 0) > _PLAINLY for row in self.rows())

    def shown(self, arrays: Mapping[str, np.ndarray]) -> Executed | None:
        """What a run that is plainly apart shows at this input; None if there is none."""
        runs = self.runs if self.plainly_apart() else []
        at_it = (run for run in runs if numeric.same(arrays, run.inputs) and not (run.a.error or run.b.error))
        sides = next(((run.a.outputs, run.b.outputs) for run in at_it), None)
        return None if sides is None else by_output(self.interface, sides)

    def agree(self) -> bool:
        """Whether they ran, and show no more than a little rounding."""
        self.wait()
        rows = self.rows()
        return bool(rows) and all(row["shape"] == row["shape_b"] and _is_close(row) for row in rows)

    def contradiction(self, pairs: Sequence[Pair]) -> str | None:
        """What to say of a proved pair whose outputs differ far beyond rounding: a bug of the runtime or of graphcheck."""
        for row in self.rows():
            if row["shape"] != row["shape_b"]:
                return f"PROVED, BUT onnxruntime's outputs {row['a']!r} have shapes {row['shape']} and {row['shape_b']}: {_BUG}"
        worst: dict[str, tuple[dict[str, Any], numeric.Run]] = {}  # by output
        for run, row in self._told():
            if _far(row) and (row["a"] not in worst or _ulps(row) > _ulps(worst[row["a"]][0])):
                worst[row["a"]] = (row, run)
        known: dict[int, dict[str, float]] = {}  # by run
        for row, run in sorted(worst.values(), key=lambda told: -_ulps(told[0])):
            if id(run) not in known:
                known[id(run)] = self._spread(pairs, run)
            explained = known[id(run)].get(row["a"], math.nan)
            if row["max_abs"] is None or not row["max_abs"] <= 4 * SPREAD_FACTOR * explained:
                return f"PROVED, BUT onnxruntime's outputs {row['a']!r} {_apart(row, explained)}: {self._saturates()}{_BUG}"
        return None

    def _saturates(self) -> str:
        """What is known of models that store int8 beside uint8; "" of others."""
        types = [{v.dtype for v in model.graph.initializers.values()} for model in self.models]
        return _SATURATES if any({ir.DataType.INT8, ir.DataType.UINT8} <= each for each in types) else ""

    def refused(self) -> str:
        """What to add to a proof where onnxruntime runs one model and refuses the other; "" elsewhere."""
        for run in self.light:
            errors = [side.error for side in (run.a, run.b) if side.error is not None]
            if len(errors) == 1 and errors[0].kind == "run":
                return f"; but onnxruntime refuses {'A' if run.a.error else 'B'} and runs the other: {errors[0].cause[:200]}"
        return ""

    def _told(self) -> list[tuple[numeric.Run, dict[str, Any]]]:
        """Each run, without inputs where they were given, with the statistics of each of its outputs."""
        runs, rows = self.light if self.given else self.runs, (self.numbers or {"runs": []})["runs"]
        return [(run, row) for run, told in zip(runs, rows, strict=False) for row in told["outputs"]]

    def _spread(self, pairs: Sequence[Pair], run: numeric.Run) -> dict[str, float]:
        """What rounding explains of each output (by A's name) in a run; nothing at sizes that were not traced."""
        pair = next((p for p in pairs if dict(p.shapes) == dict(run.shapes)), None)
        if pair is None:
            return {}
        arrays = self.given[run.place]() if self.given else run.inputs
        return spread_of(self.models, self.interface, pair, arrays, self.options.seed)


def _is_close(row: Mapping[str, Any]) -> bool:
    """Whether the outputs of a run differ by a few roundings at most; integers by none."""
    ulps = row.get("scale_ulp")
    return bool(ulps <= _CLOSE) if ulps is not None else row.get("unequal") == 0 and row["nan_a"] == row["nan_b"]


def _ulps(row: Mapping[str, Any]) -> float:
    return math.inf if row.get("scale_ulp") is None else float(row["scale_ulp"])


def _apart(row: Mapping[str, Any], explained: float) -> str:
    """How far apart the outputs are, and what rounding explains of it."""
    by = "differ in most elements" if row["max_abs"] is None else f"differ by {row['max_abs']}"
    return f"{by} where " + (
        "what rounding explains is not known" if math.isnan(explained) else f"rounding explains {explained:.3g}"
    )


def _far(row: Mapping[str, Any]) -> bool:
    """Whether the outputs of a run differ by more than most roundings do, or most elements where nothing is rounded."""
    ulps, unequal = row.get("scale_ulp"), row.get("unequal") or 0
    return bool(unequal > _MOST * math.prod(row["shape"]) if ulps is None else ulps > _FAR_BEYOND)


def _sizes(shapes: Mapping[str, Any]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}
