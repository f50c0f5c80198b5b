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
import onnx
import pytest

from graphcheck.errors import GraphcheckError
from graphcheck.sweeping import travel
from graphcheck.sweeping.executors import OnDask
from graphcheck.sweeping.manifest import Job
from graphcheck.sweeping.store import Store
from tests.sweeping_support import alive, rows, run, save_model, script, settings, wait_for


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler with its own defaults (a task that kills its worker is tried four times) and two workers."""
    with (
        dask.config.set({"distributed.admin.log-format": "%(message)s"}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            resources={"gpu": 1},
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
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


def blind(folder: str) -> None:
    """On a worker: nothing below this folder is seen, as on a machine with another disk."""
    seen = travel._is
    travel._is = lambda path, wanted: not str(path).startswith(folder) and seen(path, wanted)


def kept(place: str) -> list[str]:
    """On a worker: the models that were sent to it."""
    return sorted(path.name for path in travel._folder(place).glob("*"))


def test_models_travel_to_workers_that_see_another_disk(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, away = tmp_path / "here", tmp_path / "away"
    a = save_model(here / "a.onnx")
    onnx.save(onnx.load(a), here / "out.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    jobs = [Job("same", a, here / "out.onnx"), Job("negated", a, save_model(here / "b.onnx", "Neg"))]
    read: list[str] = []
    contents, one_at_a_time = travel.contents, threading.Lock()

    def contents_then_gone(path: Path) -> travel.Files:
        with one_at_a_time:
            if away.exists():
                away.rename(here)
            read.append(path.name)
            found = contents(path)
            here.rename(away)
        return found

    monkeypatch.setattr(travel, "contents", contents_then_gone)
    workers = OnDask(address, resources={"gpu": 1})
    try:
        assert workers.capacity() == 2 and (workers.memory() or 0) > 0
        workers.client.run(blind, str(here))
        found = run(jobs, settings(witness=str(tmp_path / "witness")), workers, tmp_path / "store")
        away.rename(here)
        assert (found["same"].status, found["negated"].status) == ("identical", "different"), found
        assert set(read) == {"a.onnx", "b.onnx", "out.onnx"} and found["same"].a == str(a)
        with Store(tmp_path / "store") as store:
            result = store.result(found["negated"].key or "") or {}
        assert (result["a"]["path"], result["b"]["path"]) == (str(a), str(here / "b.onnx"))
        assert (
            Path(result["witness"]["path"]).parent == tmp_path / "witness" and Path(result["witness"]["path"]).is_file()
        )
        sent = workers.client.run(kept, workers.client.id)
        assert {len(models) for models in sent.values()} <= {2, 3}
        # What a worker has been sent it has.
        read.clear()
        again = run(jobs[1:], settings(options={"seed": 7}), workers, tmp_path / "store")
        assert again["negated"].status == "different" and len(read) <= 2
        place = workers.client.id
    finally:
        workers.close()
    with distributed.Client(address, set_as_default=False) as client:
        assert set(map(tuple, client.run(kept, place).values())) == {()}
    with pytest.raises(GraphcheckError, match="no worker has gpu=2: start them with dask worker --resources 'gpu=2'"):
        OnDask(address, resources={"gpu": 2})


def test_no_scheduler_there_is_one_sentence() -> None:
    with pytest.raises(GraphcheckError, match=r"^tcp://127\.0\.0\.1:9: no Dask scheduler answers there \("):
        OnDask("tcp://127.0.0.1:9", patience=0.5)
