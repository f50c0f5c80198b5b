"""What a blame found: its verdict and the record that carries one with its evidence."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_UNDECIDED, Displayed

SCHEMA = "graphcheck/blame/1"


class Guilt(enum.StrEnum):
    """What the dump of a device says of it.

    Attributes:
        CLEAN: Every tensor that was judged is within what rounding explains, given the device's own inputs to its operator.
        CONVICTED: A tensor is beyond it.
        UNDECIDED: No tensor could be judged, or a limit ended it before a fault was found.
    """

    CLEAN = "clean"
    CONVICTED = "convicted"
    UNDECIDED = "undecided"


_CODES = {Guilt.CLEAN: EXIT_OK, Guilt.CONVICTED: EXIT_DIFFERENT, Guilt.UNDECIDED: EXIT_UNDECIDED}


@dataclasses.dataclass(frozen=True)
class Blame(Displayed):
    """The result of ``blame``: a verdict, the sentence that explains it, and everything that was seen.

    Attributes:
        verdict: One of three.
        reason: One sentence; it names the first operator that is convicted.
        evidence: Plain data, as ``--json`` writes it: ``convicted`` and ``suspect`` (tensors beyond the bound, and between what
            is likely and the bound, in order of the graph), ``checked`` (how many were judged), ``skipped`` and ``unmatched``,
            ``precision``, ``curve`` (drift beside the local deviation), ``reduced``.
    """

    verdict: Guilt
    reason: str
    evidence: dict[str, Any] = dataclasses.field(repr=False)

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}"

    def exit_code(self) -> int:
        """0 if clean, 1 if convicted, 3 if nothing was judged, or a limit ended it first."""
        return _CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The plain data that ``--json`` writes and ``report`` reads."""
        return {"schema": SCHEMA, "verdict": str(self.verdict), "reason": self.reason, **self.evidence}
