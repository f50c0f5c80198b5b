"""Who does the work: threads that each wait for a process here, or Dask's workers elsewhere; the task is the same."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from typing import Any, Protocol

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.sweeping.child import run_task

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

    They need graphcheck installed and must see the same files under the same paths. A task that was on a worker that
    died is not tried again, whatever the scheduler's ``allowed-failures`` is for others: it may have killed it.
    """

    def __init__(self, address: str, patience: float = 30.0) -> None:
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
        self.plugin = f"graphcheck-{self.client.id}"
        self.client.register_plugin(_once(self.client.id), name=self.plugin)
        self.executor: concurrent.futures.Executor = self.client.get_executor(pure=False, retries=0)

    def submit(self, task: dict[str, Any]) -> Answer:
        return self.executor.submit(run_task, task)

    def capacity(self) -> int:
        return int(sum(self.client.nthreads().values()))

    def memory(self) -> int | None:
        """Bytes for each task, by the limits that the workers were started with; None if they have none."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return min((w["memory_limit"] // w["nthreads"] for w in workers if w["memory_limit"]), default=None)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the scheduler may have gone before us
            self.executor.shutdown(wait=False)
            self.client.unregister_scheduler_plugin(self.plugin)
        self.client.close()


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
