"""Sweeps: what is done, once; what is stored; what a second run leaves out; and what the whole is worth."""

from __future__ import annotations

import json
import sqlite3
import threading
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import onnx
import pytest

from graphcheck import outcome
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.exporting.catalogue import catalogue
from graphcheck.exporting.manifest import Exported, Manifest, write_manifest
from graphcheck.outcome import Outcome
from graphcheck.sweeping.keys import digest
from graphcheck.sweeping.manifest import Job, part, read_jobs
from graphcheck.sweeping.store import Store
from graphcheck.verdict import Verdict
from tests.sweeping_support import LIMITS, Faked, answer, rows, run, save_model, settings

# -- what to do ----------------------------------------------------------------------------------------------------


def test_two_folders_give_namesakes_and_name_those_without(tmp_path: Path) -> None:
    for name in ("a/one", "b/one", "a/sub/two", "b/sub/two", "a/left", "b/right"):
        save_model(tmp_path / f"{name}.onnx")
    jobs = read_jobs(tmp_path / "a", against=tmp_path / "b")
    assert [job.name for job in jobs] == ["left", "one", "right", "sub/two"]
    assert [job.problem for job in jobs] == [
        f"{tmp_path / 'a/left.onnx'}: has no namesake in {tmp_path / 'b'}", None,
        f"{tmp_path / 'b/right.onnx'}: has no namesake in {tmp_path / 'a'}", None,
    ]  # fmt: skip
    assert (jobs[1].a, jobs[1].b) == (tmp_path / "b/one.onnx", tmp_path / "a/one.onnx")  # the reference is A
    found = run(jobs, settings(), Faked(lambda task: answer()), tmp_path / "s")
    assert found["left"].exit_code() == 2 and found["one"].exit_code() == 0


def test_a_list_names_pairs_or_models_relative_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "list.json"
    file.write_text(json.dumps([{"a": "x.onnx", "b": "y.onnx"}, {"a": "x.onnx", "b": "y.onnx", "name": "again"}] * 2))
    jobs = read_jobs(file)
    assert [job.name for job in jobs] == ["x / y", "again", "x / y (2)", "again (2)"]
    assert (jobs[0].a, jobs[0].b) == (tmp_path / "x.onnx", tmp_path / "y.onnx")
    file.write_text(json.dumps(["x.onnx", {"model": "y.onnx", "name": "why"}]))
    assert [(job.name, job.a.name, job.b) for job in read_jobs(file, pairs=False)] == [
        ("x", "x.onnx", None), ("why", "y.onnx", None),
    ]  # fmt: skip


@pytest.mark.parametrize("entry", [3, {"a": "x"}, {"a": "x", "b": 1}, {"a": "x", "b": "y", "c": "z"}, "x.onnx"])
def test_a_list_with_a_wrong_entry_names_it(tmp_path: Path, entry: Any) -> None:
    (tmp_path / "l.json").write_text(json.dumps([{"a": "x", "b": "y"}, entry]))
    with pytest.raises(GraphcheckError, match=r'l\.json: entry 2 is not \{"a": FILE, "b": FILE, "name": TEXT\}'):
        read_jobs(tmp_path / "l.json")


def test_an_export_gives_the_pairs_known_to_be_equal_once(tmp_path: Path) -> None:
    variants = [variant for variant in catalogue() if variant.family == "convolution"][:3]
    models = tuple(Exported(v, save_model(tmp_path / f"{v.name}.onnx").name, 1, "") for v in variants)
    write_manifest(tmp_path, Manifest(models))
    jobs = read_jobs(tmp_path)
    assert jobs == read_jobs(tmp_path / "manifest.json") and 0 < len(jobs) <= 3
    assert len({frozenset((job.a, job.b)) for job in jobs}) == len(jobs)
    assert [job.name for job in read_jobs(tmp_path, pairs=False)] == sorted(v.name for v in variants)


