"""``python -m graphcheck.sweeping.worker``: a task as a line of JSON on stdin, its answer on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from graphcheck import deferred, outcome, processes
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.sweeping.child import failure
from graphcheck.words import size


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``task``: status, reason, failure and result; what is raised becomes a failure."""
    try:
        done = outcome.of(_DO[task["do"]](task))
        return {"status": done.status, "reason": done.reason, "failure": done.failure, "result": done.result}
    except GraphcheckError as error:
        return failure("trouble", "error", str(error), error.code)
    except Undecided as error:
        return failure("undecided", "error", str(error), error.code)
    except MemoryError:
        return failure("undecided", "memory", f"the memory limit of {size(task['max_memory'])} was reached")
    except Exception as error:
        kind = type(error).__name__
        return failure("trouble", "error", f"graphcheck itself failed ({kind}: {error}); please report it")


def _options(task: dict[str, Any]) -> dict[str, Any]:
    # A tenth of the time is kept for start and end, so that a comparison can end itself and tell how far it came.
    options: dict[str, Any] = task["options"]
    options |= {name: task[name] for name in ("witness", "reduce") if task[name]}
    return options | {"timeout": 0.9 * task["timeout"], "threads": task["threads"]}


def _compare(task: dict[str, Any]) -> Any:
    from graphcheck.verdicts.compare import compare

    return compare(task["a"], task["b"], **_options(task))


def _guard(task: dict[str, Any]) -> Any:
    from graphcheck.guarding.command import guard
    from graphcheck.verdicts.compare import compare

    options = _options(task)
    return guard(Path(task["a"]), task["command"], lambda before, after: compare(before, after, **options))


def _analyze(task: dict[str, Any]) -> Any:
    from graphcheck.files.model import read
    from graphcheck.graphs.structure import graph_json
    from graphcheck.patches.preparing import analyze_json

    model = read(task["a"])
    return analyze_json(model) | {"graph": graph_json(model)}


def _rewrite(task: dict[str, Any]) -> Any:
    from graphcheck.files.model import read
    from graphcheck.files.places import write_model
    from graphcheck.rewriting.rewrite import rewrite
    from graphcheck.verdicts.compare import compare

    options = _options(task) | {"graphs": False, "reduce": None}
    result = rewrite(
        read(task["a"]), task["to"], check=lambda before, after: compare(before, after, **options), **task["rewriting"]
    )
    data = result.to_json()
    if task["out"] and (result.changed or result.verdict is None):
        Path(task["out"]).parent.mkdir(parents=True, exist_ok=True)
        write_model(result.model if result.changed else None, Path(task["a"]), Path(task["out"]))
        data["output"] = task["out"]
    return data


_DO = {"compare": _compare, "guard": _guard, "analyze": _analyze, "rewrite": _rewrite}


def _limit(max_memory: int) -> None:
    """What the system can do: an allocation far beyond the limit fails, and the kernel, out of memory, ends us first.

    Address space is not limited: model files are mapped, and onnxruntime reserves more than it uses. Memory that is
    used is watched from outside.
    """
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = 2 * max_memory + 2**30
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    """Nobody writes a second line: reading ends when whoever started us has gone, and then all of us go."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            raise SystemExit("a task is one line of JSON on standard input")
        line += piece
    return line


def main() -> None:
    """Read, do, answer, end; what libraries print on standard output goes to standard error."""
    processes.keep_objects()
    task = json.loads(_read_line())
    answers = os.dup(1)
    os.dup2(2, 1)
    if os.getpgid(0) == os.getpid():  # alone in its process group, as child.py starts it
        threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(task["max_memory"])
    from graphcheck.formats.json import dumps

    with deferred.modules():
        data = dumps(perform(task)).encode()
    with os.fdopen(answers, "wb") as file:
        file.write(data)
    os._exit(0)  # no library's end of life can spoil the answer any more


if __name__ == "__main__":
    main()
