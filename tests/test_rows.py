"""The type of rows: each rule beside onnxruntime at several sizes of a batch, each with a near miss, and sizes as numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import rows_support as support
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphcheck
from graphcheck.errors import Undecided
from graphcheck.kernel.ops import forms, nchwc, rows
from graphcheck.kernel.ops.table import TAUGHT

HEADER = '<ir_version: 10, opset_import: ["": {}, "com.microsoft": 1, "ai.onnx.ml": {}, "com.microsoft.nchwc": 1]>\n'


@dataclasses.dataclass(frozen=True)
class Case:
    """A line of rows.txt."""

    line: int
    op: str
    proto: onnx.ModelProto
    types: tuple[str, ...]

    @property
    def typed(self) -> bool:
        return set(self.types) != {"mixed"}


def read() -> list[Case]:
    found = []
    for number, line in enumerate(Path(__file__).with_name("rows.txt").read_text().splitlines(), 1):
        if not line or line[0] == "#":
            continue
        name, inputs, constants, nodes, types = (part.strip() for part in line.split("|"))
        op, _, version = name.partition("@")
        body = "\n".join(nodes.split(";")) if "{" not in nodes else nodes.replace(";", "\n")
        header = HEADER.format(version or 18, 5 if op == "TreeEnsemble" else 3)
        stored = f"<{constants}>" if constants else ""
        proto = onnx.parser.parse_model(f"{header}g ({inputs}) => () {stored} {{ {body} }}")
        made = {o for node in proto.graph.node for o in node.output}
        proto.graph.output.extend(onnx.ValueInfoProto(name=y) for y in ("y", "y1", "y2") if y in made)
        found.append(Case(number, op, proto, tuple(t.strip() for t in types.split(","))))
    return found


CASES = read()


@pytest.mark.parametrize("case", CASES, ids=[f"{c.line}-{c.op}" for c in CASES])
def test_the_type_is_what_runs_show(case: Case) -> None:
    """The types are the same, whatever the size of the trace, and no run contradicts one."""
    if nchwc.machine_block() is None and any(node.domain == nchwc.DOMAIN for node in case.proto.graph.node):
        pytest.skip("onnxruntime has no blocks of channels on this kind of machine")
    said = support.typed(case.proto, 2).outputs
    assert tuple(map(support.text, said)) == case.types
    if case.typed:
        for n in (1, 3, 5):
            assert [support.text(kind) for kind in support.typed(case.proto, n).outputs] == list(case.types), n
        assert support.broken(case.proto, said) is None


@pytest.mark.parametrize("case", [c for c in CASES if c.typed], ids=[f"{c.line}-{c.op}" for c in CASES if c.typed])
def test_the_type_is_what_the_meaning_shows(case: Case) -> None:
    """The kernel's own meaning, in float64, without onnxruntime: of a few rows in any order, at every size from 1 to 9."""
    said = support.typed(case.proto, 2).outputs
    assert support.broken(case.proto, said, units=1e-9, by=support.in_float64, few=3) is None


@pytest.mark.parametrize("by", [support.in_onnxruntime, support.in_float64])
def test_a_false_type_is_seen(by: Any) -> None:
    head = HEADER.format(18, 3) + "g (float[N,3] x) => (float[p,q] y) "
    for text, kind in (
        ("{ y = Softmax <axis = 0> (x) }", rows.Rows(0)),
        ("{ y = Transpose (x) }", rows.Rows(0)),
        ("{ y = Relu (x) }", rows.FIXED),
        ("<float[2,1] k = {1, 1}> { y = Mul (x, k) }", rows.Rows(0)),
    ):
        assert support.broken(onnx.parser.parse_model(head + text), [kind], by=by, few=3), text
    assert support.broken(onnx.parser.parse_model(head + "{ y = Transpose (x) }"), [rows.Rows(1)], by=by, few=3) is None


def test_most_meanings_have_a_value_in_float64() -> None:
    """So that the test by them shows something: what is left are unknown functions, such as a cast to integers."""
    valued = 0
    for case in (typed := [c for c in CASES if c.typed]):
        names = [y.name for y in case.proto.graph.output]
        feeds = support.chosen(case.proto, support.draw(case.proto, support.POOL, 0), [0, 1])
        try:
            valued += all(y is not None for y in support.in_float64(case.proto)(names, feeds))
        except Undecided:
            continue
    assert valued > 0.8 * len(typed)


