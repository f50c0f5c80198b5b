"""Why a proof holds (``proof.steps``): each step joins what it says, for the reason that it gives."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from test_cases import CASES, read

from graphcheck.cli import main
from graphcheck.graphs.repeats import repetition
from graphcheck.kernel.ops import movement
from graphcheck.kernel.terms.rules import RULES, identities
from graphcheck.kernel.terms.store import Operand, Rule, Terms
from graphcheck.kernel.terms.verbs import Ew
from graphcheck.kernel.terms.why import Congruence, Window
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.compare import compare
from graphcheck.verdicts.steps import rule_text
from tests.zoo.oracle import in_float64

PROVED = [name for name in CASES if read(name)[0] <= {"proved", "within-rounding"}]
# onnx.reference errs on these, or does not know an operator: onnxruntime takes its place
DEPARTS = {
    "proved-slice-backwards-from-before", "proved-pools-as-one", "proved-nan-where-masked", "rounding-attention-scale",
    "proved-one-hot-is-a-gather",
}  # fmt: skip
Models = tuple[onnx.ModelProto, onnx.ModelProto]


def explained(a: onnx.ModelProto, b: onnx.ModelProto, **options: Any) -> Comparison:
    return compare(a, b, run=False, graphs=False, explain=True, **options)


def steps_of(result: Comparison) -> list[dict[str, Any]]:
    return [step for output in result.evidence["proof"]["steps"] for step in output["steps"]]


def first(result: Comparison) -> list[dict[str, Any]]:
    """The steps at the first sizes: those of others are told too, where the proof goes another way there."""
    outputs = result.evidence["proof"]["steps"]
    return [step for output in outputs if output["shapes"] == outputs[0]["shapes"] for step in output["steps"]]


# -- an independent reader of a chain: what is wrong with it, one phrase for each fault ---------------------------------


def faults(models: Models, proof: dict[str, Any], *, reference: bool = True) -> list[str]:
    """Both models are run with every tensor of a step as an output; what a reason says is looked up in the graphs."""
    found: list[str] = []
    shapes: Any = None
    known: set[int] = set()
    for output in proof["steps"]:
        if output["shapes"] != shapes:
            shapes, known = output["shapes"], set()
            values = _tensors(models, shapes, proof["steps"], reference)
        for step in output["steps"]:
            if not set(step["given"]) <= known:
                found.append(f"{step['number']}: rests on what was not shown")
            known.add(step["number"])
            found += [f"{step['number']}: {fault}" for fault in _faults(models, step, values, proof)]
        last = output["steps"][-1] if output["steps"] else None
        if last is not None and (last["a"]["tensor"], last["b"]["tensor"]) != (output["a"], output["b"]):
            found.append("the chain does not end at its output")
    return found


def _faults(models: Models, step: dict[str, Any], values: list[dict[str, np.ndarray]], proof: dict[str, Any]) -> list[str]:
    why, found = step["why"], []
    x, y = (held.get(step[side]["tensor"]) for side, held in zip("ab", values, strict=True))
    if x is not None and y is not None:
        x, y = x.astype(np.float64).reshape(-1), y.astype(np.float64).reshape(-1)
        if "another order" in why["text"]:
            x, y = np.sort(x), np.sort(y)
        both = np.isfinite(x) & np.isfinite(y) if x.size == y.size else np.zeros(1, bool)
        if x.size != y.size or not both.any() or not np.allclose(x[both], y[both], rtol=1e-5, atol=1e-5):
            found.append(f"{step['a']['tensor']} of A is not {step['b']['tensor']} of B")
    nodes = [_nodes(m, step["nodes"][side]) for side, m in zip("ab", models, strict=True)]
    ends = [_producer(m, step[side]["tensor"]) for side, m in zip("ab", models, strict=True)]
    if why["kind"] == "input" and ends != [None, None]:
        found.append("is no input")
    if why["kind"] == "congruence":
        one, two = ends
        if one is None or two is None or (one.op_type, one.domain) != (two.op_type, two.domain):
            found.append("is not the same operator")
        elif sorted(map(str, one.attribute)) != sorted(map(str, two.attribute)):
            found.append("has other attributes")
    if why["kind"] == "movement" and not all(n.op_type in movement.OPS for side in nodes for n in side):
        found.append("computes, and does not only move")
    if why["kind"] == "rules" and not (why["rules"] and all(map(rule_text, why["rules"]))):
        found.append("names no rule")
    if why["kind"] == "window":
        tiers = {(t["name"], len(t["primes"])) for t in proof["tiers"]}
        if not why["windows"] or any((w["tier"], w["primes"]) not in tiers for w in why["windows"]):
            found.append("names a window that the proof has not")
    if why["kind"] == "rounding":
        listed = [[c["a"], c["b"]] for c in proof["constants"]]
        if not why["constants"] or any(pair not in listed for pair in why["constants"]):
            found.append("names a constant that the proof has not")
    return found


def _tensors(
    models: Models, shapes: dict[str, list[int]], outputs: list[dict[str, Any]], reference: bool
) -> list[dict[str, np.ndarray]]:
    """Every tensor of a step that the main graph holds, on one random input: by onnx.reference in float64, or onnxruntime."""
    rng = np.random.default_rng(7)
    feeds: dict[str, np.ndarray] = {}
    for value in models[0].graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        drawn = rng.standard_normal(shapes[value.name]) if dtype.kind == "f" else rng.integers(0, 2, shapes[value.name])
        feeds[value.name] = np.asarray(drawn).astype(dtype)
    found = []
    if reference:
        feeds = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in feeds.items()}
    for side, model in zip("ab", models, strict=True):
        names = {step[side]["tensor"] for output in outputs for step in output["steps"]}
        held = {v.name: feeds[w.name] for v, w in zip(model.graph.input, models[0].graph.input, strict=True)}
        wanted = sorted(names & {name for n in model.graph.node for name in n.output})
        whole = in_float64(model) if reference else copy.deepcopy(model)
        del whole.graph.output[:]
        whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
        run = ReferenceEvaluator(whole).run if reference else ort.InferenceSession(whole.SerializeToString()).run
        found.append(held | dict(zip(wanted, run(None, held), strict=True)))
    return found


def _producer(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto | None:
    return next((n for n in model.graph.node if tensor in n.output), None)


def _nodes(model: onnx.ModelProto, names: list[str]) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.name in names or any(f"({o})" in name for o in n.output for name in names)]


# -- chains --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROVED)
def test_every_step_joins_what_it_says(name: str) -> None:
    _, a, b = read(name)
    for models in ((a, b), (b, a)):
        result = explained(*models)
        assert faults(models, result.evidence["proof"], reference=name not in DEPARTS) == []
        windows = {w["tier"] for step in steps_of(result) for w in step["why"].get("windows", ())}
        if result.verdict is Verdict.PROVED:  # every tier that merged anything is named where it did, and no other one
            assert windows == {t["name"] for t in result.evidence["proof"]["tiers"]}


PLANTED = [
    ("proved-key-bias", 2, {"kind": "input"}, "is no input"),
    ("proved-patches-are-a-conv", 2, {"kind": "congruence"}, "is not the same operator"),
    ("proved-patches-are-a-conv", 2, {"kind": "movement"}, "computes, and does not only move"),
    ("proved-patches-are-a-conv", 2, {"text": "the same contraction"}, "y of A is not c of B"),
    ("proved-relu-by-where", 2, {"rules": ["identities 99"]}, "names no rule"),
    ("proved-gelu-by-erf", 2, {"windows": [{"tier": "near", "primes": 8}]}, "names a window that the proof has not"),
    ("rounding-folded-scale", 2, {"constants": [["x", "y"]]}, "names a constant that the proof has not"),
]


@pytest.mark.parametrize(("name", "number", "why", "fault"), PLANTED)
def test_a_wrong_reason_is_found(name: str, number: int, why: dict[str, Any], fault: str) -> None:
    _, a, b = read(name)
    result = explained(a, b)
    (step,) = (s for s in first(result) if s["number"] == number)
    step["why"] |= why
    assert f"{number}: {fault}" in faults((a, b), result.evidence["proof"])


def test_a_wrong_pair_and_a_missing_step_are_found() -> None:
    _, a, b = read("proved-key-bias")
    proof = explained(a, b).evidence["proof"]
    (output, *_) = proof["steps"]
    output["steps"][2]["b"]["tensor"] = "u"
    assert "3: v0 of A is not u of B" in faults((a, b), proof)
    del output["steps"][0]
    assert "2: rests on what was not shown" in faults((a, b), proof)


def kinds(result: Comparison) -> list[tuple[str | None, str | None, str]]:
    return [(s["a"]["op_type"], s["b"]["op_type"], s["why"]["kind"]) for s in first(result)]


def test_a_window_stands_where_the_keys_stop_meeting() -> None:
    _, a, b = read("proved-key-bias")
    assert kinds(explained(a, b)) == [
        (None, None, "input"),
        ("MatMul", "MatMul", "congruence"),
        ("MatMul", "MatMul", "congruence"),
        ("Softmax", "Softmax", "window"),
        ("MatMul", "MatMul", "congruence"),
    ]


def test_a_patch_embedding_by_congruence_is_a_short_proof_without_window() -> None:
    _, a, b = read("proved-patches-are-a-conv")
    assert kinds(explained(a, b)) == [
        (None, None, "input"),
        ("MatMul", "Conv", "verbs"),
        ("MatMul", "Transpose", "movement"),
    ]


def test_operands_of_a_commutative_operator_may_be_swapped() -> None:
    text = '<ir_version: 10, opset_import: ["": 21]> net (float[2,3] x, float[2,3] z) => (float[2,3] y) { h = %s y = Tanh (h) }'
    a, b = (onnx.parser.parse_model(text % h) for h in ("Add (x, z)", "Add (z, x)"))
    assert kinds(explained(a, b))[2:] == [("Add", "Add", "congruence"), ("Tanh", "Tanh", "congruence")]


def test_steps_are_told_only_where_they_are_asked_for() -> None:
    _, a, b = read("proved-gelu-by-erf")
    assert compare(a, b, run=False, graphs=False).evidence["proof"]["steps"] is None
    assert compare(a, b, run=False).evidence["proof"]["steps"] == explained(a, b).evidence["proof"]["steps"]


# -- a wrong proof can be found ------------------------------------------------------------------------------------

ROOT = '<ir_version: 10, opset_import: ["": 21]> net (float[4] x) => (float[4] y) { %s y = Tanh (r) }'


def test_a_false_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sqrt(x x) is |x|; a rule that says x proves what is false, and the steps say by which rule."""
    a, b = (onnx.parser.parse_model(ROOT % body) for body in ("s = Mul (x, x) r = Sqrt (s)", "r = Identity (x)"))
    assert explained(a, b).verdict not in (Verdict.PROVED, Verdict.IDENTICAL)
    right = identities._of_one

    def false(terms: Terms, fn: str, view: Operand, size: int) -> tuple[int, int] | None:
        term = terms.terms[view[0]]
        if fn == "sqrt" and isinstance(term.verb, Ew) and term.verb.fn == "mul" and term.args[0] == term.args[1]:
            return 7, terms.find(term.args[0])
        return right(terms, fn, view, size)

    monkeypatch.setattr(identities, "_of_one", false)
    result = explained(a, b)
    assert result.verdict is Verdict.PROVED  # which is false
    (named,) = (step for step in steps_of(result) if step["why"]["rules"])
    assert named["why"]["rules"] == ["identities 7"]
    assert (named["a"]["tensor"], named["b"]["tensor"], named["nodes"]["a"]) == ("r", "x", ["Mul(s)", "Sqrt(r)"])
    assert "2: r of A is not x of B" in faults((a, b), result.evidence["proof"])


