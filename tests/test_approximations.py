"""A known approximation is named where the edited model is proved to be the other one, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from graphcheck.verdict import Verdict
from graphcheck.verdicts import approximations
from graphcheck.verdicts.compare import compare

HEAD = """<ir_version: 8, opset_import: ["" : 20, "com.microsoft": 1]> g (float[N,4] x) => (float[N,4] y)
<float[1] w = {1}, float half = {0.5}, float one = {1.0}> """
FORMS = {
    "erf": "root = Constant <value_float = 1.4142135> () d = Div (p, root) e = Erf (d) f = Add (e, one) t = Mul (p, f)"
    " y = Mul (t, half)",
    "gelu": "y = Gelu (p)",
    "gelu tanh": 'y = Gelu <approximate = "tanh"> (p)',
    "FastGelu": "y = com.microsoft.FastGelu (p)",
    "QuickGelu": "y = com.microsoft.QuickGelu <alpha = 1.702> (p)",
    "tanh": "p2 = Mul (p, p) p3 = Mul (p2, p) k = Constant <value_float = 0.044715> () q = Mul (p3, k) r = Add (p, q)"
    " c = Constant <value_float = 0.7978845608> () s = Mul (r, c) e = Tanh (s) f = Add (e, one) t = Mul (p, f) y = Mul (t, half)",
    "sigmoid": "y = Sigmoid (p)",
    "hard": "y = HardSigmoid <alpha = 0.16666667, beta = 0.5> (p)",
    "harder": "y = HardSigmoid <alpha = 0.25, beta = 0.5> (p)",
}
SAID = [
    ("erf", "FastGelu", "a", "Gelu by tanh"),
    ("erf", "tanh", "a", "Gelu by tanh"),
    ("tanh", "gelu", "b", "Gelu by tanh"),
    ("gelu tanh", "erf", "a", "Gelu by erf"),
    ("gelu", "QuickGelu", "a", "Gelu by a sigmoid"),
    ("sigmoid", "hard", "a", "a HardSigmoid"),
]


def net(form: str, scale: float = 1.0) -> onnx.ModelProto:
    """A MatMul and one of the forms."""
    model = onnx.parser.parse_model(f"{HEAD} {{ p = MatMul (x, w) {FORMS[form]} }}")
    weight = (np.random.default_rng(0).standard_normal((4, 4)) * scale).astype(np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    return model


@pytest.mark.parametrize(("a", "b", "side", "name"), SAID)
def test_a_known_approximation_is_named(a: str, b: str, side: str, name: str) -> None:
    result = compare(net(a), net(b), graphs=False, run=False)
    assert result.verdict is Verdict.DIFFERENT  # which it stays
    found = result.evidence["approximation"]
    assert (found["side"], found["name"], found["nodes"]) == (side, name, 1)
    assert found["verdict"] in ("identical", "proved", "within-rounding")
    other = {"a": "B", "b": "A"}[side]
    said = f"with {name} at 1 node {side.upper()} is the same function as {other} ({found['verdict']})"
    assert result.reason.endswith(f"; a known approximation separates them: {said}")


@pytest.mark.parametrize(("a", "b", "scale"), [("erf", "FastGelu", 1.0009), ("sigmoid", "harder", 1.0), ("gelu", "sigmoid", 1.0)])
def test_what_no_proof_shows_is_not_named(a: str, b: str, scale: float) -> None:
    """A weight that differs besides, another slope, another function."""
    result = compare(net(a), net(b, scale), graphs=False, run=False)
    assert result.verdict is Verdict.DIFFERENT and result.evidence["approximation"] is None
    assert "approximation" not in result.reason


def test_nothing_is_tried_where_the_other_model_has_no_sign_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximations, "edits_of", lambda *_: pytest.fail("an edit was made"))
    for a, b in ((net("erf"), net("erf", 1.5)), (net("erf"), net("hard")), (net("gelu"), net("gelu"))):
        assert compare(a, b, graphs=False, run=False).evidence["approximation"] is None


def test_it_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximations, "_LEAST", 0.0)
    monkeypatch.setattr(approximations, "_MOST", 0.0)
    assert compare(net("gelu"), net("FastGelu"), graphs=False, run=False).evidence["approximation"] is None