def rules() -> dict[tuple[str, str], rows.Rule]:
    """Operators with a rule that can type something."""
    found = {key: op.rows for key, op in TAUGHT.items() if getattr(op, "rows", rows.mixed) is not rows.mixed}  # type: ignore[attr-defined]
    return found | {("", name): rule for name, rule in rows.UNTOLD.items() if ("", name) not in TAUGHT}


def test_each_operator_with_a_rule_has_a_case_and_each_rule_a_near_miss() -> None:
    shown = {(n.domain, n.op_type) for case in CASES if case.typed for n in case.proto.graph.node}
    missed = {(n.domain, n.op_type) for case in CASES if not case.typed for n in case.proto.graph.node if n.op_type == case.op}
    assert sorted(rules().keys() - shown) == []
    assert {rule for key, rule in rules().items()} - {rules()[key] for key in missed if key in rules()} == set()


@dataclasses.dataclass(frozen=True)
class Trap:
    """A line of traps.txt."""

    name: str
    a: onnx.ModelProto
    b: onnx.ModelProto
    different: bool


def parsed(inputs: str, constants: str, nodes: str) -> onnx.ModelProto:
    stored, body = f"<{constants}>" if constants else "", nodes.replace(";", "\n")
    return onnx.parser.parse_model(f"{HEADER.format(18, 3)}g ({inputs}) => (float[p,q] y) {stored} {{ {body} }}")


def traps() -> list[Trap]:
    found = []
    for line in Path(__file__).with_name("traps.txt").read_text().splitlines():
        if line and line[0] != "#":
            name, inputs, constants, a, b, how = (part.strip() for part in line.split("|"))
            found.append(Trap(name, *(parsed(inputs, constants, nodes) for nodes in (a, b)), how == "different"))
    return found


@pytest.mark.parametrize("trap", traps(), ids=lambda trap: trap.name)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_what_is_equal_at_few_sizes_is_not_proved_at_every_one(trap: Trap, turned: bool) -> None:
    pair = (trap.b, trap.a) if turned else (trap.a, trap.b)
    found = graphcheck.compare(*pair, run=False, graphs=False)
    proof = found.to_json()["proof"]
    if trap.different:
        assert found.verdict == "different"
    else:
        assert proof is None or not proof.get("every"), found.reason


def test_the_traps_are_traps() -> None:
    """In onnxruntime, each pair agrees at batch 2, and not at some other one."""
    off = []
    for trap in traps():
        sessions = [support.session(proto) for proto in (trap.a, trap.b)]
        apart = set()
        for n in (2, *range(1, 13), 64, 300):
            feeds = support.draw(trap.a, n, 1)
            got = []
            for session in sessions:
                try:
                    (y,) = session.run(None, feeds)
                    got.append(y)
                except Exception as error:  # whatever onnxruntime raises
                    got.append(np.zeros(0) if "INVALID" in str(error) or "FAIL" in str(error) else str(error))
            if got[0].shape != got[1].shape or not np.allclose(*got, rtol=1e-3, equal_nan=False):
                apart.add(n)
        if 2 in apart or not apart:
            off.append((trap.name, sorted(apart)))
    assert off == []


TWO = """g (float[N,M] x) => (float[N,M] y) <int64[1] two = {2}, int64[1] zero = {0}> {
  p = Shape <start = 0, end = 1> (x) q = Shape <start = 1, end = 2> (x)
  c = Sub (p, two) d = Sub (q, two) e = Mul (c, d) f = Equal (e, zero)
  y = If (f) <then_branch = t () => (float[a,b] u) { u = Neg (x) }, else_branch = e () => (float[a,b] v) { v = Identity (x) }>
}"""


