"""Who does the work: threads that each wait for a process here, or Dask's workers elsewhere; the task is the same."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.sweeping import travel
from graphcheck.sweeping.child import failure, run_task

Answer = concurrent.futures.Future[dict[str, Any]]


class Workers(Protocol):
    """Where tasks go. A future's exception, other than its cancellation, means that its worker died."""

    def submit(self, task: dict[str, Any]) -> Answer:
        """The future answer to ``task``."""

    def capacity(self) -> int:
        """How many tasks can run at once now: no more are handed over, so that a death costs only what was running."""

    def close(self) -> None:
        """End what still runs, and wait for its end."""


class Local:
    """``jobs`` processes on this machine, one for each task.

    They are started by threads: a process that dies breaks nothing but its task, whereas it would break every pending
    future of a ProcessPoolExecutor.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self.stop = threading.Event()
        self.executor: concurrent.futures.Executor = concurrent.futures.ThreadPoolExecutor(jobs, "graphcheck-sweep")

    def submit(self, task: dict[str, Any]) -> Answer:
        return self.executor.submit(run_task, task, self.stop)

    def capacity(self) -> int:
        return self.jobs

    def close(self) -> None:
        self.stop.set()
        self.executor.shutdown(wait=True, cancel_futures=True)


class OnDask:
    """The workers of a Dask cluster, through ``Client.get_executor()``; a worker runs a task for each of its threads.

    They need graphcheck installed. A worker that does not see the models is sent them, by their content. A task that was
    on a worker that died is not tried again, whatever the scheduler's ``allowed-failures`` is for others: it may have
    killed it. ``resources`` are what each task asks for, as workers were started with.
    """

    def __init__(self, address: str, patience: float = 30.0, resources: Mapping[str, float] | None = None) -> None:
        try:
            import distributed
        except ImportError:
            raise UsageError("--dask needs Dask: pip install 'graphcheck[dask]'") from None
        try:
            dask: Any = distributed  # has no types
            self.client = dask.Client(address, timeout=patience, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            text = str(error).splitlines() or [type(error).__name__]
            raise GraphcheckError(f"{address}: no Dask scheduler answers there ({text[0]})") from None
        self.senders = concurrent.futures.ThreadPoolExecutor(2, "graphcheck-send")
        self.plugin = f"graphcheck-{self.client.id}"
        self.client.register_plugin(_once(self.client.id), name=self.plugin)
        self.resources = dict(resources or {})
        asked = {"resources": self.resources} if self.resources else {}
        if self.resources and self._workers() and not self.capacity():
            wanted = " ".join(f"{name}={need:g}" for name, need in self.resources.items())
            self.client.close()
            raise GraphcheckError(f"{address}: no worker has {wanted}: start them with dask worker --resources '{wanted}'")
        self.executor: concurrent.futures.Executor = self.client.get_executor(pure=False, retries=0, **asked)

    def submit(self, task: dict[str, Any]) -> Answer:
        answer: Answer = concurrent.futures.Future()
        self._try(task, answer, {}, None)
        return answer

    def _try(self, task: dict[str, Any], answer: Answer, sent: Mapping[str, Any], at: str | None) -> None:
        """Have a worker, best the one ``at`` this address, do the task with models that were sent to it, by digest."""
        best: dict[str, Any] = {"workers": [at], "allow_other_workers": True} if at else {}

        def done(future: Answer) -> None:  # called where Dask must not be waited for
            try:
                made = future.result()
                if "lacks" not in made:
                    answer.set_result(travel.received(task, made))
                elif sent and at is None:
                    answer.set_result(_not_there(made["lacks"]))
                else:
                    self.senders.submit(self._send, task, answer, made["lacks"], None if sent else made["at"])
            except BaseException as error:  # whatever a cluster may raise
                answer.set_exception(error)

        self.executor.submit(travel.perform, task, dict(sent), self.client.id, **best).add_done_callback(done)

    def _send(self, task: dict[str, Any], answer: Answer, lacking: Sequence[str], at: str | None) -> None:
        """Send models to the worker that lacks them, and the task after them; without ``at``, all to whoever comes."""
        try:
            paths = {wanted: path for path, wanted in task["digests"].items() if at is None or wanted in lacking}
            models = [travel.contents(Path(path)) for path in paths.values()]
            moved = self.client.scatter(models, workers=[at] if at else None)
            self._try(task, answer, dict(zip(paths, moved, strict=True)), at)
        except Exception as error:
            answer.set_exception(error)

    def capacity(self) -> int:
        return sum(map(self._room, self._workers()))

    def _workers(self) -> list[dict[str, Any]]:
        return list(self.client.scheduler_info(n_workers=-1)["workers"].values())

    def _room(self, worker: Mapping[str, Any]) -> int:
        """How many tasks a worker can run at once: of its threads, those for which it has what a task asks for."""
        has = worker.get("resources") or {}
        return min([int(worker["nthreads"]), *(int(has.get(name, 0) // need) for name, need in self.resources.items())])

    def memory(self) -> int | None:
        """Bytes for each task, by the limits that the workers were started with; None if they have none."""
        workers = [w for w in self._workers() if self._room(w)] or self._workers()
        return min((w["memory_limit"] // w["nthreads"] for w in workers if w["memory_limit"]), default=None)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the scheduler may have gone before us
            self.executor.shutdown(wait=False)
            self.senders.shutdown(wait=False, cancel_futures=True)
            self.client.run(travel.forget, self.client.id)
            self.client.unregister_scheduler_plugin(self.plugin)
        self.client.close()


def _not_there(lacking: Sequence[str]) -> dict[str, Any]:
    reason = f"the worker could not keep the models that were sent to it ({', '.join(one[:12] for one in lacking)})"
    return failure("trouble", "error", reason) | {"seconds": 0.0, "memory": 0}


def _once(client_id: str) -> Any:
    """A scheduler plugin: this client's tasks count as failed as often as is allowed, so one death is their end."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Once(SchedulerPlugin):  # inside, so that it travels by value: no graphcheck needed there
        def update_graph(self, scheduler: Any, *, client: str, keys: Any, **_: Any) -> None:
            for key in keys if client == client_id else ():
                state = scheduler.tasks.get(key)
                if state is not None:
                    state.suspicious = max(state.suspicious, scheduler.allowed_failures)

    return Once()
