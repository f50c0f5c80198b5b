"""Operators that other distributions teach: an entry point of ``graphcheck.ops``, whose name is their domain, is a mapping of
operators to meanings (with :class:`graphcheck.kernel.ops.rows.Op` to their rules of rows too). It is trusted like this folder,
and a proof that applies one says so. What graphcheck teaches itself cannot be taught from outside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphcheck import plugins
from graphcheck.errors import Undecided, UnknownFunction, UsageError
from graphcheck.kernel.ops import ml, nchwc, rows
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.ops.node import Node

GROUP = "graphcheck.ops"
_OWN = frozenset({"", "ai.onnx", "com.microsoft", ml.DOMAIN, nchwc.DOMAIN})


@dataclasses.dataclass(frozen=True, slots=True)
class Outside:
    """A meaning with its rule of rows and the distribution that both are from."""

    meaning: Callable[..., Any]
    rows: rows.Rule
    package: str

    def __call__(self, m: Algebra, node: Node, *inputs: Any) -> tuple[Any, ...]:
        """What it gives, and the assumption that this is right; raises :class:`Undecided` where it fails."""
        said = f"{node.domain}.{node.op_type} as taught by {self.package}"
        try:
            result = self.meaning(m, node, *inputs)
        except (Undecided, UnknownFunction, MemoryError):
            raise
        except Exception as error:  # of somebody else's code: whatever it raises
            raise Undecided(f"{said} failed ({type(error).__name__}: {str(error)[:200]})", node.name) from error
        results = result if isinstance(result, tuple) else (result,)
        if len(results) < node.n_outputs or not all(isinstance(x, (Tensor, np.ndarray)) for x in results):
            raise Undecided(f"{said} gives other than {node.n_outputs} tensors", node.name)
        m.assumptions.add(said)
        return results


@functools.cache
def taught(domain: str) -> Mapping[str, Outside]:
    """The operators of a domain that are taught from outside; raises UsageError where they cannot be loaded."""
    found: dict[str, Outside] = {}
    for package, _, ops in () if domain in _OWN else plugins.loaded(GROUP, "mapping of operators", ("items",), domain):
        if twice := found.keys() & ops.keys():
            raise UsageError(f"{package}: teaches {domain}.{min(twice)}, which {found[min(twice)].package} teaches too")
        found |= {name: Outside(op, getattr(op, "rows", rows.mixed), package) for name, op in ops.items()}
    return found