def test_what_is_true_beside_one_size_of_another_symbol_is_not_true_of_both() -> None:
    """(N - 2) (M - 2) is 0 for every N beside M = 2, and for every M beside N = 2."""
    plain = "g (float[N,M] x) => (float[N,M] y) { y = Neg (x) }"
    a, b = (onnx.parser.parse_model(HEADER.format(18, 3) + text) for text in (TWO, plain))
    found = graphcheck.compare(a, b, run=False, graphs=False)
    assert found.verdict != "proved" or len(found.to_json()["proof"]["every"]) < 2


def test_a_name_that_two_dims_have_stands_for_neither() -> None:
    """N is x's batch in A and z's in B: a claim for N of z left x at a batch of 2, where A does something else from 5 on."""
    a = """g (float[N,3] x, float[?,3] z) => (float[N,3] y, float[?,3] w) <int64[1] k = {4}> {
      w = Neg (z) d = Shape <end = 1> (x) c = LessOrEqual (d, k)
      y = If (c) <then_branch = t () => (float[a,b] u) { u = Neg (x) }, else_branch = e () => (float[a,b] v) { v = Abs (x) }>
    }"""
    b = "g (float[K,3] x, float[N,3] z) => (float[K,3] y, float[N,3] w) { w = Neg (z) y = Neg (x) }"
    found = graphcheck.compare(*(onnx.parser.parse_model(HEADER.format(18, 3) + g) for g in (a, b)), run=False, graphs=False)
    assert found.verdict == "different", found.reason


@pytest.mark.parametrize(
    ("inputs", "constants", "nodes"),
    [
        ("float[N,3] x", "int64[1] k = {4611686018427387904}", "d = Shape <end = 1> (x); p = Mul (d, k); s = Mul (p, k)"),
        ("float[N,1] x", "int64[1] k = {1}", "q = Squeeze (x); d = Shape <start = 1> (q); s = ReduceSum (d)"),
    ],
    ids=["larger than the type", "a sum of nothing"],
)
def test_sizes_that_are_no_numbers_stop_no_trace(inputs: str, constants: str, nodes: str) -> None:
    a, b = (parsed(inputs, constants, f"{nodes}; e1 = Cast <to = 1> (s); y = {op}") for op in ("Add (x, e1)", "Add (e1, x)"))
    assert graphcheck.compare(a, b, run=False, graphs=False, partners=False).verdict in ("proved", "identical")


LAST = 40
_PAIR = ["Add", "Sub", "Mul", "Div", "Mod", "Min", "Max"]
_TEST = ["Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal"]


@st.composite
def arithmetic(draw: st.DrawFn) -> onnx.ModelProto:
    """Arithmetic on the size N of an input; the last few numbers are the outputs."""
    constants: list[str] = []
    made, nodes = ["d"], ["d = Shape <end = 1> (x)"]

    def constant() -> str:
        value = draw(st.sampled_from([1, 2, 3, 4, 7, 12, -1, -3, 0]))
        constants.append(f"int64[1] c{len(constants)} = {{{value}}}")
        return f"c{len(constants) - 1}"

    def put(text: str) -> str:
        made.append(f"t{len(nodes)}")
        nodes.append(f"{made[-1]} = {text}")
        return made[-1]

    for _ in range(draw(st.integers(2, 6))):
        p = draw(st.sampled_from(made[-3:]))
        q = constant() if draw(st.booleans()) else draw(st.sampled_from(made))
        step = draw(st.sampled_from([*_PAIR, *_PAIR, *_TEST, "Where", "Clip", "Float", "Abs", "Neg", "Vector", "Narrow", "Fmod"]))
        if step in _TEST:
            nodes.append(f"b{len(nodes)} = {step} ({p}, {q})")
            put(f"Cast <to = 7> (b{len(nodes) - 1})")
        elif step == "Where":
            nodes.append(f"b{len(nodes)} = Less ({p}, {q})")
            put(f"Where (b{len(nodes) - 1}, {p}, {constant()})")
        elif step == "Clip":
            nodes.append(f"s{len(nodes)} = Squeeze ({constant()})")
            put(f"Clip ({p}, s{len(nodes) - 1})")
        elif step == "Float":
            nodes.append(f"f{len(nodes)} = Cast <to = 1> ({p})")
            nodes.append(f"g{len(nodes)} = Cast <to = 1> ({constant()})")
            nodes.append(f"h{len(nodes)} = {draw(st.sampled_from(['Mul', 'Div']))} (f{len(nodes) - 2}, g{len(nodes) - 1})")
            nodes.append(f"k{len(nodes)} = {draw(st.sampled_from(['Floor', 'Ceil', 'Identity', 'Abs']))} (h{len(nodes) - 1})")
            put(f"Cast <to = 7> (k{len(nodes) - 1})")
        elif step == "Vector":
            nodes.append(f"v{len(nodes)} = Concat <axis = 0> ({p}, {q}, {constant()})")
            put(f"{draw(st.sampled_from(['ReduceProd', 'ReduceSum', 'ReduceMax', 'ReduceMin']))} (v{len(nodes) - 1})")
        elif step == "Narrow":
            nodes.append(f"n{len(nodes)} = Cast <to = {draw(st.sampled_from([2, 3, 6]))}> ({p})")
            put(f"Cast <to = 7> (n{len(nodes) - 1})")
        elif step == "Fmod":
            put(f"Mod <fmod = 1> ({p}, {q})")
        else:
            put(f"{step} ({p})" if step in ("Abs", "Neg") else f"{step} ({p}, {q})")
    stored, body = ", ".join(constants), "\n".join(nodes)
    text = f"g (float[N,3] x) => () {f'<{stored}>' if stored else ''} {{ {body} }}"
    proto = onnx.parser.parse_model(HEADER.format(18, 3) + text)
    proto.graph.output.extend(onnx.ValueInfoProto(name=y) for y in made)
    return proto


