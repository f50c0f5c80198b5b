"""Every case of the rewriter's tables and its rows: exports, quantized models, models in ONNX text, the grid."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

import onnx_ir as ir
import unpatch_table
from patch_table import cases as embeddings
from test_rewriting_movement import CASES as MOVEMENT
from test_rewriting_movement import REFUSED as OTHER_MOVEMENT
from test_rewriting_pointwise import ORDINARY, TO_CONV, TO_MATMUL
from test_rewriting_pointwise import REFUSED as NOT_POINTWISE

from tests.zoo import patch_exports, patch_grid, quantizing
from tests.zoo.patch_tables import KINDS, Row, row

CELLS = {case.name: case for case in patch_grid.cases()}
LARGE = {"text, un-embeddings: unetr": {"x": (1, 5, 2, 3, 2)}}  # what to prove at, where compare's own sizes take minutes


@functools.cache
def texts() -> dict[str, tuple[ir.Model, str, str]]:
    """name -> (model, kind, what is to be seen) of the models in ONNX text."""
    made: dict[str, tuple[ir.Model, str, str]] = {}

    def add(kind: str, name: str, model: ir.Model, seen: str) -> None:
        assert made.setdefault(f"text, {kind}: {name}", (model, kind, seen))[0] is model, f"two are called {name}"

    for name, (model, _, form, *_) in embeddings().items():
        add("embeddings", name, model, form)
    for name, (model, _, form, _, _, kernel, _) in unpatch_table.cases().items():
        add("un-embeddings", name, model, f"{form} {'x'.join(map(str, kernel))}/")
    for name, (model, reason, _) in unpatch_table.near_misses().items():
        add("un-embeddings", f"{name} (none)", model, reason)
    for form, table in (("matmul", TO_CONV), ("conv", TO_MATMUL)):
        for name, (model, _, _) in table.items():
            add("pointwise", f"{name}, {form}", model, form)
    for name, (model, reason) in NOT_POINTWISE.items():
        own = name == "groups"  # which are rewritten by their names
        add("pointwise", name if own else f"{name} (none)", model, "conv" if own else reason)
    for name, model in ORDINARY.items():
        add("ordinary", name, model, "conv 3x3")
    for name, (model, operators) in MOVEMENT.items():
        add("movement", name, model, f"reshape, {'depth-to-space' if 'DepthToSpace' in operators else 'space-to-depth'}")
    for name, (model, reason) in OTHER_MOVEMENT.items():
        add("movement", f"{name} (none)", model, reason)
    return made


def names(kinds: Collection[str] = tuple(KINDS)) -> Iterator[str]:
    """The cases that have rows of these kinds, those that take longest first."""
    yield from (case for case in patch_exports.cases() if "embeddings" in kinds or patch_exports.is_whole(case))
    yield from (f"QDQ: {name}" for name in quantizing.CASES if "embeddings" in kinds)
    yield from (name for name, (_, kind, _) in texts().items() if kind in kinds)
    yield from (CELLS if "embeddings" in kinds else ())


def rows(name: str, kinds: Collection[str] = tuple(KINDS)) -> list[Row]:
    """The rows of a case; raises ValueError where a cell of the grid is read as another one than was built."""
    if name in CELLS:
        made = patch_grid.make(CELLS[name])
        if (seen := patch_grid.geometries(made.model)) != [made.geometry]:
            raise ValueError(f"it is {made.geometry}, and is read as {seen}")
        return [row(name, made.model, expected="", shapes=made.shapes)]
    if name in texts():
        model, kind, words = texts()[name]
        return [row(name, model, kind, expected=words, shapes=LARGE.get(name))]
    if name.startswith("QDQ: "):
        return [row(name, ir.from_proto(quantizing.quantized(name.removeprefix("QDQ: "))), expected="")]
    model, whole = ir.from_proto(patch_exports.export(name)), patch_exports.is_whole(name)
    return [
        row(name, model, kind, expected=patch_exports.expected(name, kind))
        for kind in KINDS
        if kind in kinds and (whole or kind == "embeddings")
    ]