def test_every_rule_that_is_applied_has_a_sentence() -> None:
    applied = set()
    for name in PROVED:
        result = explained(*read(name)[1:])
        for output in result.evidence["proof"]["steps"]:
            applied |= set(output["rules"])
            assert all(output["rules"].values())
    assert {"identities 1", "identities 5", "extremes 4", "columns 1"} <= applied


# -- the store -----------------------------------------------------------------------------------------------------


def test_a_merge_keeps_its_reason_and_those_that_follow_from_it() -> None:
    terms = Terms(RULES)
    x, y, z = (terms.leaf((name,), 4) for name in "xyz")
    one, two = (terms.ew("add", [(operand, None), (z, None)], 4) for operand in (x, y))
    window = Window("near", 0, 24, -90.0)
    terms.merge(x, y, window)
    assert terms.joins == [(x, y, window), (one, two, Congruence(((x, y), (y, x))))]
    assert terms.find(one) == terms.find(two)


def test_what_was_asked_once_is_remembered_with_its_rules_until_a_merge() -> None:
    looks: list[str] = []

    def counted(rule: Rule) -> Rule:
        return dataclasses.replace(rule, find=lambda *args: looks.append(rule.name) or rule.find(*args))

    terms = Terms(dataclasses.replace(RULES, ew=tuple(map(counted, RULES.ew))))
    x, y, zero = terms.leaf(("x",), 4), terms.leaf(("y",), 4), terms.const(np.zeros(1))
    relu = terms.ew("max", [(x, None), (zero, None)], 4)
    applied, once = list(terms.applied), len(looks)
    assert applied == ["extremes 4"] and once
    assert terms.ew("max", [(x, None), (zero, None)], 4) == relu
    assert terms.applied == 2 * applied and len(looks) == once
    other = terms.ew("max", [(y, None), (zero, None)], 4)
    terms.merge(x, y, Window("near", 0, 24, -90.0))
    before = len(looks)
    assert terms.ew("max", [(y, None), (zero, None)], 4) == terms.find(relu) == terms.find(other)
    assert len(looks) > before, "what is known of an operand has changed"


