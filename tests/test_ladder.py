"""The ladder is a list: its names are those of the evidence, the timings and the page; and each fact is set once."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from graphcheck.errors import Exhausted, Undecided
from graphcheck.kernel.proof.allowed import Allowed
from graphcheck.kernel.proof.prover import Prover
from graphcheck.kernel.proof.rounding import Substitution
from graphcheck.options import Options
from graphcheck.parting.witness import Search
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts import judge as judge_
from graphcheck.verdicts.case import Case, opened
from graphcheck.verdicts.compare import compare
from graphcheck.verdicts.evidence import BESIDES, Evidence, Judged
from graphcheck.verdicts.executions import Executions
from graphcheck.verdicts.ladder import LADDER, Rung, climb
from graphcheck.verdicts.rungs import rounding

DOCS = Path(__file__).parent.parent / "docs"
NAMES = tuple(rung.name for rung in LADDER)
HEAD = '<ir_version: 10, opset_import: ["" : 21]> g (float[N,4] x) => (float[N,4] y)'
RELU = "y = Relu(x)"
MAX = "z = Constant<value_float = 0.0>() y = Max(x, z)"
# A pair that no rung but the last comes to a verdict on: a Softmax is positive, which the proof does not know.
ALL: dict[str, Any] = {"run": False, "graphs": False, "allow": ["ulps=1"]}  # no rung is left out
SOFT, SOFT_RELU = "y = Softmax<axis = -1>(x)", "s = Softmax<axis = -1>(x) y = Relu(s)"


def model(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{HEAD} {{ {body} }}")


def named_on_page(text: str) -> tuple[str, ...]:
    """The rungs of the table in the explanation."""
    section = text.partition("## The order")[2].partition("\n## ")[0]
    return tuple(re.findall(r"^\| `(\w+)` \|", section, re.M))


def climbed(a: str, b: str, ladder: tuple[Rung, ...] = LADDER, **options: Any) -> tuple[Judged, Evidence, list[str]]:
    """The verdict of a ladder, the evidence and what was said on the way."""
    said: list[str] = []
    with opened(model(a), model(b), Options(graphs=False, progress=said.append, **options)) as case:
        evidence = Evidence(Executions(case.sources, case.models, case.interface, case.options, case.given))
        return climb(case, evidence, ladder), evidence, said


def test_the_rungs_of_the_page_are_those_of_the_ladder() -> None:
    page = (DOCS / "explanation.md").read_text()
    assert named_on_page(page) == NAMES and len(set(NAMES)) == len(NAMES)
    without = "".join(line for line in page.splitlines(keepends=True) if not line.startswith("| `witness` |"))
    assert named_on_page(without) != NAMES  # a rung that is missing there is seen


def test_timings_are_those_of_the_rungs_that_were_climbed() -> None:
    timings = compare(model(SOFT), model(SOFT_RELU), **ALL).evidence["timings"]
    assert [key for key in timings if key not in BESIDES] == list(NAMES)
    first = compare(model(RELU), model(RELU), numerics="full", threads=1).evidence["timings"]
    assert [key for key in first if key not in BESIDES] == ["interface", "structure"]
    assert {"read", "onnxruntime", "waiting", "curve", "total"} == set(first) - set(NAMES)
    (row,) = re.findall(r"^\| `timings` \| seconds by \[rung\].*$", (DOCS / "reference" / "json.md").read_text(), re.M)
    assert all(f"`{key}`" in row for key in BESIDES)


def test_every_rung_has_a_field_and_sets_no_other() -> None:
    assert set(NAMES) <= set(Evidence.__annotations__)
    fields: list[tuple[str, set[str]]] = []

    def watched(rung: Rung) -> Rung:
        def look(case: Case, evidence: Evidence) -> Judged | None:
            before = set(vars(evidence))
            judged = rung.look(case, evidence)
            fields.append((rung.name, set(vars(evidence)) - before))
            return judged

        return Rung(rung.name, rung.words, look, rung.unless)

    climbed(SOFT, SOFT_RELU, tuple(map(watched, LADDER)), run=False, allow=ALL["allow"])
    alone = {"inputs": set()}  # the graphs do not agree at the first sizes
    assert fields == [(name, alone.get(name, {name})) for name in NAMES]


def test_a_field_is_set_once() -> None:
    _, evidence, _ = climbed(RELU, MAX, run=False)
    assert evidence.congruence
    with pytest.raises(AttributeError, match="'congruence' is known already: each field of the evidence is set once"):
        evidence.congruence = ()
    with pytest.raises(AttributeError, match="evidence has no field 'novelty'"):
        evidence.novelty = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="'structure' is known already"):  # as a rung that is climbed twice would be
        climbed(RELU, MAX, (*LADDER[:2], LADDER[1], *LADDER[2:]), run=False)


def test_a_new_rung_is_one_entry() -> None:
    def look(case: Case, evidence: Evidence) -> Judged | None:
        case.say("at it")
        return Verdict.UNDECIDED, "seen"

    novel = Rung("novel", "looking closely", look)
    judged, evidence, said = climbed(SOFT, SOFT_RELU, (*LADDER[:2], novel, *LADDER[2:]), run=False)
    assert judged == (Verdict.UNDECIDED, "seen") and said[-2:] == ["looking closely", "looking closely at it"]
    assert list(evidence.timings) == ["interface", "structure", "novel"]


def test_breakpoints_are_looked_at_where_a_proof_ended_there() -> None:
    """What only a later rung proves at batch 2 is open at batch 5, where no rung has looked for an input."""
    asks = "n = Shape<end = 1>(x) k = Constant<value_ints = [4]>() few = LessOrEqual(n, k) f = Cast<to = 1>(few) y = Mul(x, f)"
    names = ("interface", "structure", "congruence", "breakpoints")
    ladder = tuple(rung for rung in LADDER if rung.name in names)
    judged, evidence, _ = climbed("y = Identity(x)", asks, ladder, run=False)
    assert [a.proved for a in evidence.attempts if a.shapes["x"][0] in (2, 5)] == [True, False]
    assert judged[0] is Verdict.DIFFERENT and judged[1].endswith("; that is at x=5x4, where LessOrEqual(few) changes")
    judged, _, _ = climbed("y = Add(x, x)", "y = Add(x, x) a = Relu(y)", ladder, run=False)
    assert judged[0] is not Verdict.DIFFERENT


def test_progress_is_told_in_the_words_of_the_rungs() -> None:
    said: list[str] = []
    compare(model(SOFT), model(SOFT_RELU), progress=said.append, **ALL)
    rest = iter(said)
    assert all(rung.words in rest for rung in LADDER)
    assert "proving at x=2x4" in said and "proving by windows at x=2x4" in said


def test_windows_are_left_out_where_the_runs_are_plainly_apart() -> None:
    pair = model("y = Tanh(x)"), model("y = Sin(x)")
    found = compare(*pair, graphs=False).evidence["timings"]
    assert "windows" not in found and "rows" in found and "witness" in found
    assert "windows" in compare(*pair, graphs=False, run=False).evidence["timings"]
    assert "windows" in compare(model(SOFT), model(SOFT_RELU), graphs=False).evidence["timings"]


def test_rerounded_constants_come_before_a_costly_search_where_the_runs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"c = Constant<value_float = {v}>() s = Sin(x) y = Mul(s, c)" for v in (0.3, 0.30000003, 0.301, 0.300001)]
    a, ulp, apart, ulps = map(model, texts)

    def rungs(b: onnx.ModelProto, **options: Any) -> tuple[Verdict, list[str]]:
        found = compare(a, b, graphs=False, **options)
        return found.verdict, [key for key in found.evidence["timings"] if key in ("witness", "rounding", "inputs")]

    assert rungs(ulp) == (Verdict.WITHIN_ROUNDING, ["witness", "rounding"])  # a small graph is evaluated soon
    monkeypatch.setattr("graphcheck.verdicts.ladder._LARGE", 0)
    assert rungs(ulp) == (Verdict.WITHIN_ROUNDING, ["rounding"])
    assert rungs(ulp, run=False) == (Verdict.WITHIN_ROUNDING, ["witness", "rounding"])
    assert rungs(apart) == (Verdict.DIFFERENT, ["witness"])
    assert rungs(ulps) == (Verdict.DIFFERENT, ["rounding", "witness"])  # the runs alone do not tell


def test_large_graphs_are_tried_at_a_batch_of_1_first(monkeypatch: pytest.MonkeyPatch) -> None:
    head = '<ir_version: 9, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 4] y)'

    def tried(a: str, b: str, **options: Any) -> tuple[Verdict, list[int]]:
        """The verdict, and the batches of the inputs that were judged, once each."""
        seen.clear()
        models = (onnx.parser.parse_model(f"{head} {{ {text} }}") for text in (a, b))
        return compare(*models, graphs=False, **options).verdict, list(dict.fromkeys(seen))

    seen, judged = list[int](), Search._judge
    monkeypatch.setattr(Search, "_judge", lambda self, x, **o: seen.append(len(x["x"])) or judged(self, x, **o))
    plain, centred = "y = Tanh(x)", "m = ReduceMean<axes = [0]>(x) h = Sub(x, m) y = {}(h)"
    assert tried(plain, "y = Sin(x)") == (Verdict.DIFFERENT, [2])
    monkeypatch.setattr("graphcheck.verdicts.rungs.witness._HEAVY", 0)
    assert tried(plain, "y = Sin(x)") == (Verdict.DIFFERENT, [1])
    assert tried(plain, "y = Sin(x)", shapes={"x": (3, 4)}) == (Verdict.DIFFERENT, [3])
    verdict, batches = tried(centred.format("Tanh"), centred.format("Sin"))  # 0 at a batch of 1
    assert verdict is Verdict.DIFFERENT and set(batches) == {1, 2}


@pytest.mark.parametrize(
    ("times", "most", "found", "lengths"),
    [
        (1.0, 0.0, Verdict.DIFFERENT, {16}),
        (0.0, 0.0, Verdict.DIFFERENT, {224}),  # the same at 16
        (1e-7, 0.0, Verdict.UNDECIDED, {16}),  # little enough for rounding at all sizes
        (1e-7, 1e9, Verdict.UNDECIDED, {16, 224}),
    ],
)
def test_large_graphs_are_tried_at_the_smallest_lengths_first(
    times: float, most: float, found: Verdict, lengths: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B adds ``times`` a mean, and, where that is 0, Max(h - 200, 0)."""
    seen, judged = set[int](), Search._judge
    monkeypatch.setattr(Search, "_judge", lambda self, x, **o: seen.add(x["x"].shape[2]) or judged(self, x, **o))
    monkeypatch.setattr("graphcheck.verdicts.rungs.witness._HEAVY", 0)
    monkeypatch.setattr("graphcheck.verdicts.rungs.witness._FEW", most)
    head = '<ir_version: 9, opset_import: ["" : 18]> g (float[2,1,h,h] x) => (float[2,1,h,h] y)'
    head += f" <float t = {{{times}}}, int64[1] least = {{200}}, int64[4] all = {{0,1,2,3}}>"
    mean = "s = Sin(x) a = ReduceMean(s, all) "
    far = "n = Shape<start = 2, end = 3>(x) m = Max(n, least) d = Sub(m, least) a = Cast<to = 1>(d) s = Sin(x) "
    more = "p = Mul(a, t) y = Add(s, p)" if times else "y = Add(s, a)"
    models = [onnx.parser.parse_model(f"{head} {{ {body} }}") for body in ("y = Sin(x)", (mean if times else far) + more)]
    assert compare(*models, graphs=False).verdict is found
    assert seen == lengths


