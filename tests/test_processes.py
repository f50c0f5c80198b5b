"""Whatever ends the command line's work is told by its parent, and a signal leaves no damaged output and no file behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import graphcheck
from graphcheck import processes, reporting
from graphcheck.files import model as model_
from graphcheck.formats.json import read_json
from tests.patch_cases import patchify
from tests.sweeping_support import save_model, wait_for

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs sigtimedwait, and looks into /proc")
HEAD = f"""import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from graphcheck import limits, processes
code = processes.supervised(lambda target, text: open(target, "w").write(text))
if code is not None:
    sys.exit(code)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(1)"


def watched(work: str) -> tuple[int, str]:
    """(exit code, what was said) of ``work`` in a watched child."""
    done = subprocess.run([sys.executable, "-c", HEAD + work], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_childs_code_is_the_parents(code: int) -> None:
    assert watched(f"sys.exit({code})") == (code, "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("SIGBUS", ": a file was cut short, or could not be read, while it was in use"),
        ("SIGSEGV", ""),
        ("SIGKILL", ": perhaps for want of memory"),
    ],
)
def test_a_crash_is_one_sentence(name: str, why: str) -> None:
    code, said = watched(f"os.kill(os.getpid(), signal.{name})")
    assert (code, said) == (2, f"graphcheck: its process was ended by {name}{why}\n")


def test_a_computation_that_looks_at_no_limit_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = "processes._GRACE = processes._LAST = 0.2\n"
    head = HEAD.replace("code =", f"{shorter}code =")
    done = subprocess.run(
        [sys.executable, "-c", f"{head}limits.begin(2**30, 0.3)\n{DEAF}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (3, "graphcheck: undecided: the time limit of 0.3 s was reached\n")


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_left_is_written_where_the_time_ends_a_process(kept: bool, tmp_path: Path) -> None:
    shorter = "processes._GRACE = processes._LAST = 0.2\n"
    head, target = HEAD.replace("code =", f"{shorter}code ="), tmp_path / "left"
    left = f"processes.if_ended({str(target)!r}, 'x' * 5000)\nlimits.begin(2**30, 0.3)\n"
    left += "" if kept else "processes.if_ended(None)\n"
    done = subprocess.run([sys.executable, "-c", f"{head}{left}{DEAF}"], capture_output=True, check=False)
    assert done.returncode == 3 and target.exists() is kept
    assert not kept or target.read_text() == "x" * 5000


def test_a_comparison_that_is_ended_leaves_its_json(tmp_path: Path) -> None:
    path, result, page = (tmp_path / name for name in ("m.onnx", "result.json", "page.html"))
    save_model(path)
    code = f"""import signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from graphcheck import __main__, processes
processes._GRACE = processes._LAST = 0.2
import graphcheck.verdicts.compare as comparing
def deaf(*_):
    {DEAF.replace(chr(10), "; ").replace("; while", chr(10) + "    while")}
comparing.compared = deaf
sys.argv = ["graphcheck", "compare", {str(path)!r}, {str(path)!r}, "--timeout", "0.3", "--json", {str(result)!r}]
sys.exit(__main__.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "graphcheck: undecided: the time limit of 0.3 s was reached\n"), done.stderr
    told = read_json(result)
    assert (told["schema"], told["verdict"], told["code"]) == ("graphcheck/compare/1", "undecided", "GC201")
    assert told["reason"] == "the time limit of 0.3 s was reached" and told["a"] == {"path": str(path)}
    known = graphcheck.compare(path, path, run=False).to_json()
    assert set(told) == {*known, "command"}
    reporting.write([told], page)
    assert told["reason"] in page.read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_child(how: signal.Signals, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    work = f"signal.signal(signal.SIGTERM, signal.SIG_DFL)\nopen({str(ready)!r}, 'w').close()\ntime.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", HEAD + work], stderr=subprocess.DEVNULL)
    wait_for(ready.exists)
    parent.send_signal(how)
    assert parent.wait() == 128 + how


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    work = f"open({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", HEAD + work])
    child = int(wait_for(lambda: pid.exists() and pid.read_text()))
    parent.kill()
    parent.wait()
    wait_for(lambda: not Path(f"/proc/{child}").exists())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model, and a folder for temporary files beside it."""
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    patches = patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48])
    Path("m.onnx").write_bytes(ir.to_proto(patches).SerializeToString())
    save_model(Path("linear.onnx"))
    return tmp_path


COMMANDS = {
    "rewrite": ["rewrite", "m.onnx", "--to", "conv", "-o", "o.onnx", "--json", "o.json", "--report", "o.html"],
    "compare": ["compare", "m.onnx", "m.onnx", "--json", "c.json", "--report", "c.html", "--format", "junit=c.xml"],
    "guard": ["guard", "linear.onnx", "--out", "g.onnx", "--", "cp", "{in}", "{out}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_interrupted_command_leaves_whole_files_or_none(here: Path, name: str, how: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(here / "temporary")}
    for delay in (0.3, 0.8, 1.3):
        running = subprocess.Popen(
            [sys.executable, "-m", "graphcheck", *COMMANDS[name]],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(delay)
        running.send_signal(how)
        running.communicate()  # to the end of the last that writes there: a child whose parent was killed outlives it
        assert running.returncode in (0, 128 + how, -how)
        assert not list((here / "temporary").rglob("*"))
        found = {path.name for path in Path().iterdir()} - {"m.onnx", "linear.onnx"}
        assert found <= {"o.onnx", "o.json", "o.html", "c.json", "c.html", "c.xml", "g.onnx"}
        for path in Path().glob("?.onnx"):
            model_.read(path)
        for file in found:
            Path(file).unlink()


def test_python_looks_for_garbage_less_often_in_a_process_of_our_own_alone() -> None:
    """A program that calls ``main`` keeps its own ways."""
    code = (
        "import gc, sys\nfrom graphcheck import cli, processes\nfrom graphcheck.__main__ import main\n"
        "before = gc.get_threshold()\nassert cli.main(['--version']) == 0 and gc.get_threshold() == before\n"
        "processes.supervised = lambda write: None\nsys.argv = ['graphcheck', '--version']\n"
        "assert main() == 0 and gc.get_threshold()[0] > 10 * before[0] and gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("told", "code", "taken_apart"), [("tell(3)", 3, False), ("0", 0, True)])
def test_python_ends_at_once_with_the_code_that_it_is_told(told: str, code: int, taken_apart: bool) -> None:
    """What is registered for the end is done first, and what is printed is there; objects are not taken apart."""
    text = (
        "import atexit, sys\nfrom graphcheck import processes\ntell = processes.ends_at_once()\n"
        "class Held:\n    def __del__(self): print('taken apart', flush=True)\n"
        f"held = Held()\natexit.register(print, 'registered')\nprint('printed')\nsys.exit({told})"
    )
    run = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (code, "")
    assert run.stdout.splitlines() == ["printed", "registered", *["taken apart"] * taken_apart]


@pytest.mark.parametrize("own", [False, True])
def test_large_arrays_are_mapped_in_a_process_of_our_own_alone(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[Any, ...]] = []
    library = types.SimpleNamespace(
        mallopt=lambda *args: called.append(args), malloc_trim=lambda pad: called.append((pad,))
    )
    monkeypatch.setattr(processes.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(processes, "_own", [True] * own)
    processes.return_memory()
    assert called == [*([(processes._MMAP_THRESHOLD, processes._MAPPED)] * own), (0,)]
