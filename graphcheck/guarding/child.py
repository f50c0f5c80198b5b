"""``python -m graphcheck.guarding.child TOOL``: the process in which an optimizer is imported, a fork for each pass.

First it writes what the tool is, as a line of JSON, then an answer for each line of JSON on standard input. A pass runs
in a fork, so that the package is imported once, no pass meets what another left behind, and one that crashes is an answer
too. Where there is no fork, a crash ends this process, and who reads it starts another.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphcheck import processes
from graphcheck.guarding import tools
from graphcheck.verdict import version


def main(name: str) -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    tool = tools.load(name)

    def told(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    if version(tool.package) is None:
        told({"value": {"missing": tool.package}})
        return
    for module in tool.modules:
        importlib.import_module(module)
    told(_forked(lambda: _about(tool)))
    for line in sys.stdin:
        task = json.loads(line)
        source, target = Path(task["in"]), Path(task["out"])
        start = time.monotonic()
        if task["passes"] is None and tool.whole is not None:
            done = _forked(lambda: tool.whole(source, target))  # type: ignore[misc]  # noqa: B023
        else:
            done = _forked(lambda: tool.run(task["passes"], source, target))  # noqa: B023
        told(done | {"seconds": time.monotonic() - start})


def _about(tool: tools.Tool) -> dict[str, Any]:
    passes = list(tool.passes())
    others = [name for name in tool.others() if name not in passes]
    whole = tool.whole is not None
    return {"passes": passes, "others": others, "whole": whole, "version": version(tool.package)}


def _forked(work: Callable[[], Any]) -> dict[str, Any]:
    """``{"value": what work returns}`` or ``{"error": one sentence}``."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as result:
        if not hasattr(os, "fork"):
            return _tried(work)
        child = os.fork()
        if child == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            pickle.dump(_tried(work), result)
            result.flush()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        result.seek(0)
        if code == 0:
            answer: dict[str, Any] = pickle.load(result)
            return answer
        said.seek(0)
        last = processes.last_words(said.read().decode(errors="replace").splitlines())
        how = f"was ended by {processes.ended(code)}" if code < 0 else f"ended with {processes.ended(code)}"
        return {"error": f"its process {how}" + (f": {last}" if last else "")}


def _tried(work: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": work()}
    except Exception as raised:  # an optimizer may raise anything
        error: BaseException = raised
        while error.__cause__ is not None:
            error = error.__cause__
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


if __name__ == "__main__":
    main(sys.argv[1])
