"""A task in a process of its own: whatever happens there is one result, in time, and no process is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from graphcheck.sweeping.child import Stopped, run_task
from graphcheck.sweeping.manifest import Job
from graphcheck.sweeping.run import task_of
from tests.sweeping_support import LIMITS, alive, save_model, script, settings, wait_for

TASK: dict[str, Any] = {"do": "compare", "threads": 1} | LIMITS


def child(code: str, **limits: Any) -> dict[str, Any]:
    return run_task(TASK | limits, command=[sys.executable, "-S", "-c", f"import os, sys, time, subprocess\n{code}"])


def test_a_crash_is_trouble_with_its_signal_and_its_last_words() -> None:
    found = child("print('out of luck', file=sys.stderr, flush=True); os.abort()")
    assert (found["status"], found["failure"], found["result"]) == ("trouble", "crash", None)
    assert found["reason"] == "its process was ended by SIGABRT: out of luck"
    killed = child("os.kill(os.getpid(), 9)")
    assert killed["reason"] == "its process was ended by SIGKILL, perhaps for want of memory"


@pytest.mark.parametrize("said", ["", "no JSON", "[]", '{"status": "proved"}'])
def test_an_end_without_a_whole_answer_is_trouble(said: str) -> None:
    found = child(f"print({said!r})")
    assert (found["status"], found["failure"]) == ("trouble", "crash")
    assert found["reason"] == "its process ended with exit code 0 and no answer"


def test_an_answer_is_taken() -> None:
    found = child("""print('{"status": "proved", "reason": "r", "failure": null, "result": {"a": 1}}')""")
    assert found["status"] == "proved" and found["result"] == {"a": 1} and found["seconds"] > 0


def test_the_time_limit_is_undecided_and_leaves_no_process(tmp_path: Path) -> None:
    code = f"p = subprocess.Popen(['sleep', '60']); open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); p.wait()"
    found = child(code, timeout=2.5)
    assert (found["status"], found["failure"]) == ("undecided", "timeout")
    assert found["reason"] == "the time limit of 2.5 s was reached"
    wait_for(lambda: not alive(int((tmp_path / "pid").read_text())))


TAKE = "x = b'x' * (300 * 2**20); time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by /proc")
@pytest.mark.parametrize("code", [TAKE, f"subprocess.run([sys.executable, '-S', '-c', {('import time; ' + TAKE)!r}])"])
def test_the_memory_limit_counts_children_too(code: str) -> None:
    found = child(code, max_memory=150 * 2**20, timeout=30.0)
    assert (found["status"], found["failure"]) == ("undecided", "memory")
    assert found["reason"] == "the memory limit of 150 MiB was reached" and found["memory"] > 150 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="memory is watched by /proc")
def test_mapped_files_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(200 * 2**20))
    code = f"import mmap; m = mmap.mmap(os.open({str(file)!r}, 0), 0, prot=mmap.PROT_READ); m[::4096]; time.sleep(0.2)"
    found = child(code, max_memory=150 * 2**20)
    assert found["failure"] == "crash" and 0 < found["memory"] < 100 * 2**20  # it ended by itself, without an answer


def test_stop_ends_it(tmp_path: Path) -> None:
    stop, pid = threading.Event(), tmp_path / "pid"

    def stopping() -> None:
        wait_for(lambda: pid.exists() and pid.read_text())
        stop.set()

    threading.Thread(target=stopping).start()
    code = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    with pytest.raises(Stopped):
        run_task(TASK, stop, [sys.executable, "-S", "-c", code])
    wait_for(lambda: not alive(int(pid.read_text())))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Killed outright, a sweep or Dask worker can end nobody: its tasks must do so themselves, with their children."""
    command = script(tmp_path, f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)")
    what = settings("guard", command=tuple(command.split()))
    model = save_model(tmp_path / "m.onnx")
    task = task_of(Job("m", model), what, {model: ("digest", None)})
    code = f"from graphcheck.sweeping.child import run_task\nrun_task({task!r})"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        guard = int((tmp_path / "pid").read_text())
        worker = int(Path(f"/proc/{guard}/stat").read_text().rpartition(")")[2].split()[1])
        assert alive(worker) and worker != parent.pid
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not alive(worker) and not alive(guard))


def test_the_worker_answers_errors_in_words(tmp_path: Path) -> None:
    sides = tmp_path / "absent.onnx", tmp_path / "b.onnx"
    found = run_task(task_of(Job("m", *sides), settings(), dict.fromkeys(sides, ("digest", None))))
    assert (found["status"], found["failure"]) == ("trouble", "error")
    assert found["reason"] == f"{tmp_path / 'absent.onnx'}: there is no such file"
