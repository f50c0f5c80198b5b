"""The second rung: both graphs as they are written, with bit-equal constants."""

from __future__ import annotations

import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.graphs import structure
from graphcheck.kernel.proof.pair import weights
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``identical`` where the graphs are the same up to names, order and storage. All constants are looked at for it."""
    for model in case.models:
        model_.adopt(model, case.contents)
    looking = case.threads.submit(case.contents.ahead, [w for model in case.models for w in weights(model)])
    looking.result()  # an interrupt ends the wait, and then the thread
    model_.release(*case.models)
    if case.options.graphs:
        evidence.digests = tuple(case.threads.submit(_file_digest, model) for model in case.models)
    evidence.structure = structure.compare_structure(*case.models, case.contents)
    if evidence.structure.identical and not case.interface.mismatches:
        return Verdict.IDENTICAL, "the same graph up to names, order and storage, with bit-equal constants"
    return None


def _file_digest(model: ir.Model) -> str | None:
    path = model_.path_of(model)
    return None if path is None else model_.file_digest(path)
