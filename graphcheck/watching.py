"""The command line's work in a child process, so that whatever ends it is told in one sentence, with a clear exit code.

A crash in a library, a file cut short while it is mapped (SIGBUS), one computation that goes on long after the time limit,
which is looked at between computations: the parent, which does nothing else, outlives them all. Linux; elsewhere the work
is done without a parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
import threading
import time

from graphcheck import limits
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED

_LOOK = 0.5  # seconds between two looks at the clock
_GRACE, _SHARE = 2.0, 0.1  # seconds beyond the time limit, and so much of it, that an orderly end may take
_LAST = 1.0  # seconds between asking the child to end and ending it
_LEAVE = 5.0  # as much for a child that was interrupted, which may have files to take away
_SENT_BY_KERNEL = 0x80  # si_code of a signal from the terminal, which reaches the child as well
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CAUSES = {
    "SIGBUS": "a file was cut short, or could not be read, while it was in use",
    "SIGKILL": "perhaps for want of memory",
}


def watch() -> int | None:
    """Go on in a child process, where this is None; in the parent, the exit code once the child has ended."""
    if not hasattr(signal, "sigtimedwait") or not hasattr(os, "fork") or threading.active_count() > 1:
        return None
    reading, writing = os.pipe()
    waited = {*_SIGNALS, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        limits.listeners.append(lambda given: _tell(writing, given))
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        return None
    os.close(writing)
    os.set_blocking(reading, False)
    return _wait(child, reading, waited)


def _tell(pipe: int, given: limits.Limits) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, struct.pack("dd", given.seconds, given.deadline))


def _end_with(parent: int) -> None:
    """End in an orderly way once nobody waits for the answer."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait(child: int, pipe: int, signals: set[signal.Signals]) -> int:
    """Wait for the child, hand it the signals that come, and end it where it does not end in time."""
    limit = end = float("inf")  # seconds, and when the child is told to end
    asked: signal.Signals | None = None  # how it was, and because of the time where that is SIGALRM
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _code(os.waitstatus_to_exitcode(status), limit, asked)
        with contextlib.suppress(BlockingIOError):
            if asked is None and (told := os.read(pipe, 16)):
                limit, deadline = struct.unpack("dd", told)
                end = deadline + _GRACE + _SHARE * limit
        if time.monotonic() > end:
            os.kill(child, signal.SIGTERM if asked is None else signal.SIGKILL)
            asked, end = asked or signal.SIGALRM, time.monotonic() + _LAST
        came = signal.sigtimedwait(signals, _LOOK)
        if came is not None and came.si_signo in _SIGNALS and asked is None:
            if came.si_code != _SENT_BY_KERNEL:
                os.kill(child, came.si_signo)
            asked, end = signal.Signals(came.si_signo), time.monotonic() + _LEAVE


def _code(code: int, limit: float, asked: signal.Signals | None) -> int:
    if code in (EXIT_OK, EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_UNDECIDED):
        return code  # it had its answer all the same
    if asked is signal.SIGALRM:
        return _say(f"undecided: the time limit of {limit:g} s was reached", EXIT_UNDECIDED)
    if asked is not None or -code in _SIGNALS:
        return 128 + (asked or -code)
    if code >= 0:
        return code
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    cause = f": {_CAUSES[name]}" if name in _CAUSES else ""
    return _say(f"its process was ended by {name}{cause}", EXIT_TROUBLE)


def _say(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"graphcheck: {message}", file=sys.stderr)
    return code
