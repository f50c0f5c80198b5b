"""Child processes: what they are given, how they ended, and that none outlives who asked for it.

:func:`supervised` puts the command line's own work into a child, so that whatever ends it is told in one sentence, with
a clear exit code: a crash in a library, a file cut short while it is mapped (SIGBUS), one computation that goes on long
after the time limit, which is looked at between computations. The parent, which does nothing else, outlives them all.
Linux; elsewhere the work is done without a parent.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from graphcheck import limits
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, EXIT_UNDECIDED

# -P: no module is taken from the working directory, which may be that of a stranger's model
PYTHON = (sys.executable, "-P")

_LOOK = 0.5  # seconds between two looks at the clock
_GRACE, _SHARE = 2.0, 0.1  # seconds beyond the time limit, and so much of it, that an orderly end may take
_LAST = 1.0  # seconds between asking the child to end and ending it
_LEAVE = 5.0  # as much for a child that was interrupted, which may have files to take away
_SENT_BY_KERNEL = 0x80  # si_code of a signal from the terminal, which reaches the child as well
_ANSWERS = (EXIT_OK, EXIT_DIFFERENT, EXIT_TROUBLE, EXIT_UNDECIDED)
_MOST = 65536  # bytes that a pipe holds
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_OBJECTS = 50_000  # made between two looks; Python's 700 would be for programs whose objects come and go
_STAYED = 100  # such looks between two at what stayed once, which is all of two graphs; ten as Python has it
_OLD = 10  # those between two looks at all objects
_ARENA_MAX, _MMAP_THRESHOLD = -8, -3  # of glibc's mallopt
_MAPPED = 2**22  # bytes from which an array is mapped by itself
_CAUSES = {
    "SIGBUS": "a file was cut short, or could not be read, while it was in use",
    "SIGKILL": "perhaps for want of memory",
}


_own: list[bool] = []  # something where the process is one of our own


def keep_objects() -> None:
    """Have Python look for garbage less often, and the C library keep one store of memory, in a process of our own.

    Graphs are millions of small objects that stay: going through them again and again took a third of a comparison of
    20,000 nodes. Who compares many pairs in one process collects between them. glibc gives each thread a store of its own,
    and what is free in one is of no use to the others: that was a tenth of the memory.
    """
    gc.set_threshold(_OBJECTS, _STAYED, _OLD)
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)
        _own.append(True)


def return_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc); from now on that of a large array as soon as it is
    freed, in a process of our own.

    glibc keeps it for the next array, of another size: beside what a large evaluation holds there is as much again. It costs
    time, to clear the pages anew, so an evaluation that is small does not ask for it.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        if _own:
            library.mallopt(_MMAP_THRESHOLD, _MAPPED)
        library.malloc_trim(0)


def ends_at_once() -> Callable[[int], int]:
    """A function that is told the exit code, and returns it: Python then ends without taking its objects apart.

    That takes longer than many an answer. Called before others register what is to be done at the end, so that all of it
    is done first.
    """
    codes: list[int] = []

    def leave() -> None:
        if codes:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(AttributeError, OSError, ValueError):  # None, broken or closed
                    stream.flush()
            os._exit(codes[-1])

    def tell(code: int) -> int:
        codes.append(code)
        return code

    atexit.register(leave)
    return tell


def environment() -> dict[str, str]:
    """The environment of a child that imports this very package."""
    root = str(Path(__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def ended(code: int) -> str:
    """How a process ended: ``exit code 3``, or the name of the signal for a negative code."""
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def last_words(lines: Iterable[str]) -> str:
    """The last line that is not blank, cut at 300 characters; "" where there is none."""
    return next((line.strip()[:300] for line in reversed(list(lines)) if line.strip()), "")


def end_with_parent(leave: Callable[[], None], parent: int | None = None) -> None:
    """Call ``leave`` once the parent (by its number, if known) has ended, so that nobody waits any more; returns at once."""
    threading.Thread(target=_wait_for_end, args=(parent or os.getppid(), leave), daemon=True).start()


def _wait_for_end(parent: int, leave: Callable[[], None]) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    leave()


_heirs: list[Callable[[str | None, str], None]] = []  # in the child: its parent


def if_ended(target: str | None, text: str = "") -> None:
    """Have the parent write ``text`` to ``target`` if the time limit ends this process; nothing any more for None."""
    for tell in _heirs:
        tell(target, text)


def supervised(write: Callable[[str, str], None]) -> int | None:
    """Go on in a child process, where this is None; in the parent, the exit code once the child has ended.

    ``write`` is given what the child has left by :func:`if_ended`.
    """
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
        limits.listeners.append(lambda given: _tell(writing, limit=given.seconds, deadline=given.deadline))
        _heirs.append(lambda target, text: _tell(writing, left=(target, text)))
        end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM), parent)
        return None
    os.close(writing)
    os.set_blocking(reading, False)
    return _wait(child, reading, waited, write)


def _tell(pipe: int, **what: Any) -> None:
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(what).encode() + b"\n")


def _wait(child: int, pipe: int, signals: set[signal.Signals], write: Callable[[str, str], None]) -> int:
    """Wait for the child, hand it the signals that come, and end it where it does not end in time."""
    limit = end = float("inf")  # seconds, and when the child is told to end
    asked: signal.Signals | None = None  # how it was, and because of the time where that is SIGALRM
    target: str | None = None
    text, told = "", b""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        with contextlib.suppress(BlockingIOError):
            told += os.read(pipe, _MOST)
        *lines, told = told.split(b"\n")
        for message in map(json.loads, lines):
            target, text = message.get("left", (target, text))
            if asked is None and "limit" in message:
                limit = message["limit"]
                end = message["deadline"] + _GRACE + _SHARE * limit
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if asked is signal.SIGALRM and code not in _ANSWERS and target is not None:
                write(target, text)
            return _code(code, limit, asked)
        if time.monotonic() > end:
            os.kill(child, signal.SIGTERM if asked is None else signal.SIGKILL)
            asked, end = asked or signal.SIGALRM, time.monotonic() + _LAST
        came = signal.sigtimedwait(signals, _LOOK)
        if came is not None and came.si_signo in _SIGNALS and asked is None:
            if came.si_code != _SENT_BY_KERNEL:
                os.kill(child, came.si_signo)
            asked, end = signal.Signals(came.si_signo), time.monotonic() + _LEAVE


def _code(code: int, limit: float, asked: signal.Signals | None) -> int:
    if code in _ANSWERS:
        return code  # it had its answer all the same
    if asked is signal.SIGALRM:
        return _say(f"undecided: the time limit of {limit:g} s was reached", EXIT_UNDECIDED)
    if asked is not None or -code in _SIGNALS:
        return 128 + (asked or -code)
    if code >= 0:
        return code
    name = ended(code)
    cause = f": {_CAUSES[name]}" if name in _CAUSES else ""
    return _say(f"its process was ended by {name}{cause}", EXIT_TROUBLE)


def _say(message: str, code: int) -> int:
    with contextlib.suppress(OSError):
        print(f"graphcheck: {message}", file=sys.stderr)
    return code
