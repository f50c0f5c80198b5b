"""graphcheck: are two ONNX models the same function, and can this patch embedding be one Conv (or one MatMul)?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphcheck.api import analyze, assert_equivalent, blame, compare, export, rewrite
    from graphcheck.errors import GraphcheckError, ModelError, UsageError
    from graphcheck.passes import PatchEmbedding
    from graphcheck.patches.site import Site
    from graphcheck.verdict import Comparison, Verdict

__version__ = "0.2.0"
# public name -> (module, its name there); nothing is imported before it is asked for
_PUBLIC = {
    "compare": ("api", "compare"),
    "analyze": ("api", "analyze"),
    "rewrite": ("api", "rewrite"),
    "blame": ("api", "blame"),
    "export": ("api", "export"),
    "assert_equivalent": ("api", "assert_equivalent"),
    "Comparison": ("verdict", "Comparison"),
    "Verdict": ("verdict", "Verdict"),
    "PatchEmbedding": ("passes", "PatchEmbedding"),
    "Site": ("patches.site", "Site"),
    "GraphcheckError": ("errors", "GraphcheckError"),
    "ModelError": ("errors", "ModelError"),
    "UsageError": ("errors", "UsageError"),
}
__all__ = [
    "Comparison",
    "GraphcheckError",
    "ModelError",
    "PatchEmbedding",
    "Site",
    "UsageError",
    "Verdict",
    "analyze",
    "assert_equivalent",
    "blame",
    "compare",
    "export",
    "rewrite",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'graphcheck' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    value = getattr(importlib.import_module(f"graphcheck.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
