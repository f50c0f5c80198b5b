"""The sweep itself: leaves out what is known, hands out the rest, and stores each answer as it comes."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphcheck.outcome import TROUBLE, Outcome
from graphcheck.sweeping.child import Stopped, failure
from graphcheck.sweeping.executors import Answer, Workers
from graphcheck.sweeping.keys import Settings, digest
from graphcheck.sweeping.manifest import Job
from graphcheck.sweeping.store import Store
from graphcheck.verdict import EXIT_OK

_HASHERS = 4
Digests = dict[Path, tuple[str, str | None]]  # of a file, and why it has none


def sweep(
    jobs: Sequence[Job],
    settings: Settings,
    workers: Workers,
    store: Store,
    *,
    fresh: bool = False,
    retry: bool = False,
    final: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Outcome]:
    """The brief outcome of each job, in order; jobs with equal content are done once.

    With ``fresh`` nothing counts as known, with ``retry`` no failure does, with ``final`` all that is stored does.
    ``progress`` is called once for each job.
    """
    digests = _digests(jobs)
    keys = _keys(jobs, settings, digests)
    found: dict[str, Outcome] = {}
    waiting: dict[str, Job] = {}
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        key = keys[job.name]
        if isinstance(key, Outcome):
            outcomes[job.name] = key
            progress(job.name)
        elif key not in found and key not in waiting:
            old = None if fresh else _known(key, settings, store, retry=retry, final=final)
            if old is not None and _still_there(old, job, settings):
                found[key] = old
            else:
                waiting[key] = job
    for job in jobs:
        if isinstance(key := keys[job.name], str) and waiting.get(key) is not job:
            progress(job.name)
    ready = deque((key, job, task_of(job, settings, digests)) for key, job in waiting.items())
    found |= _work(ready, settings, workers, store, progress)
    for job in jobs:
        key = keys[job.name]
        if isinstance(key, str):
            outcomes[job.name] = _named(found[key], job)
    return [outcomes[job.name] for job in jobs]


def _known(key: str, settings: Settings, store: Store, *, retry: bool, final: bool) -> Outcome | None:
    return store.known(key, timeout=settings.timeout, max_memory=settings.max_memory, retry=retry, final=final)


def _work(
    waiting: deque[tuple[str, Job, dict[str, Any]]],
    settings: Settings,
    workers: Workers,
    store: Store,
    progress: Callable[[str], None],
) -> dict[str, Outcome]:
    done: dict[str, Outcome] = {}
    running: dict[Answer, tuple[str, Job]] = {}
    while waiting or running:
        room = max(1, workers.capacity()) if waiting else 0
        while waiting and len(running) < room:
            key, job, task = waiting.popleft()
            running[workers.submit(task)] = (key, job)
        ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in ended:
            key, job = running.pop(future)
            outcome = _named(Outcome(job.name, **_answer(future), key=key), job)
            store.put(key, outcome, timeout=settings.timeout, max_memory=settings.max_memory)
            done[key] = outcome.brief()
            progress(job.name)
    return done


def _answer(future: Answer) -> dict[str, Any]:
    try:
        return future.result()
    except Stopped:
        raise KeyboardInterrupt from None
    except concurrent.futures.CancelledError:
        return failure(TROUBLE, "lost", "the connection to the workers was lost")
    except Exception as error:  # whatever a cluster may raise; a task itself raises nothing
        text = " ".join(str(error).split())[:200]
        return failure(TROUBLE, "lost", f"the worker died or failed ({type(error).__name__}: {text})")


def task_of(job: Job, settings: Settings, digests: Digests) -> dict[str, Any]:
    """The task as a worker takes it: plain data, absolute paths, and the digests of the models by these paths."""
    names = {
        "a": _absolute(job.a),
        "b": job.b and _absolute(job.b),
        "reduce": settings.reduce and _absolute(Path(settings.reduce, _file_name(job.name))),
        "witness": settings.witness and _absolute(Path(settings.witness)),
        "out": _out(job, settings),
    }
    fields = dataclasses.asdict(settings) | {"options": dict(settings.options), "command": list(settings.command)}
    known = {_absolute(path): digests[path][0] for path in (job.a, job.b) if path is not None}
    return fields | names | {"digests": known}


def _out(job: Job, settings: Settings) -> str | None:
    return settings.out and _absolute(Path(settings.out, f"{_file_name(job.name)}.onnx"))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _file_name(name: str) -> str:
    """A name as a path below a folder: folders stay, anything unusual does not."""
    parts = [re.sub(r"[^\w.=+-]+", "-", part).strip(".-") for part in name.split("/")]
    return "/".join(filter(None, parts))[:200] or "model"


def _digests(jobs: Sequence[Job]) -> Digests:
    """Each file is hashed once, several at a time."""
    files = {path for job in jobs if not job.problem for path in (job.a, job.b) if path is not None}
    with concurrent.futures.ThreadPoolExecutor(_HASHERS) as pool:
        return dict(zip(files, pool.map(_try_digest, files), strict=True))


def _keys(jobs: Sequence[Job], settings: Settings, digests: Digests) -> dict[str, str | Outcome]:
    """The key of each job, or why it has none."""
    keys: dict[str, str | Outcome] = {}
    for job in jobs:
        paths = [path for path in (job.a, job.b) if path is not None]
        problem = job.problem or next((f"{job.a}: {text}" for p in paths for text in [digests[p][1]] if text), None)
        if problem:
            keys[job.name] = _named(Outcome(job.name, **failure(TROUBLE, "error", problem)), job)
        else:
            keys[job.name] = settings.key([digests[path][0] for path in paths])
    return keys


def _try_digest(path: Path) -> tuple[str, str | None]:
    try:
        return digest(path), None
    except FileNotFoundError:
        return "", f"there is no file {path}"
    except OSError as error:
        return "", f"{path} cannot be read: {error.strerror}"
    except ValueError:  # a manifest may hold what no file name can
        return "", "its name cannot be the name of a file"


def _named(outcome: Outcome, job: Job) -> Outcome:
    """The outcome as that of ``job``: an old or shared one carries another's name."""
    return dataclasses.replace(outcome, name=job.name, a=str(job.a), b=None if job.b is None else str(job.b))


def _still_there(old: Outcome, job: Job, settings: Settings) -> bool:
    """Whether what ``old`` wrote is where this sweep wants it; what was not proved wrote nothing."""
    target = _out(job, settings)
    if target is None or old.failure or old.exit_code() != EXIT_OK:
        return True
    return (old.result or {}).get("output") == target and os.path.exists(target)
