"""Whole processes against each other: wall time, CPU time and peak memory of a command and its children."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_STEP = 0.02


@dataclasses.dataclass(frozen=True)
class Sample:
    """One run: seconds of wall and CPU time, peak resident MiB of the whole tree of processes, the exit code."""

    wall: float
    cpu: float
    memory: float
    code: int


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 900) -> Sample:
    """Run a command to its end and measure it; its output is thrown away."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env) as process:
        peak = _Peak(process.pid)
        peak.start()
        code = process.wait(timeout)
        wall = time.perf_counter() - start
        peak.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sample(wall, cpu, peak.mebibytes, code)


class _Peak(threading.Thread):
    """Samples the resident memory of a process and its descendants (Linux)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.mebibytes, self._ended = pid, 0.0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_STEP):
            self.mebibytes = max(self.mebibytes, sum(map(_resident, _tree(self.pid))) / 2**20)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _tree(pid: int) -> list[int]:
    found, stack = [], [pid]
    while stack:
        current = stack.pop()
        found.append(current)
        with contextlib.suppress(OSError):  # it may end at any moment
            for task in Path(f"/proc/{current}/task").glob("*/children"):
                stack += [int(child) for child in task.read_text().split()]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def interleaved(commands: Mapping[str, Sequence[str]], rounds: int, warm_up: int = 1) -> dict[str, list[Sample]]:
    """Every command in turn, round after round, so that a drift of the machine's speed hits all alike."""
    samples: dict[str, list[Sample]] = {name: [] for name in commands}
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    for number in range(-warm_up, rounds):
        for name, command in commands.items():
            sample = run(command, env=env)
            if number >= 0:
                samples[name].append(sample)
    return samples


def table(samples: Mapping[str, Sequence[Sample]], against: Mapping[str, str]) -> list[str]:
    """Markdown rows: medians, and ratios of medians to the command named in ``against`` for each."""
    rows = [
        "| command | wall s | CPU s | peak MiB | exit | wall ratio | memory ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    middle = {name: median(found) for name, found in samples.items()}
    for name, sample in middle.items():
        base = middle.get(against.get(name, ""))
        ratios = (
            [f"{sample.wall / base.wall:.2f}x {against[name]}", f"{sample.memory / base.memory:.2f}x"]
            if base
            else ["", ""]
        )
        rows.append(
            f"| {name} | {sample.wall:.2f} | {sample.cpu:.2f} | {sample.memory:.0f} | {sample.code} | {' | '.join(ratios)} |"
        )
    return rows


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each figure."""
    columns = zip(*(dataclasses.astuple(s)[:3] for s in samples), strict=True)
    wall, cpu, memory = (statistics.median(column) for column in columns)
    return Sample(wall, cpu, memory, samples[-1].code)


def python(*arguments: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *arguments]