@pytest.mark.parametrize("name", ["absent.onnx", "nul\0.onnx", "\ud800.onnx", "."])
def test_a_file_that_is_none_is_trouble_and_nothing_else_stops(tmp_path: Path, name: str) -> None:
    good = save_model(tmp_path / "m.onnx")
    jobs = [Job("bad", tmp_path / name, good), Job("good", good, good)]
    workers = Faked(lambda task: answer())
    found = run(jobs, settings(), workers, tmp_path / "s")
    assert (found["bad"].status, found["bad"].failure, found["good"].status) == ("trouble", "error", "proved")
    assert len(workers.tasks) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "absent", "there is no such file or folder"),
        (lambda p: p, "has no manifest.json that says what to compare"),
        (lambda p: save_model(p / "m.onnx"), "is one model, and a comparison takes two"),
        (lambda p: (p / "x.json").write_text("{") and p / "x.json", "is not a JSON manifest"),
        (lambda p: (p / "x.json").write_text("{}") and p / "x.json", "is neither a JSON list of pairs nor"),
        (lambda p: (p / "x.json").write_text("[]") and p / "x.json", "names no pair to look at"),
    ],
)
def test_what_names_nothing_is_said(tmp_path: Path, make: Any, says: str) -> None:
    with pytest.raises(GraphcheckError, match=says):
        read_jobs(make(tmp_path))


# -- keys ----------------------------------------------------------------------------------------------------------


