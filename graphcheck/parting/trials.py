"""The inputs that a search for a witness tries: drawn, made for the pair, or given; within the ranges asked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphcheck.interface import inputs as inputs_
from graphcheck.interface.ports import Interface
from graphcheck.kernel.proof.pair import Pair

Trial = tuple[str, int | None, inputs_.Arrays]  # kind, seed, inputs by pair key

SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"integers": "wide"},
    {"scale": 100.0},
    {"scale": 10000.0},
    {"signs": "positive"},
    {"signs": "negative"},
    {"distribution": "one-hot"},
    {"distribution": "constant"},
    {"scale": 0.01},
    {"distribution": "extreme"},
)

_DRAWS = 256  # beyond them


class Drawing:
    """Draws inputs of ``pair``; integers that it was traced at stay as they are."""

    def __init__(self, interface: Interface, pair: Pair, seed: int, ranges: Mapping[str, tuple[float, float]]) -> None:
        self.interface, self.pair, self.seed = interface, pair, seed
        self.ranges = tuple((name, *bounds) for name, bounds in ranges.items())
        self.fixed = dict(pair.concrete)

    def drawn(self, options: Mapping[str, Any], further: int = 0) -> Trial:
        """An input by options of :class:`~graphcheck.interface.inputs.InputSpec`, with a seed that is so much ``further``."""
        seed = self.seed + further
        spec = inputs_.InputSpec(seed, ranges=self.ranges, **options)
        scale = f", scaled by {options['scale']:g}" if "scale" in options else ""
        scale += ", integers over their types' ranges" if "integers" in options else ""
        kind = f"all {options['signs']}" if "signs" in options else f"{options.get('distribution', 'normal')}{scale}"
        arrays = inputs_.generate(self.interface, self.pair.shapes, spec)
        return kind, seed, arrays | {k: v for k, v in self.fixed.items() if k in arrays}

    def rare(self, parts: Callable[[inputs_.Arrays], bool], over: Callable[[], bool]) -> Iterator[Trial]:
        """Draws that ``parts`` takes, as long as it is not ``over``: a gate that few inputs open is seen through at few."""
        for further in range(1, _DRAWS + 1):
            if over():
                return
            trial = self.drawn({}, further)
            if parts(trial[2]):
                yield trial

    def fitted(self, name: str, value: np.ndarray) -> np.ndarray:
        """A value within the ranges asked for."""
        if name in self.fixed:
            return self.fixed[name]
        bounds = {key: (low, high) for key, low, high in self.ranges}
        pair = next(p for p in self.interface.inputs if p.key == name)
        found = next((bounds[p.name] for p in pair.ports() if p.name in bounds), bounds.get(""))
        if found is None or value.dtype.kind == "b":
            return value
        whole = value.dtype.kind in "iu"
        low, high = (math.ceil(found[0]), math.floor(found[1])) if whole else found
        fitted: np.ndarray = np.clip(value, low, high).astype(value.dtype)
        return fitted


def unlike(trials: Iterator[Trial]) -> Iterator[Trial]:
    """Each input once: where integers are fixed or there are none, some trials are the same."""
    seen = set()
    for trial in trials:
        digest = hashlib.sha256(b"".join(np.ascontiguousarray(v).tobytes() for v in trial[2].values())).digest()
        if digest not in seen:
            seen.add(digest)
            yield trial
