"""A sweep on a real Dask cluster, its workers in processes of their own, one of them killed in the middle."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dask
import distributed
import pytest

from graphcheck.errors import GraphcheckError
from graphcheck.sweeping.executors import OnDask
from graphcheck.sweeping.manifest import Job
from tests.sweeping_support import alive, rows, run, save_model, script, settings, wait_for


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with its own defaults (a task that kills its worker is tried four times) and two workers."""
    with (
        dask.config.set({"distributed.admin.log-format": "%(message)s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
        ) as cluster,
    ):
        assert cluster.scheduler.allowed_failures == 3
        yield cluster.scheduler_address


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_worker_costs_its_pair_a_recorded_failure_and_nothing_else(address: str, tmp_path: Path) -> None:
    jobs = [
        Job(name, save_model(tmp_path / f"{name}.onnx", last=i))
        for i, name in enumerate(("one", "victim", "two", "three", "four"))
    ]
    hang = f"if given.stem == 'victim' and Path({str(tmp_path)!r}, 'hang').exists():"
    log = f"open({str(tmp_path / 'log')!r}, 'a').write(f'{{given.stem}} {{os.getpid()}}\\n')"
    command = script(tmp_path, f"{log}\n{hang}\n    time.sleep(60)")
    what = settings("guard", command=tuple(command.split()))
    (tmp_path / "hang").touch()
    (tmp_path / "log").touch()

    def tried() -> list[int]:
        return [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines() if "victim" in line]

    def kill() -> None:
        guard = wait_for(tried)[0]
        os.kill(parent(parent(guard)), signal.SIGKILL)  # the guard's command, our process, Dask's worker

    killer = threading.Thread(target=kill)
    killer.start()
    workers = OnDask(address)
    try:
        assert workers.capacity() == 2 and (workers.memory() or 0) > 0
        found = run(jobs, what, workers, tmp_path / "store")
        killer.join()
        lost = found.pop("victim")
        assert (lost.status, lost.failure) == ("trouble", "lost") and "KilledWorker" in lost.reason
        assert {outcome.status for outcome in found.values()} == {"identical"}
        assert len(rows(tmp_path / "store")) == 5, "all, none twice"
        (guard,) = tried()
        wait_for(lambda: not alive(guard))
        (tmp_path / "hang").unlink()
        found = run(jobs, what, workers, tmp_path / "store")
    finally:
        workers.close()
    assert [(name, o.status) for name, o in found.items() if not o.known] == [("victim", "identical")]
    assert len(rows(tmp_path / "store")) == 5 and len(tried()) == 2


def test_no_scheduler_there_is_one_sentence() -> None:
    with pytest.raises(GraphcheckError, match=r"^tcp://127\.0\.0\.1:9: no Dask scheduler answers there \("):
        OnDask("tcp://127.0.0.1:9", patience=0.5)
