"""The sizes and samples at which two models are compared, and the proof at each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import words
from graphcheck.errors import Exhausted, Improbable, Oversized, Refused, Undecided, UsageError
from graphcheck.files.contents import Contents
from graphcheck.interface import inputs, lengths
from graphcheck.interface import ports as interface
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.proof.free import LARGEST, Free, breakpoints
from graphcheck.kernel.proof.pair import Pair, build
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.terms.maps import Maps
from graphcheck.options import Options

_SAMPLES = 4  # of integer inputs that steer a graph: two draws by the seed, all ones, all zeros; then numbers that it meets
_SWITCHES = 4  # so many booleans that steer a graph take all their values
TARGET_SHARE = 24  # the error probability is shared by up to 4 tiers at up to 6 choices of sizes
_SMALL = 1e7  # operations in both graphs for which an evaluation from the inputs is no matter
_LARGE = 5e8  # elements of the tensors of both graphs, beyond which the other choices of sizes are small ones
_BATCHES = (3, 1)  # tried for a batch besides its usual size


@dataclasses.dataclass(frozen=True, eq=False)
class Attempt:
    """The proof at one choice of sizes (and of a sample of the integer inputs; None: those are free too).

    Attributes:
        proved: Whether all outputs met.
        stopped: What ended the trace or the proof.
        refused: ``a``, ``b`` or ``both``: who does not admit these sizes.
    """

    shapes: dict[str, tuple[int, ...]]
    sample: int | None = None
    pair: Pair | None = None
    prover: Prover | None = None
    proved: bool = False
    stopped: Undecided | None = None
    refused: str | None = None

    def why(self) -> str:
        """What stopped the proof."""
        if self.stopped is not None:
            return f"the proof stopped: {self.stopped}"
        return "the outputs did not meet in the proof windows"


# What may prove an attempt, the cheapest first: each takes it one step further, and says whether all outputs met.
# ``sparing`` is asked whether to leave rows alone once they become costly.
TOOLS: Mapping[str, Callable[[Prover, Callable[[], bool]], bool | None]] = {
    "congruence": lambda prover, _: not prover.open_pairs(),
    "rows": lambda prover, sparing: prover.by_rows(sparing),
    "windows": lambda prover, _: prover.by_windows(),
    "parts": lambda prover, _: prover.by_parts(),
    "inputs": lambda prover, _: prover.from_inputs(),
}


class Sizes:
    """Every choice of sizes that a verdict has to name, and both models in one store at each of them."""

    def __init__(
        self,
        models: tuple[ir.Model, ir.Model],
        ports: interface.Interface,
        options: Options,
        deadline: float,
        contents: Contents,
        given: inputs.Given | None,
        observe: Callable[..., Any] | None = None,
        met: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.models, self.interface, self.options, self.given, self.deadline = models, ports, options, given, deadline
        self.met, self._edges = met or {}, list[dict[str, tuple[int, ...]]]()  # the choices at a breakpoint
        self.shared: dict[str, Any] = {"contents": contents, "maps": Maps(), "observe": observe}  # by all that is traced
        self.outputs = [p for p in ports.outputs if p.a is not None and p.b is not None]
        names = [[v.name for v in m.graph.outputs] for m in models]
        self.positions = [(names[0].index(p.a.name), names[1].index(p.b.name)) for p in self.outputs if p.a and p.b]
        self._steering: dict[tuple[tuple[str, tuple[int, ...]], ...], list[interface.PortPair]] = {}
        self.admitted: dict[tuple[Any, ...], bool] = {}  # (side, *shapes, sample) -> whether that model takes them
        self._ends: dict[str, tuple[int, str] | None] = {}
        asked = {p.key for p in ports.inputs for port in p.ports() if port.name in options.shapes}
        fits = given is None and not any(m.where == "input" for m in ports.mismatches)
        places = interface.places(ports) if fits else {}
        places = {name: there for name, there in places.items() if not any(key in asked for key, _ in there)}
        alone = interface.alone(ports) if fits else {}
        alone = {name: row for name, row in alone.items() if not any(key in asked for key, _ in row[1])}
        self.free = Free(places, {p.key: at for p, at in zip(self.outputs, self.positions, strict=True)}, alone)

    @functools.cached_property
    def lengths(self) -> tuple[int, ...]:
        """What is tried for a symbolic dim that is no batch, besides its usual size."""
        return lengths.tried(self.models)

    def choices(self, found: Sequence[Attempt] = ()) -> Iterator[dict[str, tuple[int, ...]]]:
        """Input shapes to prove at: batches 2, 3 and 1, for other symbolic dims a usual and a small legal size, and both sides of
        each breakpoint that a trace shows.

        ``found`` are the attempts so far: a symbol for which both graphs work row by row needs no other size. Where the tensors
        are large at usual sizes, the other choices are made around small ones.
        """
        if self.given is not None:
            yield {name: tuple(array.shape) for name, array in self.given().items()}
            return
        seen = [interface.shapes(self.interface, self.options.shapes)]
        yield seen[0]
        tried: set[str] = set()
        symbols = interface.symbols(self.interface)
        while left := [symbol for symbol in symbols if symbol not in tried and symbol not in self.free.every(found)]:
            symbol, axis = left[0], symbols[left[0]][1]
            tried.add(symbol)
            with contextlib.suppress(UsageError):  # --shape fixes this dim
                sizes = _BATCHES if axis == 0 else self.lengths
                around = self._around(found)
                more = [interface.shapes(self.interface, self.options.shapes, around | {symbol: size}) for size in sizes]
                more = [chosen for chosen in more if chosen not in seen]
                for chosen in self._fitting(more) if axis else more:
                    seen.append(chosen)
                    yield chosen
        for chosen in self.edges(found):
            if chosen not in seen:
                seen.append(chosen)
                self._edges.append(chosen)
                yield chosen

    def _around(self, found: Sequence[Attempt]) -> dict[str, int]:
        """What the other symbols are where one is varied: usual sizes, or the smallest lengths where tensors are large then."""
        pair = found[0].pair if found else None
        large = pair is not None and sum(term.size for term in pair.terms.terms) > _LARGE
        return self.least(found[0].sample) if large else {}

    def least(self, sample: int | None) -> dict[str, int]:
        """The smallest length tried that both models take for all symbols but batches; {} if there is none."""
        symbols = [symbol for symbol, (_, axis) in interface.symbols(self.interface).items() if axis]
        for sizes in (dict.fromkeys(symbols, length) for length in self.lengths if symbols):
            with contextlib.suppress(UsageError):  # --shape fixes one of them
                chosen = interface.shapes(self.interface, self.options.shapes, sizes)
                if all(self.admits(side, chosen, sample) for side in (0, 1)):
                    return sizes
        return {}

    def _fitting(self, several: Sequence[dict[str, tuple[int, ...]]]) -> list[dict[str, tuple[int, ...]]]:
        """The first of these shapes that both models take, which is enough; else the first that one takes, which is open."""
        alone = []
        for chosen in several:
            takes = [self.admits(side, chosen, None) for side in (0, 1)]
            if all(takes):
                return [chosen]
            alone += [chosen] * any(takes)
        return alone[:1]

    def edges(self, found: Sequence[Attempt]) -> Iterator[dict[str, tuple[int, ...]]]:
        """Input shapes on both sides of each breakpoint that the attempts show; ``found`` may grow meanwhile."""
        around = self._around(found)
        for symbol, size in self.free.beyond(found):
            with contextlib.suppress(UsageError):
                yield interface.shapes(self.interface, self.options.shapes, around | {symbol: size})

    def discrete(self) -> list[interface.PortPair]:
        """Integer and boolean inputs."""
        return [p for p in self.interface.inputs if p.a is not None and p.a.numpy_dtype().kind in "iub"]

    def prove(
        self,
        known: Sequence[Attempt],
        tools: Sequence[str],
        say: Callable[[str], None],
        sparing: Callable[[], bool] = lambda: False,
    ) -> tuple[Attempt, ...]:
        """The attempts at one choice of sizes after the other; it ends with the first choice where one stays open.

        ``known`` is how far all of ``tools`` (keys of :data:`TOOLS`) but the last have come: the last takes up what is open
        there, and all of them go on behind it. ``say`` hears of the sizes.
        """
        found = list(known)
        for number, chosen in enumerate(self.choices(found)):
            places = [i for i, attempt in enumerate(found) if attempt.shapes == chosen]
            if places and all(found[i].proved for i in places):
                continue
            say(f"at {words.shapes(chosen)}")
            if not places:  # what both refuse is no size of these models, nor a breakpoint that one does
                none = ("a", "b", "both") if chosen in self._edges else ("both",)
                found += (a for a in self.traced_at(chosen, found) if not (a.refused in none and (number or a.sample)))
                places = [i for i, attempt in enumerate(found) if attempt.shapes == chosen]
            for i in places:
                for tool in tools if i >= len(known) else tools[-1:]:
                    found[i] = self.step(found[i], tool, [*found[:i], *found[i + 1 :]], sparing)
            if any(not found[i].proved or self.unequal_shapes(found[i]) for i in places):
                break
        return tuple(found)

    def step(self, attempt: Attempt, tool: str, others: Sequence[Attempt], sparing: Callable[[], bool]) -> Attempt:
        """The attempt after one step more; ``others`` have their shares of the error probability."""
        if attempt.proved or attempt.prover is None or (attempt.stopped is not None and tool != "inputs"):
            return attempt
        try:
            proved = bool(TOOLS[tool](attempt.prover, sparing))
            spent = sum(2.0 ** a.prover.log2_error() for a in (attempt, *others) if a.prover is not None)
            if proved and spent > self.options.error_probability:
                raise Improbable(f"the error probability would be {spent:.1e}, above the target")
        except Undecided as error:
            return dataclasses.replace(attempt, stopped=error)
        return dataclasses.replace(attempt, proved=proved)

    def traced_at(self, chosen: dict[str, tuple[int, ...]], others: Sequence[Attempt]) -> list[Attempt]:
        """For all values of the inputs; where integer inputs steer the graph, at several samples of those; ``others`` as for
        :meth:`step`."""
        found = [self._stepwise(self.attempt(chosen), others)]
        if found[0].pair is not None or not self.discrete():
            return found
        for sample in self._samples(chosen):
            found.append(self._stepwise(self.attempt(chosen, sample), [*others, *found]))
        return found[1:]

    def _samples(self, chosen: dict[str, tuple[int, ...]]) -> range:
        if self.options.inputs is not None or all(p.key in self.bound(chosen) for p in self.steering(chosen)):
            return range(1)
        return range(2 ** self._switches(chosen) if self.exhaustive(chosen) else _SAMPLES + len(self._compared(chosen)))

    def _compared(self, chosen: dict[str, tuple[int, ...]]) -> list[tuple[str, int]]:
        """The steering inputs of one element, each with one of the numbers that the graphs compare it with."""
        return [(pair.key, number) for pair in self.steering(chosen) for number in self.met.get(pair.key, ())]

    def _switches(self, chosen: dict[str, tuple[int, ...]]) -> int:
        return sum(math.prod(chosen[p.key]) for p in self.steering(chosen))

    def bound(self, chosen: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """The integer inputs to which the ranges leave one value, with it; none where inputs are given."""
        found, ranges = {}, {"": (0.0, 1.0), **self.options.ranges}
        for pair in self.discrete() if self.given is None else ():
            low, high = next((ranges[port.name] for port in pair.ports() if port.name in ranges), ranges[""])
            if low == high == int(low) and pair.a is not None:
                found[pair.key] = np.full(chosen[pair.key], low, pair.a.numpy_dtype())
        return found

    def exhaustive(self, chosen: dict[str, tuple[int, ...]]) -> bool:
        """Whether the samples are all values that the steering inputs can take."""
        steering = self.steering(chosen)
        few = all(p.a is not None and p.a.numpy_dtype().kind == "b" for p in steering) and bool(steering)
        return few and self._switches(chosen) <= _SWITCHES and self.options.inputs is None and not self.options.ranges

    def steering(self, chosen: dict[str, tuple[int, ...]]) -> list[interface.PortPair]:
        """The integer inputs whose values the graphs have to know at these sizes; the others stay free."""
        key = tuple(chosen.items())
        if key not in self._steering:
            self._steering[key] = needed = self.discrete()
            for pair in needed if len(needed) > 1 else ():
                fewer = [p for p in self._steering[key] if p is not pair]
                if all(
                    self._traced(chosen, self._values(fewer, chosen, sample))
                    or not self._traced(chosen, self._values(self._steering[key], chosen, sample))
                    for sample in range(_SAMPLES if self.options.inputs is None else 1)
                ):
                    self._steering[key] = fewer
        return self._steering[key]

    def _traced(self, chosen: dict[str, tuple[int, ...]], values: dict[str, np.ndarray]) -> bool:
        try:
            self._build(chosen, values)
        except (Exhausted, Oversized):
            raise
        except Undecided:
            return False
        return True

    def pairs(self, chosen: dict[str, tuple[int, ...]], **options: Any) -> Iterator[tuple[int | None, Pair]]:
        """Both models traced afresh: once, or at each sample of integer inputs that steer them; nothing if neither can be;
        ``options`` are those of :meth:`build`."""
        try:
            yield None, self.build(chosen, **options)
            return
        except (Exhausted, Oversized):
            raise
        except Undecided as error:
            neither = isinstance(error, Refused) and not (self.admits(0, chosen, None) or self.admits(1, chosen, None))
            if not self.discrete() and not neither:
                raise
        for sample in self._samples(chosen) if self.discrete() else ():
            if self.admits(0, chosen, sample) or self.admits(1, chosen, sample):
                yield sample, self.build(chosen, sample, **options)

    def _stepwise(self, attempt: Attempt, others: Sequence[Attempt]) -> Attempt:
        """The attempt; where loops that were taken as a whole do not prove it, a new one that follows their steps."""
        if attempt.pair is None or not attempt.pair.algebra.wholes:
            return attempt
        size = sum(term.size for term in attempt.pair.terms.terms) + attempt.pair.work
        last = ("inputs",) if attempt.sample is None and size < _SMALL else ()
        for tool in ("congruence", "rows", "windows", *last):
            attempt = self.step(attempt, tool, others, lambda: True)
        return attempt if attempt.proved else self.attempt(attempt.shapes, attempt.sample, whole=False)

    def attempt(self, chosen: dict[str, tuple[int, ...]], sample: int | None = None, *, whole: bool = True) -> Attempt:
        """Both models traced at one choice of sizes and samples; nothing is proved yet. ``whole``: see :func:`build`."""
        try:
            pair = self.build(chosen, sample, whole=whole)
            roots = self.roots(pair)
        except Undecided as error:
            refused = None
            if isinstance(error, Refused):
                sides = (self.admits(0, chosen, sample), self.admits(1, chosen, sample))
                refused = {(True, False): "b", (False, True): "a", (False, False): "both"}.get(sides)
            return Attempt(chosen, sample, stopped=error, refused=refused)
        prover = Prover(
            pair.terms,
            [a for a, _ in roots],
            [b for _, b in roots],
            pair.row_counts(),
            seed=self.options.seed,
            target=self.options.error_probability / TARGET_SHARE,
            deadline=self.deadline,
            budget=max(4e9, 0.25 * pair.work),
        )
        return Attempt(chosen, sample, pair, prover)

    def build(
        self,
        chosen: dict[str, tuple[int, ...]],
        sample: int | None = None,
        also: Mapping[str, np.ndarray] | None = None,
        **options: Any,
    ) -> Pair:
        """Both models traced at these sizes into one store, at the sample's integers and the values in ``also``; ``options``
        are those of :func:`graphcheck.kernel.proof.pair.build`."""
        return self._build(chosen, {**self.concrete(chosen, sample), **(also or {})}, **options)

    def _build(self, chosen: dict[str, tuple[int, ...]], values: dict[str, np.ndarray], **options: Any) -> Pair:
        partner = {p.key: p.b.name for p in self.interface.inputs if p.b is not None}
        feeds = {key: (partner[key], shape) for key, shape in chosen.items()}
        return build(*self.models, feeds, values, free=self.free.typed, **{**self.shared, **options})

    def roots(self, pair: Pair) -> list[tuple[int, int]]:
        """The classes of the output pairs."""
        return [(_class(pair, pair.a.outputs[i]), _class(pair, pair.b.outputs[j])) for i, j in self.positions]

    def concrete(self, chosen: dict[str, tuple[int, ...]], sample: int | None) -> dict[str, np.ndarray]:
        """Values for the integer inputs that steer: none, given ones, all booleans, draws, ones, zeros, met numbers."""
        if sample is None or not self.discrete():
            return self.bound(chosen)
        steering = self.steering(chosen)
        if not self.exhaustive(chosen):
            return {**self.bound(chosen), **self._values(steering, chosen, sample)}
        bits = np.array([sample >> i & 1 for i in range(self._switches(chosen))], bool)
        ends = np.cumsum([math.prod(chosen[p.key]) for p in steering])[:-1]
        return {p.key: part.reshape(chosen[p.key]) for p, part in zip(steering, np.split(bits, ends), strict=True)}

    def _values(
        self, discrete: list[interface.PortPair], chosen: dict[str, tuple[int, ...]], sample: int
    ) -> dict[str, np.ndarray]:
        if self.given is not None:
            given = self.given()
            return {p.key: given[p.key] for p in discrete}
        spec = inputs.InputSpec(self.options.seed + sample, ranges=self.options.range_rows())
        drawn = inputs.generate(self.interface, chosen, spec)
        for name, number in self._compared(chosen)[sample - _SAMPLES :][:1] if sample >= _SAMPLES else ():
            drawn[name] = np.full_like(drawn[name], number)
        uniform = {_SAMPLES - 2: 1, _SAMPLES - 1: 0}.get(sample)
        if uniform is not None and not self.options.ranges:
            return {p.key: np.full_like(drawn[p.key], uniform) for p in discrete}
        return {p.key: drawn[p.key] for p in discrete}

    def admits(self, side: int, chosen: dict[str, tuple[int, ...]], sample: int | None) -> bool:
        """Whether the operators of one model allow these sizes; what stops a trace for another reason says nothing of them."""
        key = (side, *chosen.items(), sample)
        if key not in self.admitted:
            self.admitted[key] = self.takes(side, chosen, self.concrete(chosen, sample))
        return self.admitted[key]

    def end(self, symbol: str, found: Sequence[Attempt]) -> tuple[int, str] | None:
        """The largest size at a breakpoint that both models take, and the node, where one beyond it is refused."""
        if symbol not in self._ends:
            self._ends[symbol], beyond = None, False
            for size, node in sorted(breakpoints(symbol, found).items(), reverse=True):
                try:
                    chosen = interface.shapes(self.interface, self.options.shapes, self._around(found) | {symbol: size})
                    fits = size <= LARGEST and all(self.admits(side, chosen, found[0].sample) for side in (0, 1))
                except Undecided:
                    break
                if fits:
                    self._ends[symbol] = (size, node) if beyond else None
                    break
                beyond |= size <= LARGEST
        return self._ends[symbol]

    def takes(self, side: int, chosen: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]) -> bool:
        """Whether the operators of one model allow these sizes at these values."""
        feeds: dict[str, tuple[str, tuple[int, ...]]] = {}
        concrete: dict[str, np.ndarray] = {}
        for pair in self.interface.inputs:
            port = pair.a if side == 0 else pair.b
            if port is not None:
                feeds[port.name] = (port.name, chosen[pair.key])
                concrete |= {port.name: values[pair.key]} if pair.key in values else {}
        try:
            build(self.models[side], self.models[side], feeds, concrete, **self.shared)
        except Refused:
            return False
        except (Exhausted, Oversized):
            raise
        except Undecided:
            pass
        return True

    def compared(self, pair: Pair) -> list[Tensor | np.ndarray]:
        """The outputs of A that have a partner."""
        return [x for i, _ in self.positions if isinstance(x := pair.a.outputs[i], (Tensor, np.ndarray))]

    def unequal_shapes(self, attempt: Attempt) -> list[tuple[str, Tensor | np.ndarray, Tensor | np.ndarray]]:
        """Outputs whose shapes differ, with both sides."""
        if attempt.pair is None:
            return []
        found: list[tuple[str, Tensor | np.ndarray, Tensor | np.ndarray]] = []
        for port, (i, j) in zip(self.outputs, self.positions, strict=True):
            x, y = attempt.pair.a.outputs[i], attempt.pair.b.outputs[j]
            if isinstance(x, Tensor | np.ndarray) and isinstance(y, Tensor | np.ndarray):
                found += [(port.key, x, y)] if tuple(x.shape) != tuple(y.shape) else []
        return found


def _class(pair: Pair, value: Value) -> int:
    if isinstance(value, Tensor):
        return value.cls
    if value is None or isinstance(value, list):
        raise Undecided("an output is a sequence, which is not compared")
    return pair.algebra.lift(value).cls
