"""One task in a process of its own, with limits on time and memory: whatever happens there is a result here."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from graphcheck import processes
from graphcheck.words import size

_POLL = 0.05  # seconds between two looks at the memory: at the 5 GB/s at which a core fills pages, 250 MB
_LONGEST_ANSWER = 2**30
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

WORKER = (*processes.PYTHON, "-m", "graphcheck.sweeping.worker")


class Stopped(Exception):
    """The sweep was interrupted; the task has no result."""


def run_task(
    task: dict[str, Any], stop: threading.Event | None = None, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """The fields of an outcome (status, reason, failure, seconds, memory, result) of ``task``; a failure is one too.

    ``task["timeout"]`` is in seconds of wall time, ``task["max_memory"]`` in bytes of memory that the process and its
    children hold and that is not part of a file. ``command`` takes the worker's place in tests. Raises
    :class:`Stopped`, and leaves no process, once ``stop`` is set.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            list(command or WORKER), stdin=subprocess.PIPE, stdout=out, stderr=errors, env=_environment(task),
            start_new_session=True,
        )  # fmt: skip
        try:
            # The pipe stays open: its end tells the worker that nobody waits for it any more.
            with contextlib.suppress(BrokenPipeError):
                assert child.stdin is not None
                child.stdin.write(json.dumps(task).encode() + b"\n")
                child.stdin.flush()
            peak, limit = _watch(child, task, start, stop)
        finally:
            _kill(child)
        seconds = time.monotonic() - start
        answer = limit or _answer(out) or _crash(child.returncode, errors)
    return answer | {"seconds": seconds, "memory": peak}


def _watch(
    child: subprocess.Popen[bytes], task: dict[str, Any], start: float, stop: threading.Event | None
) -> tuple[int, dict[str, Any] | None]:
    """(peak memory in bytes, the failure if a limit was reached)."""
    peak = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_POLL)
            return peak, None
        peak = max(peak, sum(map(_held, _tree(child.pid))))
        if peak > task["max_memory"]:
            return peak, failure("undecided", "memory", f"the memory limit of {size(task['max_memory'])} was reached")
        if time.monotonic() - start > task["timeout"]:
            return peak, failure("undecided", "timeout", f"the time limit of {task['timeout']:g} s was reached")
        if stop is not None and stop.is_set():
            raise Stopped


def failure(status: str, kind: str, reason: str, code: str | None = None) -> dict[str, Any]:
    """The fields of an outcome without a result; without a ``code`` the reason has that of its ``kind``."""
    return {"status": status, "reason": reason, "failure": kind, "result": None, "code": code}


def _answer(out: IO[bytes]) -> dict[str, Any] | None:
    out.seek(0)
    try:
        answer = json.loads(out.read(_LONGEST_ANSWER))
    except ValueError:
        return None
    wanted = {"status", "reason", "failure", "result"}
    return answer if isinstance(answer, dict) and wanted <= set(answer) <= wanted | {"code"} else None


def _crash(code: int, errors: IO[bytes]) -> dict[str, Any]:
    """What a process that left no answer left instead."""
    if code < 0:
        how = f"was ended by {processes.ended(code)}" + (", perhaps for want of memory" if -code == signal.SIGKILL else "")
    else:
        how = f"ended with {processes.ended(code)} and no answer"
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
    said = processes.last_words(errors.read().decode(errors="replace").splitlines())
    return failure("trouble", "crash", f"its process {how}" + (f": {said}" if said else ""))


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End the child and all that it started; it leads a process group of its own."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    if child.poll() is None:
        child.kill()
    child.wait()
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def _environment(task: dict[str, Any]) -> dict[str, str]:
    return processes.environment() | dict.fromkeys(_THREADS, str(task["threads"]))


def _tree(pid: int) -> Iterator[int]:
    """The process and what it started, as far as the system tells (Linux)."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield from _tree(int(child))


def _held(pid: int) -> int:
    """Bytes of memory of a process; pages of mapped files do not count, since the system may take them back."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
        return sum(1024 * int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in fields)
    return 0
