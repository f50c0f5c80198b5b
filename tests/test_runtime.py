"""onnxruntime sessions: results, refusals, crashes and hangs, each told as what it is."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from graphcheck import compare
from graphcheck.errors import ModelError, UsageError
from graphcheck.runs import child, early
from graphcheck.runs import session as runtime
from graphcheck.runs.child import RemoteSession, why_refused
from graphcheck.runs.session import Arrays, RunError, load, measure
from graphcheck.verdicts import executions

X = {"x": np.array([[-1, 2, 3]], np.float32)}


def run(
    source: runtime.Source, inputs: Arrays, outputs: list[str] | None = None, timeout: float | None = None, **options: Any
) -> Arrays:
    """One run: here, or with a timeout in a child process."""
    if timeout is None:
        return load(source, **options).run(inputs, outputs)
    with RemoteSession(source, timeout=timeout, **options) as session:
        return session.run(inputs, outputs)


def model(text: str = "g (float[N,3] x) => (float[N,3] y, float[N,3] z) { y = Relu(x) z = Neg(x) }") -> bytes:
    data = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}').SerializeToString()
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize("optimizations", ["on", "off"])
def test_outputs_by_name(optimizations: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    for source in (model(), path, str(path)):
        outputs = run(source, X, optimizations=optimizations, threads=1)
        assert outputs["y"].tolist() == [[0, 2, 3]] and outputs["z"].tolist() == [[1, -2, -3]]
    assert list(run(path, X, ["z"], threads=1)) == ["z"]


def test_inputs_that_the_model_has_not_are_left_out() -> None:
    assert run(model(), X | {"other": X["x"]}, ["y"], threads=1)["y"].tolist() == [[0, 2, 3]]


def test_child_process_gives_the_same(tmp_path: Path) -> None:
    assert run(model(), X, timeout=60, threads=1)["y"].tobytes() == run(model(), X, threads=1)["y"].tobytes()
    strings = model("g (string[N] s) => (string[N] t) { t = Identity(s) }")
    assert run(strings, {"s": np.array(["a", "ü"], object)}, timeout=60)["t"].tolist() == ["a", "ü"]


def test_types_that_numpy_lacks() -> None:
    source = model("g (bfloat16[3] x) => (bfloat16[3] y, float[3] z) { y = Identity(x) z = Cast<to = 1>(x) }")
    x = np.array([1, -2, 0.5], ml_dtypes.bfloat16)
    for timeout in (None, 60):
        outputs = run(source, {"x": x}, timeout=timeout)
        assert outputs["y"].dtype == ml_dtypes.bfloat16 and outputs["y"].tolist() == outputs["z"].tolist() == [
            1,
            -2,
            0.5,
        ]


def failure(source: runtime.Source, inputs: dict[str, Any] = X, **options: Any) -> RunError:
    with pytest.raises(RunError) as caught:
        run(source, inputs, threads=1, **options)
    assert "\n" not in str(caught.value) and "ONNXRuntimeError" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("timeout", [None, 60])
def test_outputs_that_are_no_tensors(timeout: float | None) -> None:
    source = model("g (float[N,3] x) => (seq(float[N,3]) y) { y = SequenceConstruct(x) }")
    assert "output 'y' is of type seq(tensor(float)), not a tensor" in failure(source, timeout=timeout).cause


@pytest.mark.parametrize("timeout", [None, 60])
def test_refusals_name_file_node_and_cause(timeout: float | None, tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(model("g (float[N,3] x) => (float[N,3] y) { y = NoSuchOp(x) }"))
    error = failure(path, timeout=timeout)
    assert error.kind == "load" and str(error).startswith(f"{path}: ") and "NoSuchOp" in error.cause
    path.write_bytes(model("g (float[N,3] x, int64[K] s) => (float[A,B] y) { y = Reshape(x, s) }"))
    error = failure(path, X | {"s": np.array([2, 2])}, timeout=timeout)
    assert error.kind == "run" and error.node == "Reshape"
    assert failure(model(), {}, timeout=timeout).kind == "run"


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    assert failure(tmp_path / "bad.onnx").kind == "load"
    with pytest.raises(ModelError, match=r"none\.onnx: there is no such file"):
        run(tmp_path / "none.onnx", X)


def test_crash_is_a_result() -> None:
    """onnxruntime divides the smallest integer by -1 on the bare processor."""
    crashing = model("g (int64[1] x) => (int64[1] y) <int64[1] m = {-1}> { y = Div(x, m) }")
    error = failure(crashing, {"x": np.array([-(2**63)])}, timeout=60)
    assert error.kind == "crash" and str(error) == "model: onnxruntime crashed (SIGFPE)"
    assert run(crashing, {"x": np.array([6])}, timeout=60)["y"].tolist() == [-6]  # the next one has a child of its own


def test_a_refused_model_is_told_in_one_line() -> None:
    def text(body: str) -> str:
        return f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,3] y) {{ {body} }}'

    assert why_refused(ir.from_onnx_text(text("y = Relu(x)"))) is None
    reason = why_refused(ir.from_onnx_text(text("y = NoSuchOp(x)")))
    assert reason is not None and "NoSuchOp" in reason and "\n" not in reason


def test_hang_is_a_result() -> None:
    endless = """g (float x) => (float y) {
        n = Constant<value = int64 {9000000000}>()
        c = Constant<value = bool {1}>()
        y = Loop(n, c, x) <body = b (int64 i, bool d, float v) => (bool e, float w) { e = Identity(d) w = Cos(v) }>
    }"""
    error = failure(model(endless), {"x": np.float32(1).reshape(())}, timeout=1)
    assert error.kind == "timeout" and "was not done after 1 s" in error.cause


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match=r"no provider 'NopeExecutionProvider' here; it has .*CPUExecutionProvider"):
        load(model(), providers=["NopeExecutionProvider"])
    with pytest.raises(UsageError, match="optimizations are off, basic, extended, all, on"):
        load(model(), optimizations="some")


def test_measure_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = runtime.Session.run

    def spy(self: runtime.Session, *args: Any) -> Any:
        calls.append(self.name)
        return real(self, *args)

    monkeypatch.setattr(runtime.Session, "run", spy)
    sessions = {name: (load(model(), threads=1), X) for name in "ab"}
    for name, (session, _) in sessions.items():
        session.name = name
    times = measure(sessions, runs=3)
    assert calls == ["a", "b", *"ababab"]
    assert all(0 < t.min <= t.median <= t.max and t.runs == 3 for t in times.values())


def test_a_process_begun_early_is_taken_once() -> None:
    with early.begun(True):
        first, second = early.started(), early.started()
        assert first.pid != second.pid
    for process in (first, second):
        assert process.poll() is None
        process.communicate()  # its input ends, and so does it
        assert process.returncode == 0


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_a_process_that_nobody_took_is_ended(error: type[BaseException] | None) -> None:
    with contextlib.suppress(KeyboardInterrupt, ValueError), early.begun(True):
        (process,) = early._begun
        if error is not None:
            raise error
    assert process.returncode == -signal.SIGKILL and early._begun == []


def test_no_process_is_begun_where_none_is_wanted() -> None:
    with early.begun(False):
        assert early._begun == []


HOW = {"optimizations": "on", "providers": ["CPUExecutionProvider"], "threads": 1, "prepack": False, "spinning": False}


def test_a_model_loaded_ahead_is_the_one_that_its_session_runs(tmp_path: Path) -> None:
    path, other = tmp_path / "model.onnx", tmp_path / "other.onnx"
    for each in (path, other):
        each.write_bytes(model())
    with child.ahead(path, **HOW):
        (loading,) = child._ahead
        with RemoteSession(other, threads=1) as session, RemoteSession(path, threads=2) as third:
            assert loading not in (session._child, third._child) and child._ahead == [loading]
        with RemoteSession(path, threads=1) as session:
            assert session._child is loading and child._ahead == []
            assert session.run(X)["y"].tolist() == [[0, 2, 3]]


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_a_model_loaded_ahead_for_nobody_is_ended(error: type[BaseException] | None, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    with contextlib.suppress(KeyboardInterrupt, ValueError), child.ahead(path, **HOW):
        (loading,) = child._ahead
        if error is not None:
            raise error
    assert loading.process.returncode == -signal.SIGKILL and child._ahead == []


def test_what_onnxruntime_refuses_ahead_is_told_by_the_session(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with child.ahead(path, **HOW), pytest.raises(RunError, match="onnxruntime refuses it") as told:
        RemoteSession(path, threads=1)
    assert told.value.kind == "load" and child._ahead == []


def test_compare_has_its_first_model_loaded_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    begun = []
    monkeypatch.setattr(child, "_taken", lambda one, taken=child._taken: taken(one) and not begun.append(one))
    assert str(compare(path, path).verdict) == "identical" and len(begun) == 1
    for options in ({"run": False}, {"fix": {"x": 1.0}}):
        compare(path, path, **options)
    compare(onnx.load(path), path)
    assert len(begun) == 1


def test_closing_a_session_waits_for_nothing_and_the_next_one_until_it_was_dropped() -> None:
    session = RemoteSession(model(), threads=1)
    process = session._child.process  # type: ignore[union-attr]
    os.kill(process.pid, signal.SIGSTOP)  # as one that takes long to take a graph apart
    session.close()
    assert process.poll() is None and child._idle[-1].process is process
    os.kill(process.pid, signal.SIGCONT)
    with RemoteSession(model(), threads=1) as again:
        assert again._child.process is process  # type: ignore[union-attr]
        assert again.run(X)["y"].tolist() == [[0, 2, 3]]
    os.kill(process.pid, signal.SIGKILL)
    with RemoteSession(model(), threads=1) as again:
        assert again._child.process is not process  # type: ignore[union-attr]
        assert again.run(X)["y"].tolist() == [[0, 2, 3]]


def test_a_process_that_is_not_to_be_kept_ends_with_its_session() -> None:
    for keep in (True, False):
        session = RemoteSession(model())
        process = session._child.process  # type: ignore[union-attr]
        session.close(keep=keep)
        assert (process.poll() is None) == keep


@pytest.mark.parametrize(("scale", "large", "kept"), [(1, 2**20, True), (1, 2**16, False), (2, 2**16, True)])
def test_no_process_idles_beside_a_large_proof(
    scale: float, large: int, kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """But where the outputs are far apart: it serves the search for a witness."""
    monkeypatch.setattr(executions, "_LARGE", large)
    child.end_all()
    values = np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)
    paths = []
    for text, weight in (("y = MatMul(x, w)", values), ("z = MatMul(x, w) y = Identity(z)", values * np.float32(scale))):
        proto = onnx.load_from_string(model(f"g (float[1,128] x) => (float[1,128] y) {{ {text} }}"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
        paths.append(tmp_path / f"{len(paths)}.onnx")
        onnx.save(proto, paths[-1])
    assert str(compare(*paths).verdict) == ("proved" if scale == 1 else "different")
    assert bool(child._idle) == kept


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory a process holds")
def test_what_a_session_was_made_of_is_given_back(tmp_path: Path) -> None:
    """The weights of Convs, which onnxruntime copies into an order of its own, are there once."""
    values = np.random.default_rng(0).standard_normal((16, 256, 256, 3, 3)).astype(np.float32)
    steps = " ".join(f"x{i + 1} = Conv<pads=[1,1,1,1]>(x{i}, w{i})" for i in range(16))
    proto = onnx.load_from_string(model(f"g (float[1,256,4,4] x0) => (float[1,256,4,4] x16) {{ {steps} }}"))
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(values))
    (tmp_path / "small.onnx").write_bytes(model())
    onnx.save(proto, tmp_path / "convs.onnx")

    def held(name: str) -> int:
        with RemoteSession(tmp_path / name, threads=1) as session:
            assert session._child is not None
            pages = Path(f"/proc/{session._child.process.pid}/statm").read_text().split()[1]
            return int(pages) * mmap.PAGESIZE

    assert held("convs.onnx") - held("small.onnx") < 2 * values.nbytes