def test_the_digest_takes_external_data_in_but_nothing_outside(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    model = onnx.load(save_model(tmp_path / "m" / "x.onnx"))
    weight = model.graph.initializer[0]
    weight.raw_data = onnx.numpy_helper.to_array(weight).tobytes()
    weight.ClearField("float_data")

    def with_location(location: str) -> str:
        onnx.external_data_helper.set_external_data(weight, location)
        (tmp_path / "m" / "x.onnx").write_bytes(model.SerializeToString())
        return digest(tmp_path / "m" / "x.onnx")

    for location in ("w.bin", "w" * 200 + ".bin"):
        (tmp_path / "m" / location).write_bytes(b"1")
        first = with_location(location)
        assert first == with_location(location)
        (tmp_path / "m" / location).write_bytes(b"2")
        assert first != with_location(location)
    (tmp_path / "secret").write_bytes(b"1")
    outside = with_location("../secret")
    (tmp_path / "secret").write_bytes(b"2")
    assert outside == with_location("../secret")


def test_the_key_is_content_and_options_but_no_limit_or_folder() -> None:
    base = settings()
    same = [settings(timeout=1.0), settings(max_memory=1), settings(witness="w"), settings(threads=7)]
    assert {other.key(["1", "2"]) for other in same} == {base.key(["1", "2"])}
    others = [settings(options={"seed": 1}), settings("guard", command=("x",)), settings("rewrite", to="conv")]
    others.append(settings("rewrite", to="conv", rewriting={"pointwise": True}))
    keys = [base.key(["1", "2"]), base.key(["2", "1"]), *(other.key(["1", "2"]) for other in others)]
    assert len(set(keys)) == len(keys)


# -- the store and the loop ----------------------------------------------------------------------------------------


RESULT = {"graphs": {"a": {}}}


def jobs_of(folder: Path, count: int = 3) -> list[Job]:
    files = [save_model(folder / f"{i}.onnx", last=float(i)) for i in range(count)]
    return [Job(str(i), file, files[0]) for i, file in enumerate(files)]


def test_what_is_known_is_not_done_again(tmp_path: Path) -> None:
    jobs, store, first = (
        jobs_of(tmp_path),
        tmp_path / "s.sqlite",
        Faked(lambda task: answer(result=RESULT | {"output": task["a"]})),
    )
    run(jobs, settings(), first, store)
    again = Faked(lambda task: answer("different"))
    found = run(jobs, settings(), again, store)
    assert len(first.tasks) == 3 and again.tasks == []
    assert [(o.known, o.status, o.result) for o in found.values()] == [
        (True, "proved", {"output": str(job.a)}) for job in jobs
    ]
    with Store(store) as kept:
        assert [kept.result(o.key or "") for o in found.values()] == [RESULT | {"output": str(job.a)} for job in jobs]
    save_model(jobs[1].a, last=77.0)  # another content
    assert run(jobs, settings(), again, store)["1"].status == "different" and len(again.tasks) == 1
    run(jobs, settings(), again, store, fresh=True)
    assert len(again.tasks) == 4 and len(rows(store)) == 4


def test_equal_content_is_done_once_under_both_names(tmp_path: Path) -> None:
    jobs = [Job(name, save_model(tmp_path / f"{name}.onnx"), tmp_path / "a.onnx") for name in "ab"]
    workers = Faked(lambda task: answer())
    seen: list[str] = []
    found = run(jobs, settings(), workers, tmp_path / "s", progress=seen.append)
    assert len(workers.tasks) == 1 and len(rows(tmp_path / "s")) == 1 and sorted(seen) == ["a", "b"]
    assert [(name, o.name, o.a) for name, o in found.items()] == [(job.name, job.name, str(job.a)) for job in jobs]


def test_of_two_stores_the_answer_stays_and_then_the_later_one(tmp_path: Path) -> None:
    (job,) = jobs_of(tmp_path, 1)
    stores = [tmp_path / name for name in ("crash", "late", "later")]
    for store, given in zip(stores, [answer("trouble", "crash"), answer("undecided"), answer("proved")], strict=True):
        run([job], settings(), Faked(lambda task, given=given: given), store)
    for order in (stores, stores[::-1]):
        with Store(tmp_path / f"all-{order[0].name}") as kept:
            assert [kept.take(store) for store in order] == [1, 1, 1]
        assert rows(tmp_path / f"all-{order[0].name}") == [("0", "proved")]
    with Store(tmp_path / "two") as kept:
        kept.take(stores[1])
        kept.take(stores[0])
    assert rows(tmp_path / "two") == [("0", "undecided")]


def test_a_part_is_chosen_by_the_name_alone() -> None:
    jobs = [Job(f"net {i}", Path("x")) for i in range(1000)]
    parts = [part(jobs, which, 4) for which in range(1, 5)]
    assert sorted(job.name for each in parts for job in each) == sorted(job.name for job in jobs)
    assert all(200 < len(each) < 300 for each in parts)
    assert [job.name for job in part(jobs[::7], 2, 4)] == [job.name for job in parts[1] if job in jobs[::7]]


@pytest.mark.parametrize(
    ("given", "limits", "retry", "again"),
    [
        (answer("undecided", "timeout"), {}, False, False),
        (answer("undecided", "timeout"), {"timeout": 61.0}, False, True),
        (answer("undecided", "memory"), {"max_memory": 2**32}, False, True),
        (answer("undecided"), {"timeout": 61.0}, False, True),
        (answer("undecided", "timeout"), {"timeout": 1.0}, False, False),
        (answer("trouble", "crash"), {}, False, False),
        (answer("trouble", "crash"), {}, True, True),
        (answer("trouble", "lost"), {}, False, True),
        (answer("different"), {"timeout": 1e9}, True, False),
    ],
)
def test_failures_are_tried_again_where_more_can_be_learnt(
    tmp_path: Path, given: dict[str, Any], limits: dict[str, Any], retry: bool, again: bool
) -> None:
    jobs = jobs_of(tmp_path, 1)
    run(jobs, settings(), Faked(lambda task: given), tmp_path / "s")
    workers = Faked(lambda task: answer())
    run(jobs, settings(**limits), workers, tmp_path / "s", retry=retry)
    assert bool(workers.tasks) == again and len(rows(tmp_path / "s")) == 1


@pytest.mark.parametrize("error", [RuntimeError("KilledWorker"), CancelledError()])
def test_a_lost_worker_is_a_recorded_failure(tmp_path: Path, error: Exception) -> None:
    jobs = jobs_of(tmp_path)

    def die(task: dict[str, Any]) -> dict[str, Any]:
        if task["a"].endswith("1.onnx"):
            raise error
        return answer()

    found = run(jobs, settings(), Faked(die), tmp_path / "s")
    assert [(o.status, o.failure) for o in found.values()] == [("proved", None), ("trouble", "lost"), ("proved", None)]
    assert rows(tmp_path / "s") == [("0", "proved"), ("1", "trouble"), ("2", "proved")]


def test_results_are_stored_as_they_come_and_no_more_is_handed_out_than_can_run(tmp_path: Path) -> None:
    stored: list[int] = []

    class Slow(Faked):
        def submit(self, task: dict[str, Any]) -> Future[dict[str, Any]]:
            stored.append(len(rows(tmp_path / "s")))
            future = super().submit(task)
            later: Future[dict[str, Any]] = Future()
            threading.Timer(0.05, lambda: later.set_result(future.result())).start()
            return later

    run(jobs_of(tmp_path, 5), settings(), Slow(lambda task: answer(), room=1), tmp_path / "s")
    assert stored == [0, 1, 2, 3, 4]


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, but long enough to be looked at" * 100)
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE t (x)")
    other.close()
    for name, says in (("text", "cannot serve as the store"), ("other", "is not a store of this version")):
        with pytest.raises(GraphcheckError, match=says):
            Store(tmp_path / name)


def test_names_of_any_kind_are_stored(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.put("k", Outcome("\ud800\x1b[31m\n", "trouble", "\udcff", "error"), **LIMITS)
        known = store.known("k", **LIMITS)
    assert known is not None and known.name == "?\x1b[31m\n" and known.known


# -- what it is worth ----------------------------------------------------------------------------------------------


def of_status(*statuses: str) -> list[Outcome]:
    return [Outcome(status, status, "", "error" if status == "trouble" else None) for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((), 0),
        (("identical", "proved", "within-rounding", "analyzed", "unchanged"), 0),
        (("proved", "undecided"), 3),
        (("undecided", "trouble"), 2),
        (("undecided", "trouble", "different"), 1),
    ],
)
def test_different_wins_over_trouble_and_trouble_over_undecided(statuses: tuple[str, ...], code: int) -> None:
    assert outcome.exit_code(of_status(*statuses)) == code


def test_weaker_than_required_counts_as_undecided() -> None:
    assert outcome.exit_code(of_status("proved", "within-rounding"), Verdict.PROVED) == 3


def test_a_rewrite_that_failed_its_check_is_no_pass() -> None:
    checks = [{"name": "checker", "ok": True, "detail": ""}, {"name": "onnxruntime", "ok": False, "detail": "refused"}]
    data = {"model": {"path": "m"}, "verdict": "undecided", "reason": "refused", "checks": checks}
    found = outcome.of(data)
    assert found.failure == "check" and found.exit_code() == 1 and "failed its own check: refused" in found.reason
    assert outcome.of(data | {"verdict": None, "reason": "nothing to rewrite", "checks": []}).exit_code() == 0


def test_what_a_rewrite_left_alone_is_told_by_code() -> None:
    rows = (("X", "a"), ("Y", "b"), ("X", "c"))
    refusals = [{"code": code, "reason": f"{code} of {node}", "node": node} for code, node in rows]
    for verdict, status in ((None, "unchanged"), ("proved", "proved")):
        found = outcome.of({"model": {"path": "m"}, "verdict": verdict, "reason": "so", "refusals": refusals})
        assert (found.status, found.reason) == (status, "so; refused: 2 by X (X of a), 1 by Y (Y of b)")
        assert found.exit_code() == 0


def test_an_unknown_format_is_refused() -> None:
    from graphcheck.formats import format_results, parse_format

    assert parse_format("junit=out/x=1.xml") == ("junit", Path("out/x=1.xml")) and parse_format("github")[1] is None
    for text in ("html", "junit=", ""):
        with pytest.raises(UsageError, match="--format takes junit, sarif, github, summary"):
            parse_format(text)
    with pytest.raises(UsageError, match="there is no format 'html'"):
        format_results([], "html")
