"""Hostile files: every one reaches a clear end, with one sentence, within its limits, and leaves nothing behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphcheck
from graphcheck import limits
from graphcheck.cli import main
from graphcheck.errors import GraphcheckError, Undecided, UsageError
from tests.hostile import bombs, broken, damage, external

ROOT = Path(__file__).parents[1]


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, all that was said), which is one sentence on standard error where there is trouble."""
    capsys.readouterr()
    before = files()
    code = main(arguments)
    out, err = capsys.readouterr()
    err = re.sub(r"^graphcheck: \d+ s: .*\n", "", err, flags=re.MULTILINE)  # progress, on a slow machine
    assert code in (0, 1, 2, 3)
    assert "Traceback" not in out + err and "itself failed" not in err and "\x1b" not in out + err
    assert err.count("\n") <= 1 and len(err) < 1200
    assert bool(err) == (code == 2) or (code == 3 and not out)
    assert files() == before
    return code, out + err


def files() -> list[Path]:
    """What is in the working directory."""
    return sorted(Path().iterdir())


def with_detour(data: bytes) -> bytes:
    """The model with its first output negated twice, so that only a proof can tell that it is the same."""
    try:
        model = onnx.ModelProto.FromString(data)
        name = model.graph.output[0].name
        for node in model.graph.node:
            for names in (node.input, node.output):
                for i, given_name in enumerate(names):
                    names[i] = "before" if given_name == name else given_name
        model.graph.node.add(op_type="Neg", input=["before"], output=["between"])
        model.graph.node.add(op_type="Neg", input=["between"], output=[name])
        return bytes(model.SerializeToString())
    except Exception:  # it is no model
        return data


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.mark.parametrize("kind", broken.BROKEN)
def test_broken(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = broken.BROKEN[kind]()
    Path("bad.onnx").write_bytes(data)
    Path("other.onnx").write_bytes(with_detour(data))
    Path("good.onnx").write_bytes(broken.good().SerializeToString())
    bounds = ["--timeout", "1", "--max-memory", "1G"]
    code, text = answer(["analyze", "bad.onnx", *bounds], capsys)
    assert code != 2 or "bad.onnx" in text
    for arguments in (["other.onnx", "bad.onnx"], ["good.onnx", "bad.onnx"]):
        answer(["compare", *arguments, "--no-run", *bounds], capsys)


@pytest.mark.parametrize("kind", external.REFUSED)
def test_external_data_that_is_refused(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    external.REFUSED[kind](Path().resolve())
    for command in (
        ["analyze", "model.onnx"],
        ["compare", "model.onnx", "model.onnx"],
        ["rewrite", "model.onnx", "-o", "o.onnx"],
    ):
        code, text = answer(command, capsys)
        assert code == 2 and text.startswith("graphcheck: model.onnx: ") and "1234" not in text


@pytest.mark.parametrize("kind", external.ADMITTED)
def test_external_data_that_is_sound(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path().resolve()
    external.ADMITTED[kind](folder)
    monkeypatch.chdir(folder.parent)  # what the paths are relative to is the model's folder
    assert answer(["analyze", "work/model.onnx"], capsys)[0] == 0
    assert answer(["compare", "work/model.onnx", "work/model.onnx", "--no-run"], capsys)[0] == 0


def test_a_constant_in_another_file_has_its_values() -> None:
    """Inline or not is no difference, so the reader must have read the right bytes."""
    path = external.ADMITTED["Constant of a subgraph inside"](Path().resolve())
    inline = external.in_branch(onnx.numpy_helper.from_array(external.WEIGHT, "w"), as_constant=True)
    assert graphcheck.compare(path, inline, run=False).verdict == "identical"
    Path("w.bin").write_bytes((external.WEIGHT + 1).tobytes())
    assert graphcheck.compare(path, inline, run=False).verdict != "identical"


@pytest.mark.parametrize("kind", bombs.texts())
def test_bombs(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = bombs.build(kind)
    Path("bomb.onnx").write_bytes(data)
    Path("other.onnx").write_bytes(with_detour(data))
    long = kind.startswith(("folded", "computed", "Loop", "nested", "chain", "many"))
    stopped = long and kind not in ("Loop of a billion trips", "nested Loops")  # each is one function
    bounds = ["--timeout", "1" if stopped else "30" if long else "120", "--max-memory", "1G"]
    answer(["analyze", "bomb.onnx", *bounds], capsys)
    code, text = answer(["compare", "other.onnx", "bomb.onnx", "--no-run", *bounds], capsys)
    if stopped:
        assert code == 3 and "undecided" in text
    else:
        assert code == 0 and "proved" in text  # large on paper only: nothing is made of such a size


@pytest.mark.parametrize("count", [5, 10**12, 2**62])
def test_initializers_that_claim_more_than_they_hold(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.onnx").write_bytes(bombs.claiming(count))
    assert answer(["analyze", "bad.onnx"], capsys)[0] == 2


# a crash of onnxruntime, by the smallest integer divided by -1, and a hang
_CRASH = "folded int min / -1"
_ENDLESS = "Loop without end"


def test_a_crash_of_onnxruntime_is_a_result() -> None:
    data = broken.BROKEN[_CRASH]()
    result = graphcheck.compare(onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(with_detour(data)))
    numeric = result.to_json()["numeric"]
    assert result.verdict in ("proved", "undecided")
    assert any("onnxruntime crashed" in text for text in numeric["warnings"])
    good = graphcheck.compare(broken.good(), broken.good())  # and it goes on
    assert good.to_json()["numeric"]["runs"][0]["outputs"]


def test_a_hang_of_onnxruntime_is_a_result() -> None:
    model = onnx.ModelProto.FromString(bombs.build(_ENDLESS))
    result = graphcheck.compare(model, model, timeout=2)
    assert result.verdict == "identical"
    assert any("onnxruntime was not done after" in text for text in result.to_json()["numeric"]["warnings"])


def test_the_command_line_ends_by_itself_within_its_memory() -> None:
    """A process of its own: 2 GiB of address space beside what libraries map is enough to say that 4 TB are not."""
    Path("bomb.onnx").write_bytes(bombs.build("folded OneHot"))
    Path("other.onnx").write_bytes(with_detour(bombs.build("folded OneHot")))
    command = [sys.executable, "-m", "graphcheck", "compare", "other.onnx", "bomb.onnx", "--max-memory", "1G"]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert run.returncode == 3 and "undecided" in run.stdout and run.stderr == ""


@pytest.mark.parametrize("field", ["raw_data twice", "raw and external", "raw and typed"])
def test_data_that_readers_would_take_differently(field: str) -> None:
    model = broken.good()
    tensor = next(t for t in model.graph.initializer if t.name == "w")
    assert len(tensor.raw_data) >= 1024  # one that stays in the mapped file
    if field == "raw and external":
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="w.bin")
        Path("w.bin").write_bytes(tensor.raw_data)
    elif field == "raw and typed":
        tensor.float_data.extend([1.0] * 288)
    data = model.SerializeToString()
    if field == "raw_data twice":
        again = onnx.TensorProto(raw_data=bytes(4)).SerializeToString()
        inner = tensor.SerializeToString()
        graph = onnx.GraphProto()
        graph.CopyFrom(model.graph)
        graph.initializer.remove(next(t for t in graph.initializer if t.name == "w"))
        head = onnx.ModelProto(ir_version=10, opset_import=model.opset_import).SerializeToString()
        data = head + broken.field(7, graph.SerializeToString() + broken.field(5, inner + again))
    Path("bad.onnx").write_bytes(data)
    with pytest.raises(GraphcheckError, match=r"bad\.onnx: .*data"):
        graphcheck.analyze("bad.onnx")


def test_a_pipe_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    import os

    os.mkfifo("pipe.onnx")
    code, text = answer(["analyze", "pipe.onnx"], capsys)
    assert code == 2 and "not a regular file" in text


def test_limits_are_those_of_the_innermost_block() -> None:
    with limits.within(2**30, 5.0) as outer:
        with limits.within(2**28) as inner:
            assert (inner.memory, inner.deadline) == (2**28, outer.deadline)
            with pytest.raises(Undecided, match="beyond the memory limit of 256 MiB"):
                inner.check_elements(10**8, "a tensor")
        assert limits.current() is outer
    with limits.within(seconds=1e-9) as late, pytest.raises(Undecided, match="time limit"):
        late.check_time()


@pytest.mark.parametrize(
    ("text", "count"), [("6G", 6 * 2**30), ("500M", 500 * 2**20), ("2.5GiB", 5 * 2**29), ("1tb", 2**40)]
)
def test_sizes(text: str, count: int) -> None:
    assert limits.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "-1G", "1e9", "12", "6 GG", "nan"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="a size is a number"):
        limits.parse_size(text)


# -- fuzz ------------------------------------------------------------------------------------------------------------

SAME: dict[str, Callable[[onnx.ModelProto, int], onnx.ModelProto]] = {
    "itself": lambda model, seed: model,
    "renamed": lambda model, seed: damage.renamed(model),
    "reordered": damage.reordered,
    "constants lifted": lambda model, seed: damage.lifted(model),
    "rewritten": damage.rewritten,
}


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32), how=st.sampled_from(sorted(SAME)))
def test_a_random_graph_is_its_copy(seed: int, how: str) -> None:
    model = damage.graph(seed)
    result = graphcheck.compare(model, SAME[how](model, seed), run=False, graphs=False)
    if how != "rewritten":
        assert result.verdict == "identical", result.reason
    else:
        assert result.verdict in ("identical", "proved"), result.reason


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_a_mutant_that_differs_is_never_passed(seed: int) -> None:
    model = damage.graph(seed)
    mutant = damage.mutant(model, seed)
    if damage.apart(model, mutant, seed):
        result = graphcheck.compare(model, mutant, run=False, graphs=False, timeout=20)
        assert result.verdict in ("different", "undecided"), result.reason


@settings(max_examples=250)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_ends_clean(seed: int) -> None:
    base = broken.good() if seed % 2 else damage.graph(seed % 1000)
    Path("bad.onnx").write_bytes(damage.damaged(base.SerializeToString(), seed))
    try:
        with limits.within(2**30, 5.0):
            graphcheck.analyze("bad.onnx")
            graphcheck.compare("bad.onnx", base, run=False, graphs=False, timeout=5, max_memory=2**30)
    except (GraphcheckError, Undecided):
        pass


def test_an_interrupt_ends_a_run_that_hangs() -> None:
    """The signal reaches the parent alone, whose child is in an endless Loop."""
    Path("bomb.onnx").write_bytes(bombs.build(_ENDLESS))
    command = [sys.executable, "-m", "graphcheck", "compare", "bomb.onnx", "bomb.onnx"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={"PYTHONPATH": str(ROOT), "PATH": ""}, **quiet) as child:
        time.sleep(4)
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait() == 130
        finally:
            child.kill()
