"""Whether onnxruntime takes a model, found out in a process of its own."""

from __future__ import annotations

import onnx_ir as ir

from graphcheck.files import external
from graphcheck.runs.child import RemoteSession
from graphcheck.runs.session import RunError


def load_apart(model: ir.Model) -> str | None:
    """Why onnxruntime refuses the model, tried in a process of its own, so that a crash is a reason like any other."""
    try:
        with RemoteSession(external.serialized(model), optimizations="off", threads=1):
            return None
    except RunError as error:
        return error.cause[:300]
