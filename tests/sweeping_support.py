"""Small models, jobs and stand-ins for the tests of sweeping."""

from __future__ import annotations

import concurrent.futures
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir

from graphcheck.sweeping.keys import Settings
from graphcheck.sweeping.manifest import Job
from graphcheck.sweeping.run import sweep
from graphcheck.sweeping.store import Store

LINEAR = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => (float[N,2] y)
  <float[3,2] w = {{1.0, 2.0, 3.0, 4.0, 5.0, {last}}}> {{ h = {op}(x) y = MatMul(h, w) }}"""
LIMITS = {"timeout": 60.0, "max_memory": 2**31}


def save_model(path: Path, op: str = "Identity", last: float = 6.0) -> Path:
    """Writes a model of two nodes; other values of ``op`` and ``last`` are other functions (but for Identity)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    model = ir.from_onnx_text(LINEAR.format(op=op, last=last))
    path.write_bytes(ir.to_proto(model).SerializeToString())
    return path


def settings(do: str = "compare", **fields: Any) -> Settings:
    return Settings(do, fields.pop("options", {}), **LIMITS | fields)


def script(folder: Path, text: str) -> str:
    """A guard command that runs ``text`` with the two files in ``given`` and ``made``; it copies one to the other."""
    path = folder / "guard.py"
    head = "import os, shutil, sys, time\nfrom pathlib import Path\ngiven, made = map(Path, sys.argv[1:])\n"
    path.write_text(f"{head}{text}\nshutil.copyfile(given, made)\n")
    return f"{sys.executable} {path} {{in}} {{out}}"


class Faked:
    """Workers that answer at once by ``answer(task)``; an exception of it is that of the future."""

    def __init__(self, answer: Callable[[dict[str, Any]], dict[str, Any]], room: int = 2) -> None:
        self.answer, self.room = answer, room
        self.tasks: list[dict[str, Any]] = []

    def submit(self, task: dict[str, Any]) -> concurrent.futures.Future[dict[str, Any]]:
        self.tasks.append(task)
        future: concurrent.futures.Future[dict[str, Any]] = concurrent.futures.Future()
        try:
            future.set_result(self.answer(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def capacity(self) -> int:
        return self.room

    def close(self) -> None:
        pass


def answer(status: str = "proved", failure: str | None = None, result: Any = None) -> dict[str, Any]:
    return {
        "status": status, "reason": "because", "failure": failure, "result": result, "seconds": 1.5, "memory": 2**20,
    }  # fmt: skip


def run(jobs: list[Job], what: Settings, workers: Any, store: Path, **options: Any) -> dict[str, Any]:
    """The outcomes by name."""
    with Store(store) as kept:
        return {outcome.name: outcome for outcome in sweep(jobs, what, workers, kept, **options)}


def rows(store: Path) -> list[tuple[str, str]]:
    """(name, status) of what the store holds."""
    with sqlite3.connect(store) as connection:
        found = connection.execute("SELECT name, status FROM results ORDER BY name").fetchall()
    connection.close()
    return found


def wait_for(condition: Callable[[], Any]) -> Any:
    """What ``condition`` returns, once it is true; where it never is, pytest's own timeout fails the test."""
    while not (value := condition()):
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and that nobody has waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