def test_rules_are_noted_as_they_are_applied() -> None:
    terms = Terms(RULES)
    x = terms.leaf(("x",), 4)
    negative = terms.ew("mul", [(terms.const(np.array([-1.0])), None), (x, None)], 4)
    assert terms.applied == []
    terms.ew("exp", [(negative, None)], 4)
    assert terms.applied == ["identities 4"]


# -- on the terminal -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("xabcabcabc", (3, 3)),  # from the second entry on
        ("xabcabcab", (1, 1)),  # too little to be worth telling
        ("xaaaaaaaa", (4, 2)),
        ("xabcdabcdabcd", (4, 3)),
    ],
)
def test_repetition(kinds: str, expected: tuple[int, int]) -> None:
    assert repetition(kinds, 1, [1] * len(kinds)) == expected


def layers(count: int, relu: str) -> onnx.ModelProto:
    """Layers of MatMul, Tanh and a Relu that is told in two ways."""
    body, x = "", "x"
    for i in range(count):
        body += f"m{i} = MatMul ({x}, w) t{i} = Tanh (m{i}) " + relu.format(i=i)
        x = f"r{i}"
    head = '<ir_version: 10, opset_import: ["": 21]> net (float[N,2] x) => (float[N,2] y) <float[2,2] w = {0.3,0.7,-0.5,0.2}> '
    return onnx.parser.parse_model(head + "{ " + body + f"y = Identity ({x}) }}")


def test_compare_explain_folds_repeated_blocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zero = "z{i} = Constant <value = float[1] {{0.0}}> () r{i} = Max (t{i}, z{i}) "
    for name, relu in (("a", "r{i} = Relu (t{i}) "), ("b", zero)):
        (tmp_path / f"{name}.onnx").write_bytes(layers(4, relu).SerializeToString())
    assert main(["compare", str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx"), "--no-run", "--explain"]) == 0
    told = capsys.readouterr().out.split("assuming")[1].splitlines()[1:]
    assert told == [
        "  why y, at x=2×2:",
        "    1. x: the same input",
        "    2 to 13, 4 times the same, of which the first:",
        "      2 to 3. MatMul MatMul(m0) to Tanh Tanh(t0): 2 nodes, each the same operator on the same operands; from 1",
        "      4. Relu Relu(r0) of A, Max Max(r0) of B: the same elementwise expression by rules extremes 4; from 3",
        "    14. Identity Identity(y): the same operator on the same operands; from 13",
        "    extremes 4: Max(x, 0) = x * pos(x) = Relu(x), Max(-x, 0) = Relu(x) - x, Min(x, 0) = x - Relu(x)",
    ]
