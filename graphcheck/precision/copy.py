"""What a format does to the numbers of a copy at one input: evidence beside the verdict, computed in float64."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.interface.ports import Interface, Port, PortPair
from graphcheck.precision import headroom, kinds, program, walks
from graphcheck.precision.bound import bounds
from graphcheck.precision.keeping import At, Tries
from graphcheck.precision.layers import layers
from graphcheck.precision.program import Key, Program, Result, Step

_DRAWS = 2  # of noise
_NEAR, _STEP = 1.01, 0.5  # a partner lies within half a step, but for the roundings of float32
_BESIDE = 3  # further inputs at which is tried what to keep
_MOST = 400_000_000  # numbers that are held for the way back


@dataclasses.dataclass(eq=False)
class Copy:
    """A model in a narrower format beside the one that it is a copy of, at what both are fed.

    Attributes:
        copy: The copy, in steps.
        fed: Its inputs and constants.
        evaluated: Gives ``wide``, which takes a walk of the other model: what is told of ranges does without.
        errors: How far the copy's inputs and constants are from those of the other one, by key; results join them once rounded.
        guessed: Constants without a partner by name: their errors are the most that a rounding brings.
        tick: Called before each step; may raise.
    """

    copy: Program
    fed: Mapping[Key, np.ndarray]
    evaluated: Callable[[], Mapping[str, np.ndarray]]
    errors: dict[Key, np.ndarray]
    guessed: frozenset[Key]
    tick: Callable[[], None]

    @functools.cached_property
    def wide(self) -> Mapping[str, np.ndarray]:
        """The outputs of the other model, over the reals, by the copy's names."""
        return self.evaluated()

    def ranges(self) -> headroom.Ranges:
        """How near the numbers come to the ends of their types."""
        found = headroom.Ranges()
        found.outputs = walks.walk(self.copy, self.fed, found.settle, found.inside, tick=self.tick)
        return found

    def numbers(
        self, seed: int, *, ranked: bool, walked: bool = True, top: int = 0, more: Iterable[Copy] = ()
    ) -> dict[str, Any]:
        """All :meth:`parts` as one."""
        found: dict[str, Any] = {}
        for part in self.parts(seed=seed, ranked=ranked, walked=walked, top=top, more=more):
            found |= part
        return found

    def parts(self, *, seed: int, ranked: bool, walked: bool, top: int, more: Iterable[Copy]) -> Iterator[dict[str, Any]]:
        """The keys of ``precision`` in the JSON that this room fills, as they are found: ranges, also at ``more`` inputs; where
        it is ``walked`` again, the spread; ``layers`` and ``bound`` where they are ``ranked``, and so many to ``keep``."""
        found = self.ranges()
        beside: list[At] = []
        for other in more:
            found.join(other.ranges())
            if top and len(beside) < _BESIDE and other.copy.constants.keys() == self.copy.constants.keys():
                beside.append(other.at(self))
        overflowed, vanished = headroom.overflowed(found.rows), headroom.vanished(found.rows)
        yield {"headroom": found.rows, "overflowed": overflowed, "vanished": vanished, "saturated": found.saturated}
        yield {"quantizers": list(found.quantizers)}
        if not walked:
            return
        held: dict[Key, np.ndarray] | None = {} if ranked and _elements(self.copy) < _MOST else None
        rounded = walks.walk(self.copy, self.fed, self._settle(held is not None), keep=held, tick=self.tick)
        yield {"spread": self._spread(found.outputs, rounded, seed)}
        if held is None:
            return
        scales = {name: walks.largest(y) for name, y in self.wide.items() if name in rounded}
        rows = layers(self.copy, held, self.errors, scales, seed, self.tick)
        yield {"layers": [row.to_json() for row in rows]}
        yield {"bound": bounds(self.copy, self.fed, held, self.errors, self.guessed, rounded, self.wide, self.tick)}
        if top:
            del held
            tries = Tries((self.at(self), *beside), seed, self.tick)
            yield {"keep": tries.keep(rows, top, [(row["node"], row["op_type"]) for row in overflowed])}

    def at(self, first: Copy) -> At:
        """What is tried at this input; the constants are held once, by the ``first``."""
        stored = self.copy.constants.keys()
        fed = {key: first.fed[key] if key in stored else x for key, x in self.fed.items()}
        errors = {key: x for key, x in self.errors.items() if key not in stored}
        return At(self.copy, fed, errors | {key: x for key, x in first.errors.items() if key in stored}, self.wide)

    def _settle(self, kept: bool) -> walks.Settle:
        """Round each result, and keep what that did to it."""

        def settle(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
            made = walks.rounding(step, result, value)
            if kept and (made != value).any():
                self.errors[result.key] = made - value
            return made

        return settle

    def _spread(self, plain: Mapping[str, np.ndarray], rounded: Mapping[str, np.ndarray], seed: int) -> list[dict[str, Any]]:
        """Of each output how far it is from the other model's, of which how much is that of the stored constants, and how far
        draws of roundings move it."""
        draws = [walks.walk(self.copy, self.fed, walks.noisy(seed + i), tick=self.tick) for i in range(_DRAWS)]
        return [
            {
                "output": name,
                "largest": walks.largest(y),
                "measured": walks.largest(rounded[name] - y),
                "constants": walks.largest(plain[name] - y),
                "step": self.copy.quanta.get(name),
                "spread": max(walks.largest(draw[name] - plain[name]) for draw in draws),
            }
            for name, y in self.wide.items()
            if name in rounded
        ]

def opened(
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    feeds: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    side: int,
    tick: Callable[[], None] = lambda: None,
) -> Copy:
    """The copy is the model at ``side``. Raises :class:`graphcheck.errors.Undecided`."""
    other = program.of(models[1 - side], feeds[1 - side])
    copy = program.of(models[side], feeds[side])

    def evaluated() -> dict[str, np.ndarray]:
        wide = walks.walk(other, walks.fed(other, feeds[1 - side]), tick=tick)
        names = [_both(p, side) for p in interface.outputs]
        return {own.name: wide[its.name] for own, its in names if own is not None and its is not None and its.name in wide}

    fed = walks.fed(copy, feeds[side])
    errors: dict[Key, np.ndarray] = {}
    guessed: set[Key] = set()
    ports = [_both(p, side) for p in interface.inputs]
    its_inputs = {own.name: feeds[1 - side].get(its.name) for own, its in ports if own is not None and its is not None}
    stored = _Stored(models[1 - side])
    for key, value in fed.items():
        kind = kinds.of(copy.constants[key].dtype) if key in copy.constants else None
        room = kind.room(value) if kind is not None else np.asarray(copy.quanta.get(key[1], 0.0) * _STEP)
        its = stored.partner(key[1], value, room) if key[0] == "constant" else its_inputs.get(key[1])
        if its is not None and its.size == value.size and its.dtype.kind not in "OSUTb":
            same = its.astype(np.float64).reshape(-1)
            errors[key] = np.where(value == same, 0.0, np.subtract(value, same, where=value != same, out=np.zeros(value.shape)))
        elif key[0] == "constant" and room.any():
            errors[key] = np.broadcast_to(room, value.shape)
            guessed.add(key)
    errors = {key: error for key, error in errors.items() if error.any()}
    return Copy(copy, fed, evaluated, errors, frozenset(guessed), tick)


class _Stored:
    """The constants of the other model: the partner of a constant has its name, or alone is as near as its rounding."""

    def __init__(self, model: ir.Model) -> None:
        values = model.graph.initializers.values()
        self.arrays = {str(v.name): v.const_value.numpy() for v in values if v.const_value is not None}

    def partner(self, name: str, value: np.ndarray, room: np.ndarray) -> np.ndarray | None:
        """The array, or None."""
        named = self.arrays.get(name)
        if named is not None and named.size == value.size:
            return named
        alike = [x for x in self.arrays.values() if x.size == value.size and x.dtype.kind == "f"]
        near = [x for x in alike if (np.abs(x.reshape(-1).astype(np.float64) - value) <= room * _NEAR).all()]
        return near[0] if len(near) == 1 else None


def _both(pair: PortPair, side: int) -> tuple[Port | None, Port | None]:
    """The copy's port and the other model's."""
    return (pair.a, pair.b) if side == 0 else (pair.b, pair.a)


def _elements(copy: Program) -> int:
    return sum(copy.terms.size(result.cls) for step in copy.steps for result in step.results)
