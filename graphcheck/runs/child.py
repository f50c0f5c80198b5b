"""onnxruntime in a child process, so that its crash or hang is a result: sessions as in :mod:`runtime`, one process each.

A child that has done its work waits for the next session, so that only the first one pays for its start. What goes
through the pipes is JSON and plain bytes: a child that a hostile model has taken over can send wrong numbers, no objects.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import struct
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from graphcheck import limits, processes
from graphcheck.errors import ModelError, UsageError
from graphcheck.runs import early
from graphcheck.runs.session import Arrays, RunError, Source, load, prepare

if TYPE_CHECKING:
    import onnx_ir as ir

_LONGEST_HEADER = 2**28
_SIZE = struct.Struct("<Q")
_DROPS = 30.0  # seconds that dropping a session may take


class RemoteSession:
    """A loaded model in a child process; use as a context manager, or ``close`` it, to give the process back.

    ``seconds`` is the wall time of the last run. Each call may take ``timeout`` seconds, and no more than half of the time
    that ``bounds`` leave (None: the limits in force, which another thread does not see). Raises :class:`RunError` where
    onnxruntime refuses the model, and :class:`UsageError` for a provider that it has not. ``prepack`` copies the weights
    into an order of onnxruntime's own, which pays in many runs only; ``spinning`` as for :func:`load`.
    """

    def __init__(
        self,
        model: Source,
        *,
        optimizations: str = "on",
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int = 0,
        prepack: bool = False,
        spinning: bool = False,
        timeout: float | None = None,
        bounds: limits.Limits | None = None,
    ) -> None:
        self.name = "model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise ModelError(self.name, "there is no such file")
        self.timeout, self.seconds = timeout, 0.0
        self.bounds = bounds or limits.current()
        options = {
            "optimizations": optimizations,
            "providers": list(providers),
            "threads": threads,
            "prepack": prepack,
            "spinning": spinning,
        }
        task = _loading(model, self.bounds, options)
        given = {"model": np.frombuffer(model, np.uint8)} if isinstance(model, bytes) else {}
        self._child: _Child | None = next((c for c in [*_ahead] if c.asked == task and _taken(c)), None) or _take()
        self._ask(task, given)

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> Arrays:
        """Outputs by name (all, or those asked for); :class:`RunError` of kind ``load``, ``run``, ``crash`` or ``timeout``."""
        return self._ask({"do": "run", "outputs": None if outputs is None else list(outputs)}, inputs)

    def close(self, *, keep: bool = True) -> None:
        """Give the process back; it may then serve another session, or ends if it is not to be kept."""
        child, self._child = self._child, None
        if child is not None and not keep:
            child.kill(0)
        elif child is not None:
            try:
                child.tell({"do": "drop", "memory": self.bounds.memory})
                _idle.append(child)
            except OSError:
                child.kill()

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, task: dict[str, Any], arrays: Mapping[str, Any]) -> Arrays:
        if self._child is None:
            raise RunError(self.name, "onnxruntime is no longer running it", "crash")
        left = max(1.0, 0.5 * (self.bounds.deadline - time.monotonic()))
        timeout = min(left, math.inf if self.timeout is None else self.timeout)
        try:
            answer, found = self._child.ask({"memory": self.bounds.memory} | task, arrays, timeout)
        except TimeoutError:
            self._lose()
            raise RunError(self.name, f"onnxruntime was not done after {timeout:.3g} s", "timeout") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, MemoryError) as error:
            raise RunError(self.name, self._lose(error), "crash") from None
        except BaseException:  # interrupted: the child still works, and what it will answer belongs to nobody
            self._lose()
            raise
        if failure := answer["failure"]:
            if task["do"] == "load":
                self.close()
            if failure["kind"] == "usage":
                raise UsageError(str(failure["cause"]))
            raise RunError(self.name, str(failure["cause"]), str(failure["kind"]), failure["node"])
        self.seconds = float(answer["seconds"])
        return found

    def _lose(self, error: Exception | None = None) -> str:
        """End the child; what to say of its end."""
        child, self._child = self._child, None
        code = child.kill() if child is not None else 0
        if child is not None and child.why:
            return child.why
        if isinstance(error, MemoryError):
            return "its outputs do not fit into the memory"
        return f"onnxruntime crashed ({processes.ended(code)})"


def why_refused(model: ir.Model) -> str | None:
    """Why onnxruntime's CPU provider refuses a model, a crash being a reason like any other; None if it loads it."""
    from graphcheck.files import external  # the child itself needs no onnx_ir

    try:
        with RemoteSession(external.serialized(model), optimizations="off", threads=1):
            return None
    except RunError as error:
        return error.cause[:300]


class _Child:
    """The process and its pipes."""

    def __init__(self) -> None:
        self.process = early.started()
        self.why = ""  # it was ended, if somebody ended it
        self.asked: dict[str, Any] | None = None  # the task that it has, and whose answer nobody has read yet
        _living.add(self)

    def tell(self, task: dict[str, Any]) -> None:
        """Give it a task, the answer to which is what the next :meth:`ask` reads."""
        assert self.process.stdin is not None
        _send(self.process.stdin, task, {})
        self.asked = task

    def ask(self, task: dict[str, Any], arrays: Mapping[str, Any], timeout: float) -> tuple[dict[str, Any], Arrays]:
        """The answer to a task; TimeoutError, or EOFError where the child has ended."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(timeout, stop) if timeout < threading.TIMEOUT_MAX else None
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            assert self.process.stdin is not None and self.process.stdout is not None
            if self.asked is None:
                _send(self.process.stdin, task, arrays)
            self.asked = None
            return _receive(self.process.stdout)
        except (OSError, EOFError):
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def kill(self, wait: float = 0.2) -> int:
        """End it; the exit code, that of a crash if it had ended by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait)
        self.process.kill()
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        return code