def test_large_rows_wait_for_the_witness_where_the_runs_are_plainly_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    spared: list[bool] = []
    rows = Prover._rows
    monkeypatch.setattr(Prover, "_rows", lambda prover, sparing, *more: spared.append(sparing()) or rows(prover, sparing, *more))
    assert compare(model("y = Tanh(x)"), model("y = Sin(x)"), graphs=False).verdict is Verdict.DIFFERENT
    assert set(spared) == {True}
    spared.clear()
    assert compare(model(SOFT), model(SOFT_RELU), graphs=False).verdict is Verdict.UNDECIDED
    assert set(spared) == {False}
    spared.clear()
    monkeypatch.setattr(Executions, "plainly_apart", lambda executions: True)  # and no witness shows it
    assert compare(model(SOFT), model(SOFT_RELU), graphs=False).verdict is Verdict.UNDECIDED
    assert spared[0] and not spared[-1]


def test_the_runs_are_not_waited_for_where_no_row_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    apart = Executions.plainly_apart
    monkeypatch.setattr(Executions, "plainly_apart", lambda executions: asked.append(True) or apart(executions))
    with opened(model(SOFT), model(SOFT_RELU), Options(graphs=False)) as case:
        evidence = Evidence(Executions(case.sources, case.models, case.interface, case.options, case.given))
        climb(case, evidence, LADDER[: [rung.name for rung in LADDER].index("rows") + 1])
    assert evidence.rows and not asked


