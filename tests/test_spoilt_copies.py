"""Copies that are wrong in one thing, by tests/zoo/spoiling.py: none is accepted. benchmarks/spoilt_copies.py has all nets."""

from __future__ import annotations

import itertools

import onnx
import onnx.parser
import pytest

from graphcheck import compare
from graphcheck.verdict import Verdict
from tests.zoo.copying import KINDS, Net, to_float16
from tests.zoo.spoiling import STORED, Copied, spoilt

ACCEPTED = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "dynamic, per channel", "QOperator", "int4"])
def test_no_spoilt_copy_is_accepted(kind: str) -> None:
    copied = Copied.of(Net.of("mlp", "text"), kind)
    copies = {"right": copied.right} | {each.way: each.copy for each in itertools.islice(spoilt(copied), 9)}
    allow = [KINDS[kind].allow]
    found = {way: compare(copied.model, copy, allow=allow, run=False, graphs=False) for way, copy in copies.items()}
    assert [way for way, each in found.items() if each.verdict in ACCEPTED] == ["right"]
    assert len(found) == 10


NORMALIZED = """<ir_version: 9, opset_import: ["" : 17]> g (float[2, 2, 4] x) => (float[2, 2, 4] y)
    <float[2] one = {{1, 1}}, float[2] variances = {{1, {0}}}>
    {{ y = BatchNormalization <epsilon = 1e-5> (x, one, one, one, variances) }}"""


@pytest.mark.parametrize("variance", [1, 0.001])
def test_an_epsilon_that_the_stored_variances_do_not_see_is_none(variance: float) -> None:
    """A BatchNormalization whose variances it does not change in float16 is what folding makes, bit for bit."""
    model = onnx.parser.parse_model(NORMALIZED.format(variance))
    copied = Copied(Net("", "", model), "float16", model, to_float16(model, op_block_list=[]))
    assert (STORED["an epsilon lost"](copied, "an epsilon lost") is None) == (variance == 1)
