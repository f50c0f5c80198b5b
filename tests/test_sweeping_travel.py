"""Models that travel: what a worker lacks it names and is sent, it does the task there, and what was written comes back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest

from graphcheck.sweeping import travel
from graphcheck.sweeping.keys import digest
from graphcheck.sweeping.manifest import Job
from graphcheck.sweeping.run import task_of
from tests.patch_cases import patchify
from tests.sweeping_support import save_model, settings


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A worker that sees nothing of ``tmp_path / "here"``, and keeps models in a folder of its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    seen, here = travel._is, str(tmp_path / "here")
    monkeypatch.setattr(travel, "_is", lambda path, wanted: not str(path).startswith(here) and seen(path, wanted))
    yield "one"
    travel.forget("one")
    assert list((tmp_path / "tmp").iterdir()) == []


def task(job: Job, do: str = "compare", **fields: Any) -> dict[str, Any]:
    digests = {path: (digest(path), None) for path in (job.a, job.b) if path is not None}
    return task_of(job, settings(do, **fields), digests)


def test_a_rewritten_model_comes_back_with_its_weights(tmp_path: Path, place: str) -> None:
    model = ir.to_proto(patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48]))
    (tmp_path / "here" / "w").mkdir(parents=True)
    source = tmp_path / "here" / "patches.onnx"
    onnx.save(model, source, save_as_external_data=True, location="w/weights.bin", size_threshold=0)
    given = task(Job("patches", source), "rewrite", to="conv", out=str(tmp_path / "made"))
    wanted = digest(source)
    assert travel.perform(given, {}, place) == {"lacks": [wanted], "at": None}
    sent = travel.contents(source)
    assert len(sent) == 1 + len(list((tmp_path / "here" / "w").iterdir()))
    answer = travel.perform(given, {wanted: sent}, place)
    assert answer["status"] == "proved" and not (tmp_path / "made").exists(), answer
    answer = travel.received(given, answer)
    made = tmp_path / "made" / "patches.onnx"
    assert "Conv" in [node.op_type for node in onnx.load(made).graph.node] and "files" not in answer
    assert answer["result"]["output"] == str(made) and answer["result"]["model"]["path"] == str(source)
    # It is there for the next task, and is not sent again.
    assert "lacks" not in travel.perform(task(Job("patches", source), "analyze"), {}, place)


def test_what_was_sent_is_looked_at_by_its_content(tmp_path: Path, place: str) -> None:
    a, b = save_model(tmp_path / "here" / "a.onnx"), save_model(tmp_path / "here" / "b.onnx", last=7.0)
    given = task(Job("pair", a, b))
    wrong = {digest(a): travel.contents(b), digest(b): travel.contents(b)}
    assert travel.perform(given, wrong, place)["lacks"] == [digest(a)]
    right = {digest(a): travel.contents(a)}
    assert travel.perform(given, right, place)["status"] == "different"


def test_nothing_is_written_outside_of_the_folder_that_was_named(tmp_path: Path) -> None:
    given = {"witness": str(tmp_path / "witness"), "reduce": None, "out": None}
    for name in ("../evil", "/evil", "a/../../evil"):
        sent = {"status": "proved", "failure": None, "files": {"witness": {name: b"x"}}}
        assert travel.received(given, sent)["reason"] == f"the worker sent a file {name!r}, which lies outside its folder"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(AssertionError):
        travel._keep({"../evil": b"x"}, tmp_path / "kept" / "digest")