@pytest.mark.parametrize(("perm", "met"), [("0, 2, 1, 3", True), ("0, 1, 2, 3", False)])
def test_rows_close_what_lies_behind_a_concat(perm: str, met: bool) -> None:
    """Lengths of pairs, of two layers side by side that are transposed before or after."""
    start = "s = Sin(x) c = Cos(x) j = Concat<axis = 1>(s, c) k = Constant<value_ints = [2, 2, 2, 2]>() r = Reshape(j, k)"
    end = "a = Constant<value_ints = [-1]>() {} q = Mul(m, m) u = ReduceSum<keepdims = 0>(q, a) {}"
    one = f"t = Transpose<perm = [{perm}]>(r) w = Constant<value_floats = [3.0, 5.0]>() m = Mul(t, w)", "y = Sqrt(u)"
    two = "w = Constant<value_floats = [3.0, 5.0]>() m = Mul(r, w)", "z = Sqrt(u) y = Transpose<perm = [0, 2, 1]>(z)"
    head = '<ir_version: 9, opset_import: ["" : 17]> g (float[2, 4] x) => (float[d, e, f] y)'
    models = (onnx.parser.parse_model(f"{head} {{ {start} {end.format(*each)} }}") for each in (one, two))
    with opened(*models, Options(graphs=False, run=False)) as case:
        (attempt,) = case.sizes.prove((), ("congruence",), lambda _: None)
        assert attempt.prover is not None and not attempt.proved
        attempt.prover.row_counts = [2]
        assert attempt.prover.by_rows() is met


