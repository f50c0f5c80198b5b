"""The sizes and samples at which two models are compared, and the proof at each of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Exhausted, Oversized, Refused, Undecided, UsageError
from graphcheck.files.hashing import Hashes
from graphcheck.interface import inputs
from graphcheck.interface import ports as interface
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.proof import pair as classes
from graphcheck.kernel.proof.prover import Prover
from graphcheck.options import Options

_SAMPLES = 4  # of integer inputs that steer a graph: two draws by the seed, all ones, all zeros
_SWITCHES = 4  # so many booleans that steer a graph take all their values
TARGET_SHARE = 24  # the error probability is shared by up to 4 tiers at up to 6 choices of sizes
_BATCHES, _LENGTHS = (3, 1), (16, 28, 32, 48, 64)  # tried for a symbolic dim besides its usual size


@dataclasses.dataclass
class Attempt:
    """The proof at one choice of sizes (and of a sample of the integer inputs; None: those are free too)."""

    shapes: dict[str, tuple[int, ...]]
    sample: int | None = None
    pair: classes.Pair | None = None
    prover: Prover | None = None
    proved: bool = False
    stopped: Undecided | None = None
    refused: str | None = None  # "a", "b" or "both": who does not admit these sizes

    def why(self) -> str:
        """What stopped the proof."""
        if self.stopped is not None:
            return f"the proof stopped: {self.stopped}"
        return "the outputs did not meet in the proof windows"


class Trials:
    """Builds both models in one store at every choice of sizes that a verdict has to name."""

    def __init__(
        self,
        models: tuple[ir.Model, ir.Model],
        ports: interface.Interface,
        options: Options,
        deadline: float,
        hashes: Hashes,
    ) -> None:
        self.models, self.interface, self.options = models, ports, options
        self.deadline, self.hashes = deadline, hashes
        self.outputs = [p for p in ports.outputs if p.a is not None and p.b is not None]
        names = [[v.name for v in m.graph.outputs] for m in models]
        self.spent = 0.0  # of the error probability, by all proofs so far
        self._steering: dict[tuple[tuple[str, tuple[int, ...]], ...], list[interface.Pair]] = {}
        self.positions = [(names[0].index(p.a.name), names[1].index(p.b.name)) for p in self.outputs if p.a and p.b]

    def sizes(self) -> Iterator[dict[str, tuple[int, ...]]]:
        """Input shapes to prove at: batches 2, 3 and 1, and for other symbolic dims a usual and a small legal size.

        Of the sizes tried for a dim that is no batch, one that both models admit is enough: the caller sends True for such.
        """
        if self.options.inputs is not None:
            arrays = inputs.load_npz(self.options.inputs, self.interface)
            yield {name: tuple(array.shape) for name, array in arrays.items()}
            return
        seen = [interface.shapes(self.interface, self.options.shapes)]
        yield seen[0]
        for symbol, (_, axis) in interface.symbols(self.interface).items():
            for size in _BATCHES if axis == 0 else _LENGTHS:
                try:
                    chosen = interface.shapes(self.interface, self.options.shapes, {symbol: size})
                except UsageError:
                    break  # --shape fixes this dim
                if chosen in seen:
                    continue
                seen.append(chosen)
                yield chosen
                if axis != 0 and self.admits(0, chosen, None):
                    break

    def discrete(self) -> list[interface.Pair]:
        """Integer and boolean inputs."""
        return [p for p in self.interface.inputs if p.a is not None and p.a.numpy_dtype().kind in "iub"]

    def attempts(self, chosen: dict[str, tuple[int, ...]], costly: object) -> Iterator[Attempt]:
        """The proof for all values of the inputs; where integer inputs steer the graph, at several samples of those.

        ``costly`` is asked (called without arguments) whether the windows that cost arithmetic may be tried.
        """
        first = self.attempt(chosen, None, costly)
        if first.pair is not None or not self.discrete():
            yield first
            return
        for sample in self._samples(chosen):
            yield self.attempt(chosen, sample, costly)

    def _samples(self, chosen: dict[str, tuple[int, ...]]) -> range:
        if self.options.inputs is not None:
            return range(1)
        return range(2 ** self._switches(chosen)) if self.exhaustive(chosen) else range(_SAMPLES)

    def _switches(self, chosen: dict[str, tuple[int, ...]]) -> int:
        return sum(math.prod(chosen[p.key]) for p in self.steering(chosen))

    def exhaustive(self, chosen: dict[str, tuple[int, ...]]) -> bool:
        """Whether the samples are all values that the steering inputs can take."""
        steering = self.steering(chosen)
        few = all(p.a is not None and p.a.numpy_dtype().kind == "b" for p in steering) and bool(steering)
        return few and self._switches(chosen) <= _SWITCHES and self.options.inputs is None and not self.options.ranges

    def steering(self, chosen: dict[str, tuple[int, ...]]) -> list[interface.Pair]:
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

    def pairs(self, chosen: dict[str, tuple[int, ...]], *, affine: str) -> Iterator[tuple[int | None, classes.Pair]]:
        """Both models traced afresh: once, or at each sample of integer inputs that steer them; nothing if neither can be."""
        try:
            yield None, self.build(chosen, affine=affine)
            return
        except (Exhausted, Oversized):
            raise
        except Undecided as error:
            neither = isinstance(error, Refused) and not (self.admits(0, chosen, None) or self.admits(1, chosen, None))
            if not self.discrete() and not neither:
                raise
        for sample in self._samples(chosen) if self.discrete() else ():
            if self.admits(0, chosen, sample) or self.admits(1, chosen, sample):
                yield sample, self.build(chosen, sample, affine=affine)

    def attempt(self, chosen: dict[str, tuple[int, ...]], sample: int | None, costly: object) -> Attempt:
        """The proof at one choice of sizes and samples."""
        attempt = Attempt(chosen, sample)
        try:
            attempt.pair = self.build(chosen, sample)
            roots = self.roots(attempt.pair)
        except Undecided as error:
            attempt.stopped = error
            if isinstance(error, Refused):
                sides = (self.admits(0, chosen, sample), self.admits(1, chosen, sample))
                attempt.refused = {(True, False): "b", (False, True): "a", (False, False): "both"}.get(sides)
            return attempt
        attempt.prover = prover = Prover(
            attempt.pair.terms,
            [a for a, _ in roots],
            [b for _, b in roots],
            attempt.pair.row_counts(),
            seed=self.options.seed,
            target=self.options.error_probability / TARGET_SHARE,
            deadline=self.deadline,
            budget=max(4e9, 0.25 * _work(attempt.pair)),
        )
        try:
            attempt.proved = prover.by_rows() or (bool(costly()) and prover.by_windows())  # type: ignore[operator]
            self.spent += 2.0 ** prover.log2_error()
            if attempt.proved and self.spent > self.options.error_probability:
                raise Undecided(f"the error probability would be {self.spent:.1e}, above the target")
        except Undecided as error:
            attempt.stopped, attempt.proved = error, False
        return attempt

    def build(
        self,
        chosen: dict[str, tuple[int, ...]],
        sample: int | None = None,
        also: Mapping[str, np.ndarray] | None = None,
        *,
        affine: str = "",
    ) -> classes.Pair:
        """Both models traced at these sizes into one store, at the sample's integers and the values in ``also``."""
        return self._build(chosen, {**self.concrete(chosen, sample), **(also or {})}, affine=affine)

    def _build(
        self, chosen: dict[str, tuple[int, ...]], values: dict[str, np.ndarray], *, affine: str = ""
    ) -> classes.Pair:
        partner = {p.key: p.b.name for p in self.interface.inputs if p.b is not None}
        feeds = {key: (partner[key], shape) for key, shape in chosen.items()}
        return classes.build(*self.models, feeds, values, affine=affine, hashes=self.hashes)

    def roots(self, pair: classes.Pair) -> list[tuple[int, int]]:
        """The classes of the output pairs."""
        return [(_class(pair, pair.a.outputs[i]), _class(pair, pair.b.outputs[j])) for i, j in self.positions]

    def concrete(self, chosen: dict[str, tuple[int, ...]], sample: int | None) -> dict[str, np.ndarray]:
        """Values for the integer inputs that steer: none, given ones, all booleans, draws by the seed, ones, zeros."""
        if sample is None or not self.discrete():
            return {}
        steering = self.steering(chosen)
        if not self.exhaustive(chosen):
            return self._values(steering, chosen, sample)
        bits = np.array([sample >> i & 1 for i in range(self._switches(chosen))], bool)
        ends = np.cumsum([math.prod(chosen[p.key]) for p in steering])[:-1]
        return {p.key: part.reshape(chosen[p.key]) for p, part in zip(steering, np.split(bits, ends), strict=True)}

    def _values(
        self, discrete: list[interface.Pair], chosen: dict[str, tuple[int, ...]], sample: int
    ) -> dict[str, np.ndarray]:
        if self.options.inputs is not None:
            given = inputs.load_npz(self.options.inputs, self.interface)
            return {p.key: given[p.key] for p in discrete}
        spec = inputs.InputSpec(self.options.seed + sample, ranges=self.options.range_rows())
        drawn = inputs.generate(self.interface, chosen, spec)
        uniform = {_SAMPLES - 2: 1, _SAMPLES - 1: 0}.get(sample)
        if uniform is not None and not self.options.ranges:
            return {p.key: np.full_like(drawn[p.key], uniform) for p in discrete}
        return {p.key: drawn[p.key] for p in discrete}

    def admits(self, side: int, chosen: dict[str, tuple[int, ...]], sample: int | None) -> bool:
        """Whether the operators of one model allow these sizes; what stops a trace for another reason says nothing of them."""
        values = self.concrete(chosen, sample)
        feeds: dict[str, tuple[str, tuple[int, ...]]] = {}
        concrete: dict[str, np.ndarray] = {}
        for pair in self.interface.inputs:
            port = pair.a if side == 0 else pair.b
            if port is not None:
                feeds[port.name] = (port.name, chosen[pair.key])
                concrete |= {port.name: values[pair.key]} if pair.key in values else {}
        try:
            classes.build(self.models[side], self.models[side], feeds, concrete, hashes=self.hashes)
        except Refused:
            return False
        except (Exhausted, Oversized):
            raise
        except Undecided:
            pass
        return True

    def compared(self, pair: classes.Pair) -> list[Tensor | np.ndarray]:
        """The outputs of A that have a partner."""
        return [x for i, _ in self.positions if isinstance(x := pair.a.outputs[i], (Tensor, np.ndarray))]

    def unequal_shapes(self, pair: classes.Pair) -> list[tuple[str, Tensor | np.ndarray, Tensor | np.ndarray]]:
        """Outputs whose shapes differ, with both sides."""
        found = []
        for port, (i, j) in zip(self.outputs, self.positions, strict=True):
            x, y = pair.a.outputs[i], pair.b.outputs[j]
            if (
                isinstance(x, (Tensor, np.ndarray))
                and isinstance(y, (Tensor, np.ndarray))
                and tuple(x.shape) != tuple(y.shape)
            ):
                found.append((port.key, x, y))
        return found


def text(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """``x=2x3x224x224, ...``."""
    return ", ".join(f"{name}={'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items()) or "no inputs"


def _class(pair: classes.Pair, value: Value) -> int:
    if isinstance(value, Tensor):
        return value.cls
    if value is None or isinstance(value, list):
        raise Undecided("an output is a sequence, which is not compared")
    return pair.algebra.lift(value).cls


def _work(pair: classes.Pair) -> float:
    """Operations in the contractions of both graphs."""
    return sum(2.0 * term.size * float(term.params[3]) for term in pair.terms.terms if term.kind == "contract")
