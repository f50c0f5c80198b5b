"""The process in which onnxruntime runs, begun while this one still imports what it needs: on two cores both are in time.

Needs the standard library alone.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from graphcheck import processes

_START = "from graphcheck.runs.child import serve; serve()"

_begun: list[subprocess.Popen[bytes]] = []  # its methods are atomic


def start() -> subprocess.Popen[bytes]:
    """A process that serves as :func:`graphcheck.runs.child.serve` does."""
    return subprocess.Popen(
        [*processes.PYTHON, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # onnxruntime 1.32 reports every run to its makers unless told not to before it is imported
        env={"ORT_DISABLE_TELEMETRY": "1"} | processes.environment(),
    )


def started() -> subprocess.Popen[bytes]:
    """The one that was begun, or a new one."""
    try:
        return _begun.pop()
    except IndexError:
        return start()


@contextlib.contextmanager
def begun(wanted: bool) -> Iterator[None]:
    """Begin one, where it is wanted; it is ended where nobody took it."""
    if wanted:
        _begun.append(start())
    try:
        yield
    finally:
        with contextlib.suppress(IndexError):
            process = _begun.pop()
            process.kill()
            process.communicate()