@pytest.mark.parametrize(("last", "met"), [("Tanh(y0)", True), ("Sin(y0)", False)])
def test_near_windows_over_the_budget_are_tried_in_part(last: str, met: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = "h = Mul(x, x) y0 = Add(h, x) y = Tanh(y0)"
    two = f"o = Constant<value_float = 1.0>() h = Add(x, o) y0 = Mul(h, x) y = {last}"
    with opened(model(one), model(two), Options(graphs=False, run=False)) as case:
        for partly, most in ((False, 1e6), (True, 1.0), (True, 1e6)):
            monkeypatch.setattr("graphcheck.kernel.proof.prover._PART", most)
            (attempt,) = case.sizes.prove((), ("congruence",), lambda _: None)
            assert attempt.prover is not None and not attempt.proved
            attempt.prover.budget, attempt.prover.row_counts = 0.0, []
            assert not attempt.prover.by_windows()
            assert (partly and attempt.prover.by_parts()) is (met and partly and most > 1)


def test_rows_over_the_limit_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "h = Mul(x, x) y = Add(h, x)", "o = Constant<value_float = 1.0>() h = Add(x, o) y = Mul(h, x)"
    monkeypatch.setattr("graphcheck.kernel.proof.prover._MANY", 4.0)
    for sparing, met in ((True, False), (False, True)):
        with opened(*map(model, text), Options(graphs=False, run=False)) as case:
            (attempt,) = case.sizes.prove((), ("congruence",), lambda _: None)
            assert attempt.prover is not None and attempt.prover.by_rows(lambda sparing=sparing: sparing) is met


@pytest.mark.parametrize(("most", "shape"), [(5e8, (2, 2, 28, 224)), (0.0, (2, 2, 28, 28))])
def test_other_sizes_are_small_where_the_usual_ones_are_large(
    most: float, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least length tried, 16, is below the window's: the next one, at all dims besides the batch."""
    head = '<ir_version: 9, opset_import: ["" : 17]> g (float[N,2,h,w] x) => (float[N,2,a,b] y)'
    proto = onnx.parser.parse_model(f"{head} {{ y = AveragePool<kernel_shape = [20, 20]>(x) }}")
    monkeypatch.setattr("graphcheck.kernel.proof.sizes._LARGE", most)
    with opened(proto, proto, Options(graphs=False, run=False)) as case:
        first, second, *others = case.sizes.choices([case.sizes.attempt({"x": (2, 2, 224, 224)})])
        assert first == {"x": (2, 2, 224, 224)} and second == {"x": shape}
        assert others == [{"x": (2, 2, shape[-1], 28 if most else 32)}]


def planted(monkeypatch: pytest.MonkeyPatch, error: BaseException, at: str = "windows") -> Comparison:
    """A comparison whose rung ``at`` ends with ``error``."""

    def raises(case: Case, evidence: Evidence) -> Judged | None:
        raise error

    ladder = tuple(Rung(r.name, r.words, raises if r.name == at else r.look) for r in LADDER)
    monkeypatch.setattr(judge_, "climb", lambda case, evidence: climb(case, evidence, ladder))
    return compare(model(SOFT), model(SOFT_RELU), graphs=False, timeout=60.0, max_memory=2**31)


def test_a_limit_on_any_rung_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    for at in NAMES:
        found = planted(monkeypatch, Undecided("the limit of steps was reached"), at)
        assert found.verdict is Verdict.UNDECIDED and found.reason.startswith("the limit of steps was reached")
        found = planted(monkeypatch, RecursionError(), at)
        assert found.verdict is Verdict.UNDECIDED and "nested too deeply" in found.reason
        found = planted(monkeypatch, MemoryError(), at)
        assert found.verdict is Verdict.UNDECIDED and found.reason == "the memory limit of 2 GiB was reached"
        assert found.evidence["graphs"] is None and found.evidence["proof"] is None


@pytest.mark.parametrize("besides", ["_complete", "_contrary", "_approximation", "branches.split", "fitting.fits"])
def test_a_limit_met_by_what_is_told_beside_a_verdict_costs_none(besides: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise Exhausted("the time limit of 9 s was reached", code="GC201")

    monkeypatch.setattr(f"graphcheck.verdicts.judge.{besides}", exhausted)
    for body, verdict in ((MAX, Verdict.PROVED), ("y = Abs(x)", Verdict.DIFFERENT), ("y = Sin(x)", Verdict.DIFFERENT)):
        assert compare(model(RELU), model(body)).verdict is verdict


def test_what_is_known_of_a_difference_is_told_beside_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = (*LADDER[: NAMES.index("witness")], LADDER[NAMES.index("rounding")])
    scaled = "c = Constant<value_float = 1.0001>() y = Mul(x, c)"
    other = "c = Constant<value_float = 1.0002>() y = Mul(x, c)"
    judged, evidence, _ = climbed(scaled, other, ladder, run=False)
    assert judged[0] is Verdict.UNDECIDED and "the graphs are the same but for 1 constant" in evidence.known


def test_an_interrupt_ends_hashing_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr("graphcheck.files.contents.Contents.stop", lambda _: ended.append("hashing"))
    monkeypatch.setattr(Executions, "execute", lambda _: time.sleep(0.2))
    monkeypatch.setattr("graphcheck.runs.child.end_all", lambda _: ended.append("runs"))
    with pytest.raises(KeyboardInterrupt):
        planted(monkeypatch, KeyboardInterrupt(), "structure")
    assert {"hashing", "runs"} == set(ended)


ENDLESS = """<ir_version: 8, opset_import: ["" : 18]> g (float[4] x) => (float[4] y) {
    t = Constant<value = bool {1}>()
    y = Loop(, t, x)<body = b (int64 i, bool c, float[4] s) => (bool d, float[4] r) { d = Identity(c) r = OP(s) }>
}"""


def test_a_loop_without_an_end_is_not_waited_for() -> None:
    a, b = (ir.from_onnx_text(ENDLESS.replace("OP", op)) for op in ("Sin", "Cos"))
    found = compare(a, b, graphs=False, timeout=600.0)
    assert found.verdict is Verdict.UNDECIDED and "Loop goes on beyond 10000 steps" in found.reason
    (run,) = found.evidence["numeric"]["runs"]
    assert all("was ended after" in error and "a loop has no end in sight" in error for error in run["errors"].values())


def test_constants_are_gathered_first_in_the_way_that_found_them_at_the_size_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sizes of two samples each, at which pulling finds them: pushing is tried once a sample of the first."""

    class Sizes:
        def choices(self, _: Any) -> list[dict[str, Any]]:
            return [{"x": (n,)} for n in (1, 2, 3)]

        def pairs(self, chosen: Any, *, affine: str, **_: Any) -> Any:
            return ((sample, affine) for sample in (0, 1))

        def unequal_shapes(self, _: Any) -> list[Any]:
            return []

    case: Any = type("Case", (), {"sizes": Sizes(), "unfit": ()})()
    tried: list[str] = []

    def substitute(_: Any, way: Any, allowed: Allowed) -> Substitution:
        tried.append(way)
        return Substitution([], 0.0, met=way == "pull")

    monkeypatch.setattr(rounding, "_substitute", substitute)
    evidence: Any = type("Evidence", (), {"attempts": ()})()
    found = [(each.attempts[-1], way) for each, way in rounding.replaced(case, evidence)]
    assert [(attempt.shapes["x"], attempt.sample, way) for attempt, way in found] == [
        ((n,), sample, "pull") for n in (1, 2, 3) for sample in (0, 1)
    ]
    assert tried == ["push", "pull", "push", "pull", "pull", "pull", "pull", "pull"]