_idle: list[_Child] = []  # each was told to drop its session, which of a large graph takes a while; its methods are atomic
_ahead: list[_Child] = []  # those that load a model for which no session was asked yet
_living: weakref.WeakSet[_Child] = weakref.WeakSet()


def _take() -> _Child:
    with contextlib.suppress(IndexError):
        while True:
            child = _idle.pop()
            with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
                child.ask({}, {}, _DROPS)  # once it has dropped the session before
                return child
            child.kill()
    return _Child()


def _taken(child: _Child) -> bool:
    """Whether it was among those that load ahead, and no longer is."""
    with contextlib.suppress(ValueError):
        _ahead.remove(child)
        return True
    return False


def _loading(model: Source, bounds: limits.Limits, options: dict[str, Any]) -> dict[str, Any]:
    """The task of loading a model."""
    path = None if isinstance(model, bytes) else str(Path(model).resolve())
    return {"do": "load", "options": options, "model": path, "folder": getattr(model, "folder", ""), "memory": bounds.memory}


@contextlib.contextmanager
def ahead(model: os.PathLike[str] | str, **options: Any) -> Iterator[None]:
    """While it lasts, a file is being loaded for the session that will be asked for with these ``options``; its process is
    ended where none was."""
    child, task = _take(), _loading(model, limits.current(), options)
    with contextlib.suppress(OSError):
        child.tell(task)
        _ahead.append(child)
    try:
        yield
    finally:
        if _taken(child):
            child.kill(0)


def end_all(why: str = "") -> None:
    """End every child, busy or not: a run in another thread then fails at once, with the reason ``why``."""
    for child in list(_living):
        child.why = why
        child.process.kill()
        child.process.wait()
    end_idle()


def end_idle() -> None:
    """End the children that wait for a session."""
    with contextlib.suppress(IndexError):
        while True:
            _idle.pop().kill(0)


atexit.register(end_all)
if hasattr(os, "register_at_fork"):
    for theirs in (_idle, _ahead):  # they answer to the parent
        os.register_at_fork(after_in_child=theirs.clear)


def _send(pipe: IO[bytes], header: dict[str, Any], arrays: Mapping[str, Any]) -> None:
    index, blobs = [], []
    for name, array in arrays.items():
        array = np.asarray(array)
        text = array.dtype.kind in "OSUT"
        blob = memoryview(json.dumps(array.astype(str).ravel().tolist()).encode()) if text else _octets(array)
        index.append([name, "string" if text else array.dtype.name, list(array.shape), blob.nbytes])
        blobs.append(blob)
    head = json.dumps(header | {"arrays": index}).encode()
    pipe.write(_SIZE.pack(len(head)) + head)
    for blob in blobs:
        pipe.write(blob)
    pipe.flush()


def _octets(array: np.ndarray[Any, Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], Arrays]:
    (size,) = _SIZE.unpack(_read(pipe, _SIZE.size))
    if size > _LONGEST_HEADER:
        raise ValueError("a header of onnxruntime's child is longer than any header that it writes")
    header = json.loads(_read(pipe, size))
    arrays = {}
    for name, dtype, shape, count in header["arrays"]:
        data = _read(pipe, count)
        if dtype == "string":
            arrays[name] = np.array(json.loads(data), dtype=object).reshape(shape)
        else:
            arrays[name] = np.frombuffer(data, np.dtype(getattr(ml_dtypes, dtype, dtype))).reshape(shape)
    return header, arrays


def _read(pipe: IO[bytes], count: int) -> bytearray:
    data = bytearray(count)
    view, at = memoryview(data), 0
    while at < count:
        got = pipe.readinto(view[at:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        at += got
    return data


class _Bytes(bytes):
    """A serialized model, and the folder of its external data."""

    folder: str = ""


def serve() -> None:
    """What the child does: load and run, as told on standard input, until that ends or the parent is gone."""
    tasks, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    processes.end_with_parent(lambda: os._exit(0))
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(Exception):  # before there is anything to do; the first task tells why it is not possible
        prepare()
    session = None
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            task, arrays = _receive(tasks)
            failure: dict[str, Any] | None = None
            found: Arrays = {}
            seconds = 0.0
            try:
                with limits.of_process(task["memory"]):
                    start = time.perf_counter()
                    if task["do"] == "load":
                        session = None
                        source = task["model"] if task["model"] is not None else _Bytes(arrays["model"])
                        if isinstance(source, _Bytes):
                            source.folder = task["folder"]
                        session = load(source, **task["options"])
                        processes.return_memory()  # of the graphs that it was made of; of a ResNet-50 half of what there is
                    elif task["do"] == "run" and session is not None:
                        found = session.run(arrays, task["outputs"])
                    else:
                        session = None
                        processes.return_memory()
                    seconds = time.perf_counter() - start
            except MemoryError:
                failure = {"cause": "the memory limit was reached", "node": None, "kind": task["do"]}
            except UsageError as error:
                failure = {"cause": str(error), "node": None, "kind": "usage"}
            except ModelError as error:
                failure = {"cause": error.cause, "node": error.node, "kind": getattr(error, "kind", "load")}
            except Exception as error:
                failure = {"cause": f"onnxruntime failed: {error}"[:300], "node": None, "kind": task["do"]}
            _send(answers, {"failure": failure, "seconds": seconds}, found)
    os._exit(0)