def at(proto: onnx.ModelProto, n: int) -> Any:
    """What onnx.reference gives, output by output; None where a division by zero, or what comes of one, leaves nothing."""
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="raise"):
        try:
            return [int(y.reshape(-1)[0]) for y in ReferenceEvaluator(proto).run(None, {"x": np.zeros((n, 3), np.float32)})]
        except (FloatingPointError, ZeroDivisionError):
            return None


@settings(max_examples=60, deadline=None)
@given(arithmetic(), st.sampled_from([1, 2, 3, 8]))
def test_what_is_sure_of_a_size_is_so_at_every_size_and_breakpoints_have_the_rest(proto: onnx.ModelProto, n: int) -> None:
    """A form that is sure is the value at 1 to 40. Walking on from the breakpoints, each value at a size that was not visited
    is that of the form at the next visited size below or above."""
    values = {size: at(proto, size) for size in range(1, LAST + 1)}
    assume(all(v is not None for v in values.values()))
    seen: dict[int, Any] = {}
    waiting = [n]
    while waiting:
        size = waiting.pop()
        found = support.typed(proto, size)
        seen[size] = found.outputs
        waiting += [b for b in found.breaks if b <= LAST and b not in seen and b not in waiting]
    for i, name in enumerate(v.name for v in proto.graph.output):
        kinds = {size: outputs[i] for size, outputs in seen.items()}
        if not all(isinstance(kind, forms.Sized) or rows.is_fixed(kind) for kind in kinds.values()):
            continue
        told = {size: k.forms()[0] if isinstance(k, forms.Sized) else (values[size][i], 0) for size, k in kinds.items()}
        for size, (a, b) in told.items():
            if getattr(kinds[size], "sure", True):
                assert all(a + b * k == values[k][i] for k in values), (name, size, a, b)
        for k in values:
            near = [max((s for s in told if s <= k), default=None), min((s for s in told if s >= k), default=None)]
            predicted = [told[s][0] + told[s][1] * k for s in near if s is not None]
            assert values[k][i] in predicted, (name, k, values[k][i], {s: told[s] for s in near if s is not None})


def test_the_depth_of_an_index_is_no_row() -> None:
    """All axes of the indices as batch axes: onnxruntime takes it at N = 1, and the last axis, N, is how deep they go."""
    graph = "(float[N,3] x, int64[N] i) => (float[k] y) { y = GatherND <batch_dims = 1> (x, i) }"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> g {graph}')
    assert support.text(support.typed(model, 1).outputs[0]) == "mixed"
