"""A copy may be A as well as B, and a format that it is in without being allowed is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphcheck.verdict import Verdict
from tests.test_precision import CONSTANTS as HALF
from tests.test_precision import copied, network
from tests.test_quantized_copies import ACCEPTED, CONSTANTS, QDQ, compared, pair, put, small, stored

KINDS = ("dynamic", "QDQ", "QDQ, per channel", "QOperator")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", ["mlp", "relu6"])
def test_a_right_copy_is_accepted_as_a(net: str, kind: str) -> None:
    """Also where a Relu or a Clip went into the range of a quantizer."""
    plain, copy = pair(net, kind)
    found = compared(copy, plain, "int8")
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    assert found.evidence["precision"]["side"] == "a"


@pytest.mark.parametrize("kind", ["dynamic", "QDQ"])
@pytest.mark.parametrize("damage", CONSTANTS)
def test_a_spoilt_constant_of_a_is_named(kind: str, damage: str) -> None:
    plain, copy = pair("mlp", kind)
    spoilt = onnx.ModelProto.FromString(copy.SerializeToString())
    name, change = CONSTANTS[damage]
    put(spoilt, name, change(stored(spoilt, name)))
    found = compared(spoilt, plain, "int8")
    assert found.verdict not in ACCEPTED and "w1_quantized" in [row["a"] for row in found.evidence["precision"]["off"]]
    assert "'w1_quantized' at" in found.reason


@pytest.mark.parametrize("top", [6.0, 5.0])
def test_a_clip_that_went_into_a_range_of_a_is_one_up_to_its_end(top: float) -> None:
    """A Clip that ends within the range is not."""
    copy = small(QDQ.format("x", "s", "z", "Neg (d)"), s=6 / 255, z=np.uint8(0))
    plain = small("c = Clip (x, l, u) y = Neg (c)", l=0.0, u=top)
    verdicts = [compared(*each, "int8").verdict in ACCEPTED for each in ((plain, copy), (copy, plain))]
    assert verdicts == [top == 6.0] * 2


def test_the_node_that_the_plain_model_does_not_have_is_one_of_the_copy() -> None:
    plain = small("h = Neg (x) y = Exp (h)")
    copy = small(QDQ.format("x", "s", "z", "Sin (d)"), s=1 / 127, z=np.uint8(128))
    for models, other in (((plain, copy), "A"), ((copy, plain), "B")):
        found = compared(*models, "int8")
        lost = {"node": "Exp(y)", "op_type": "Exp", "begins": "Neg(h)"}
        assert found.evidence["precision"]["parts"] == {"node": "Sin(y)", "op_type": "Sin", "lost": lost}
        assert f"the first node that {other} does not have is 'Sin(y)'" in found.reason


@pytest.mark.parametrize("allow", ["bfloat16", "int8", "ulps=4"])
def test_a_format_that_is_not_allowed_is_named(allow: str) -> None:
    plain, copy = network(HALF), network(copied("float16"), "float16", "float")
    for models, side in (((plain, copy), "B"), ((copy, plain), "A")):
        found = compared(*models, allow)
        assert found.verdict not in ACCEPTED and found.evidence["precision"]["unnamed"] == ["float16"]
        assert f"{side} seems to be in float16, which --allow does not name" in found.reason
        assert compared(*models, "float16").verdict is Verdict.WITHIN_ROUNDING
        assert "seems" not in compared(*models, "float16").reason


def test_an_int8_copy_is_named_where_int4_is_allowed() -> None:
    assert "B seems to be in int8, which --allow does not name" in compared(*pair("mlp", "QDQ"), "int4").reason
