"""The options of ``compare``: frozen, light to import, and the same for the kernel, the runs and the verdict."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The options of :func:`graphcheck.verdicts.compare.compare`, resolved."""

    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    inputs: str | os.PathLike[str] | None = None
    ignore_outputs: tuple[str, ...] = ()
    seed: int = 0
    run: bool = True
    numerics: str = "quick"
    error_probability: float = 1e-9
    timeout: float = 300.0
    reduce: str | os.PathLike[str] | None = None
    witness: str | os.PathLike[str] | None = None
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    threads: int = 0
    iterations: int = 1
    fail_fast: bool = False

    def range_rows(self) -> tuple[tuple[str, float, float], ...]:
        """The ranges as :class:`graphcheck.interface.inputs.InputSpec` wants them."""
        return tuple((name, *bounds) for name, bounds in self.ranges.items())
