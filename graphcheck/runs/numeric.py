"""Both models in onnxruntime on the same inputs, and how far every output pair is apart. Evidence, never a verdict."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.errors import UsageError
from graphcheck.interface.inputs import Arrays, InputSpec, generate, numbers, side_inputs
from graphcheck.interface.ports import Interface, Shapes, shapes, symbols
from graphcheck.options import Options
from graphcheck.runs import child
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.pictures import pictures
from graphcheck.runs.session import RunError, Source, measure
from graphcheck.runs.statistics import compare_arrays, vacuous

Given = Callable[[], Arrays]  # loads inputs by the key of their pair, as ``load_npz`` does
_TIMED_RUNS = 5
_FINAL = ("load", "crash", "timeout")  # after these, other inputs are not tried
_BATCH_SIZES = (1, 3)  # beside the default of 2


@dataclasses.dataclass(frozen=True)
class Side:
    """What one model did in a run: its outputs by :attr:`PortPair.key`, or the error that stopped it."""

    outputs: Arrays
    error: RunError | None
    milliseconds: float


@dataclasses.dataclass(frozen=True)
class Run:
    """One input through both models, the ``place``-th of the plan. ``spec`` is None where it was given."""

    place: int
    spec: InputSpec | None
    shapes: Shapes
    optimizations: str
    providers: tuple[str, ...]
    inputs: Arrays
    a: Side
    b: Side

    def to_json(self, interface: Interface) -> dict[str, Any]:
        """An entry of ``runs`` in the JSON."""
        spec = self.spec.to_json() if self.spec else {"seed": None, "scale": None, "distribution": "given"}
        return {
            "side_note": f"optimizations {self.optimizations}",
            "providers": list(self.providers),
            "inputs": {**spec, "shapes": {n: list(shape) for n, shape in self.shapes.items()}, "values": numbers(self.inputs)},
            "errors": {"a": self.a.error and str(self.a.error), "b": self.b.error and str(self.b.error)},
            "outputs": self.statistics(interface),
        }

    def statistics(self, interface: Interface) -> list[dict[str, Any]]:
        """A row of :func:`compare_arrays` for every output pair that both sides gave."""
        rows = []
        for pair in interface.outputs:
            if pair.a is not None and pair.b is not None and pair.key in self.a.outputs and pair.key in self.b.outputs:
                names = {"a": pair.a.name, "b": pair.b.name, "spread_units": None}
                rows.append(names | compare_arrays(self.a.outputs[pair.key], self.b.outputs[pair.key]))
        return rows


def numeric(
    a: Source,
    b: Source,
    interface: Interface,
    options: Options | None = None,
    given: Sequence[Given] = (),
    on_run: Callable[[Run], None] | None = None,
) -> dict[str, Any]:
    """The ``numeric`` key of the comparison. ``on_run`` sees every run with its arrays, to save or to judge them.

    ``quick``: normal inputs, batch 2 where admitted, optimizations on, ``iterations`` seeds from ``seed`` on. ``full``:
    optimizations off and on, and besides those seeds other scales, signs, distributions and batch sizes. Where an
    input has a narrow or unsigned integer type, one run more has integers over its range, if both take them. ``given``
    are used instead of drawn inputs; each is loaded when it is run.

    That a model refuses an input is recorded in the run's ``errors`` (and, with the first cause, in ``warnings``).
    :class:`UsageError` for options that do not fit the interface, or an interface whose inputs do not fit each other.
    """
    options = options or Options()
    rows: list[dict[str, Any]] = []
    worst: dict[str, dict[str, Any]] = {}
    warnings: dict[str, list[int]] = {}  # in order, each once, with the runs that it is of
    seen: dict[tuple[object, ...], set[bytes]] = {}
    times: list[tuple[float, float]] = []
    with _Sides(a, b, interface, options) as sides:
        for item in _runs(sides, interface, options, given):
            row = item.to_json(interface)
            rows.append(row)
            if options.numerics == "full":
                _picture(item, row, worst, interface)
            if on_run is not None:
                on_run(item)
            for text in dict.fromkeys(_warnings(item, row, interface)):
                warnings.setdefault(text, []).append(len(rows))
            if item.a.error is None and item.b.error is None:
                times.append((item.a.milliseconds, item.b.milliseconds))
            _remember(item, seen)
            if options.fail_fast and any(output["unequal"] != 0 for output in row["outputs"]):
                break
        said = [_of_runs(text, places, len(rows)) for text, places in warnings.items()] + [*_stuck(seen, interface)]
        time_a, time_b = sides.time() if options.numerics == "full" and times else times[-1] if times else (None, None)
    return {"runs": rows, "warnings": said, "time_a_ms": time_a, "time_b_ms": time_b}


class _Sides:
    """Two models and their sessions, loaded once for each level of optimization, and run side by side."""

    def __init__(self, a: Source, b: Source, interface: Interface, options: Options) -> None:
        self.models, self.interface, self.options = (a, b), interface, options
        self.pool = ThreadPoolExecutor(2)
        self.bounds = limits.current()  # which the threads would not see
        self.sessions: dict[tuple[int, str], RemoteSession | RunError] = {}
        self.last: list[Arrays] = [{}, {}]

    def __enter__(self) -> _Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(wait=True)
        self._clear()

    def _clear(self) -> None:
        for session in self.sessions.values():
            if isinstance(session, RemoteSession):
                session.close()
        self.sessions.clear()

    def run(self, inputs: Arrays, optimizations: str, *, once: bool = False) -> tuple[Side, Side]:
        """Both sides on one input; ``once`` runs one after the other and keeps no session, for the sake of memory."""
        self.last = list(side_inputs(self.interface, inputs))
        if once:
            sides = []
            for side in (0, 1):
                sides.append(self._one(side, self.last[side], optimizations))
                self._clear()
            return sides[0], sides[1]
        a, b = (self.pool.submit(self._one, side, self.last[side], optimizations) for side in (0, 1))
        return a.result(), b.result()

    def time(self) -> tuple[float | None, float | None]:
        """Median milliseconds with optimizations on, on the last inputs, the sides taking turns."""
        loaded = [self.sessions.get((side, "on")) for side in (0, 1)]
        try:
            timings = measure(
                {str(i): (s, self.last[i]) for i, s in enumerate(loaded) if isinstance(s, RemoteSession)}, _TIMED_RUNS
            )
        except RunError:
            return None, None
        a, b = (timings[key].median if key in timings else None for key in "01")
        return a, b

    def _one(self, side: int, feed: Arrays, optimizations: str) -> Side:
        ports = {pair.key: (pair.a, pair.b)[side] for pair in self.interface.outputs}
        names = {port.name: key for key, port in ports.items() if port is not None and port.is_tensor}
        try:
            session = self._session(side, optimizations)
            outputs = session.run(feed, list(names))
        except RunError as error:
            if error.kind in _FINAL:
                self.sessions[side, optimizations] = error
            return Side({}, error, 0.0)
        return Side({names[n]: array for n, array in outputs.items()}, None, 1000 * session.seconds)

    def _session(self, side: int, optimizations: str) -> RemoteSession:
        key = (side, optimizations)
        if key not in self.sessions:
            try:
                how = _loaded(self.options, optimizations)
                self.sessions[key] = RemoteSession(self.models[side], bounds=self.bounds, **how)
            except RunError as error:
                self.sessions[key] = error
        found = self.sessions[key]
        if isinstance(found, RunError):
            raise found
        return found


def _loaded(options: Options, optimizations: str) -> dict[str, Any]:
    """How a session loads a model."""
    full, cores = options.numerics == "full", limits.cores()
    threads = options.threads or max(1, cores // 2 if full else cores)
    prepack = full or (options.iterations or 1) > 1  # it pays in many runs
    made = {"optimizations": optimizations, "providers": list(options.providers), "threads": threads}
    return made | {"prepack": prepack, "spinning": False}


def ahead(a: Source, options: Options) -> contextlib.AbstractContextManager[None]:
    """While it lasts, onnxruntime loads A for :func:`numeric`, if it is a file that is run as it is."""
    if isinstance(a, bytes) or not options.run or options.fix or not Path(a).is_file():
        return contextlib.nullcontext()
    return child.ahead(a, **_loaded(options, "off" if options.numerics == "full" else "on"))


def _runs(sides: _Sides, interface: Interface, options: Options, given: Sequence[Given]) -> Iterator[Run]:
    full, iterations = options.numerics == "full", options.iterations or 1
    drawn = () if given else _plan(interface, options)
    plan: list[tuple[InputSpec | None, Shapes, Given]] = [
        *((None, {}, load) for load in given),
        *((spec, chosen, functools.partial(generate, interface, chosen, spec)) for spec, chosen in drawn),
    ]
    once = not full and iterations == 1 and len(given) <= 1
    for optimizations in ("off", "on") if full else ("on",):
        for place, (spec, chosen, load) in enumerate(plan):
            inputs = load()
            shapes_ = chosen or {name: tuple(array.shape) for name, array in inputs.items()}
            a, b = sides.run(inputs, optimizations, once=once)
            if spec is not None and spec.integers == "small" and _refused(a) and _refused(b):
                less = dataclasses.replace(spec, integers="binary")  # legal as indices of what has two elements, as dims have
                lower = generate(interface, chosen, less)
                again = sides.run(lower, optimizations, once=once) if not same(lower, inputs) else (a, b)
                if not all(map(_refused, again)):
                    spec, inputs, (a, b) = less, lower, again
            if spec is not None and spec.integers == "wide" and (a.error or b.error):
                continue  # it may well be no index or no number of elements
            yield Run(place, spec, shapes_, optimizations, tuple(options.providers), inputs, a, b)
            if any(side.error is not None and side.error.kind in _FINAL for side in (a, b)):
                break  # other inputs cannot help


def _refused(side: Side) -> bool:
    """Whether a model refused an input, and may take another one."""
    return side.error is not None and side.error.kind not in _FINAL


def same(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    """Whether inputs are among others, bit for bit."""
    return all(name in others and _alike(array, others[name]) for name, array in some.items())


def _alike(x: np.ndarray, y: np.ndarray) -> bool:
    return (x.dtype, x.shape) == (y.dtype, y.shape) and x.tobytes() == y.tobytes()


def _plan(interface: Interface, options: Options) -> Iterator[tuple[InputSpec, Shapes]]:
    """Inputs to draw, as (spec, shapes), the plain normal ones first."""
    usual = shapes(interface, options.shapes)
    base = InputSpec(options.seed, ranges=options.range_rows())
    full, iterations = options.numerics == "full", options.iterations or 1
    for i in range(max(iterations, 3) if full else iterations):
        yield dataclasses.replace(base, seed=options.seed + i), usual
    wide = dataclasses.replace(base, integers="wide")
    if not full:
        if _wraps(interface):
            yield wide, usual
        return
    others: tuple[dict[str, Any], ...] = (
        {"scale": 10000.0},
        {"scale": 100.0},
        {"scale": 0.01},
        {"signs": "positive"},
        {"signs": "negative"},
        {"distribution": "uniform"},
        {"distribution": "one-hot"},
        {"distribution": "constant"},
        {"distribution": "extreme"},
    )
    for other in others:
        yield dataclasses.replace(base, **other), usual
    for symbol, (_, axis) in symbols(interface).items():
        for size in _BATCH_SIZES if axis == 0 else ():
            try:
                yield base, shapes(interface, options.shapes, {symbol: size})
            except UsageError:
                break  # an asked shape fixes this dim
    if _wraps(interface):
        yield wide, usual


def _wraps(interface: Interface) -> bool:
    """Whether an input has an integer type so narrow, or so unsigned, that arithmetic leaves it."""
    dtypes = [port.numpy_dtype() for pair in interface.inputs for port in pair.ports() if port.is_tensor]
    return any(d.kind == "u" or (d.kind == "i" and d.itemsize <= 2) or d.name in ("int4", "uint4") for d in dtypes)


def _picture(item: Run, row: dict[str, Any], worst: dict[str, dict[str, Any]], interface: Interface) -> None:
    """Give ``heatmap`` and ``scatter`` to the row of each output that deviates most, taking them from the one before."""
    keys = {(p.a.name, p.b.name): p.key for p in interface.outputs if p.a is not None and p.b is not None}
    for output in row["outputs"]:
        key = keys[output["a"], output["b"]]
        before = worst.get(key)
        if before is None or (output["scale_ulp"] or 0) > (before["scale_ulp"] or 0):
            for name in ("heatmap", "scatter") if before is not None else ():
                before.pop(name, None)  # type: ignore[union-attr]
            output |= pictures(item.a.outputs[key], item.b.outputs[key])
            worst[key] = output


def _warnings(item: Run, row: dict[str, Any], interface: Interface) -> Iterator[str]:
    refused = [(name, side.error) for name, side in (("A", item.a), ("B", item.b)) if side.error is not None]
    if len(refused) == 2:
        yield f"neither model ran at {_text(item.shapes)}: {refused[0][1]}"
    elif refused:
        name, error = refused[0]
        yield f"{name} did not run at {_text(item.shapes)}, the other one did: {error}"
    for pair in interface.outputs:
        if not all(port.is_tensor for port in pair.ports()):
            yield f"output {pair.key!r} is not a tensor and was not compared"
    for output in row["outputs"]:
        key = output["a"]
        if output["shape"] != output["shape_b"]:
            both = f"{output['shape']} in A and {output['shape_b']} in B"
            yield f"output {key!r} has shape {both} at {_text(item.shapes)}"
        for kind in ("nan", "inf"):
            counts = (output[f"{kind}_a"], output[f"{kind}_b"])
            if any(counts):
                word = "NaN" if kind == "nan" else "infinite"
                where = "" if output[f"{kind}_coincide"] else ", not in the same places"
                yield f"output {key!r} has {word} elements: {counts[0]} in A and {counts[1]} in B{where}"
        if item.spec is None or item.spec.distribution not in ("constant", "one-hot"):
            yield from vacuous(key, item.a.outputs[key], item.b.outputs[key])


def _of_runs(text: str, places: list[int], of: int) -> str:
    """A warning with the runs that it is of, as they are counted from 1, where there are several."""
    if of < 2:
        return text
    if len(places) == of:
        return f"{text} (in every run)"
    return f"{text} (in run{'s' * (len(places) > 1)} {', '.join(map(str, places))})"


def _remember(item: Run, seen: dict[tuple[object, ...], set[bytes]]) -> None:
    """Note what each output was, to find those that do not depend on the input."""
    digest = b"".join(array.tobytes() for array in item.inputs.values())
    for name, side in (("A", item.a), ("B", item.b)):
        for key, array in side.outputs.items():
            if array.dtype.kind not in "OSUT":
                seen.setdefault((name, key, item.optimizations, array.shape, "in"), set()).add(_digest(digest))
                seen.setdefault((name, key, item.optimizations, array.shape, "out"), set()).add(
                    _digest(array.tobytes())
                )


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _stuck(seen: dict[tuple[object, ...], set[bytes]], interface: Interface) -> Iterator[str]:
    for (name, key, *where), values in seen.items():
        if where[-1] == "out" and len(values) == 1 and len(seen[(name, key, *where[:-1], "in")]) > 1:
            yield f"output {key!r} of {name} was the same for every input: the comparison says little about it"


def _text(chosen: Shapes) -> str:
    return ", ".join(f"{name}={list(shape) or 'scalar'}" for name, shape in chosen.items()) or "no input"
