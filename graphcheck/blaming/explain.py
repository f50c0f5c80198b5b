"""Which known mistake a convicted operator looks like."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from graphcheck.blaming.arithmetic import Arithmetic
from graphcheck.blaming.judge import Judged, Walk
from graphcheck.blaming.steps import Cut


def explained(model: ir.Model, steps: Cut, walk: Walk, row: Judged, arithmetic: Arithmetic) -> dict[str, Any] | None:
    """The mistake that explains the dump within rounding."""
    return None
