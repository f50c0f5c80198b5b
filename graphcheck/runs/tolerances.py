"""Watchers of runs: whether outputs keep within tolerances, and what is saved of the first run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from graphcheck.errors import UsageError
from graphcheck.interface.inputs import save_npz
from graphcheck.interface.ports import Interface, PortPair
from graphcheck.options import Options, by_output
from graphcheck.runs.numeric import Run
from graphcheck.runs.statistics import compare_arrays


class Tolerances:
    """Sees each run as it is made, and says which outputs kept within ``atol``, ``rtol`` and ``top_k`` in all of them.

    :class:`UsageError` for a tolerance of an output that neither side has.
    """

    def __init__(self, interface: Interface, options: Options) -> None:
        self.interface, self.top_k = interface, options.top_k
        self.atol, self.rtol = by_output(options.atol), by_output(options.rtol)
        self.rows: dict[str, dict[str, Any]] = {}
        known = {port.name for pair in interface.outputs for port in pair.ports()}
        for name, asked in (("--atol", self.atol), ("--rtol", self.rtol)):
            if unknown := [output for output in asked if output and output not in known]:
                raise UsageError(f"{name}: no output is named {unknown[0]!r}; there are {', '.join(sorted(known))}")

    def see(self, run: Run) -> None:
        """Judge one run."""
        for row in self._judged(run):
            known = self.rows.setdefault(row["output"], row)
            known["passed"] &= row["passed"]
            known["failing"] = max(known["failing"], row["failing"])
            known["ranked"] |= row["ranked"]

    def to_json(self) -> dict[str, Any]:
        """The ``tolerances`` key of the JSON. What was not run has not passed."""
        if self.top_k and self.rows and not any(row["ranked"] for row in self.rows.values()):
            raise UsageError(f"--top-k {self.top_k}: no output has rows of more than {self.top_k} numbers to rank")
        passed = bool(self.rows) and all(row["passed"] for row in self.rows.values())
        asked = {"atol": self.atol, "rtol": self.rtol, "top_k": self.top_k, "passed": passed}
        return asked | {"outputs": [{k: v for k, v in row.items() if k != "ranked"} for row in self.rows.values()]}

    def _judged(self, run: Run) -> Iterator[dict[str, Any]]:
        """One row for each output pair of a run; ``failing`` counts the elements outside the tolerances."""
        for pair in self.interface.outputs:
            a, b = run.a.outputs.get(pair.key), run.b.outputs.get(pair.key)
            if a is None or b is None or a.shape != b.shape:
                yield {"output": pair.key, "passed": False, "failing": 0 if a is None else int(a.size), "ranked": True}
                continue
            failing = self._failing(pair, a, b) if self.atol or self.rtol else 0
            top = (compare_arrays(a, b)["top_k"] or {}).get(str(self.top_k)) if self.top_k else 1.0
            passed = failing == 0 and top in (None, 1.0)
            yield {"output": pair.key, "passed": passed, "failing": failing, "ranked": top is not None}

    def _failing(self, pair: PortPair, a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int:
        """The elements that are farther apart than atol + rtol |a|; NaN meets NaN."""
        if a.dtype.kind in "OSUT":
            return int(np.count_nonzero(a != b))
        atol, rtol = _asked(self.atol, pair), _asked(self.rtol, pair)
        wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
        x, y = a.astype(wide), b.astype(wide)
        with np.errstate(invalid="ignore"):
            good = (np.abs(x - y) <= atol + rtol * np.abs(x)) | (x == y) | (np.isnan(x) & np.isnan(y))
        return int(np.count_nonzero(~good))


def _asked(tolerances: dict[str, float], pair: PortPair) -> float:
    """The tolerance of an output, by either side's name."""
    return next((tolerances[port.name] for port in pair.ports() if port.name in tolerances), tolerances.get("", 0.0))


class Saved:
    """Saves the inputs and outputs of the first run that it sees, where that was asked for."""

    def __init__(self, interface: Interface, options: Options) -> None:
        self.interface, self.options, self.done = interface, options, False

    def see(self, run: Run) -> None:
        """Save it, if it is the first."""
        if self.done:
            return
        self.done = True
        if self.options.save_inputs is not None:
            save_npz(self.options.save_inputs, run.inputs)
        if self.options.save_outputs is not None:
            named = {}
            for pair in self.interface.outputs:
                for side, port, outputs in (("a", pair.a, run.a.outputs), ("b", pair.b, run.b.outputs)):
                    if port is not None and pair.key in outputs:
                        named[f"{side}/{port.name}"] = outputs[pair.key]
            save_npz(self.options.save_outputs, named)
