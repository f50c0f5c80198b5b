"""What one evaluation may take: memory, time and steps, asked for before they are taken. What is refused is undecided.

The limits are those of the innermost :func:`within`; without one, they are three quarters of the machine's memory and
no end of time. Steps are counted by each trace.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from graphcheck.errors import Exhausted, Oversized, UsageError
from graphcheck.words import size

MAX_STEPS = 500_000  # nodes evaluated in one trace, those of functions and of every turn of a loop included
_INDEX_BYTES = 24  # an element of a movement map at the worst moment: 8 as int64, as much for a copy, 4 once interned
_SHARE_OF_MACHINE = 0.75
_LEAST = 2**28  # bytes: what Python and its libraries need themselves


@dataclasses.dataclass(frozen=True)
class Limits:
    """``memory`` in bytes, ``seconds`` of wall time until ``deadline`` (on the clock of ``time.monotonic``)."""

    memory: int
    seconds: float = math.inf
    deadline: float = math.inf

    @property
    def elements(self) -> int:
        """The largest tensor that is evaluated element by element."""
        return self.memory // _INDEX_BYTES

    def check_elements(self, count: int, what: str, node: str | None = None) -> None:
        """Raise :class:`Oversized` where a tensor would have more elements than fit."""
        if count > self.elements:
            raise Oversized(f"{what} would have {count} elements, beyond the memory limit of {size(self.memory)}", node)

    def check_taken(self, count: int) -> None:
        """Raise :class:`Exhausted` where the bytes that an evaluation keeps are more than half of what there is."""
        if count > self.memory // 2:
            limit = size(self.memory)
            raise Exhausted(f"its constants and maps need more than half of the memory limit of {limit}", code="GC202")

    def check_time(self) -> None:
        """Raise :class:`Exhausted` once the time is up."""
        if time.monotonic() > self.deadline:
            raise Exhausted(f"the time limit of {self.seconds:g} s was reached", code="GC201")


_CURRENT: contextvars.ContextVar[Limits | None] = contextvars.ContextVar("limits", default=None)


listeners: list[Callable[[Limits], None]] = []  # hear of the limits of a command: the parent that watches it


def current() -> Limits:
    """The limits in force."""
    return _CURRENT.get() or Limits(default_memory())


@contextlib.contextmanager
def within(memory: int | None = None, seconds: float | None = None) -> Iterator[Limits]:
    """Set the limits for what is evaluated inside; None leaves what is in force."""
    outer = current()
    limits = Limits(memory or outer.memory, seconds or outer.seconds, outer.deadline)
    if seconds is not None:
        limits = dataclasses.replace(limits, deadline=time.monotonic() + seconds)
    token = _CURRENT.set(limits)
    try:
        yield limits
    finally:
        _CURRENT.reset(token)


def begin(memory: int | None, seconds: float) -> None:
    """Set the limits of one command, for itself and with the system, until :func:`of_process` puts them back."""
    limits = Limits(memory or default_memory(), seconds, time.monotonic() + seconds)
    _CURRENT.set(limits)
    for tell in listeners:
        tell(limits)
    _ask_system(limits.memory)


@contextlib.contextmanager
def of_process(memory: int) -> Iterator[None]:
    """Let the system refuse this process ``memory`` bytes more than it has, so that an allocation fails before the
    machine does.

    Mapped files do not count. Where the system has no such limit, nothing happens.
    """
    before = _soft_limit()
    token = _CURRENT.set(_CURRENT.get())
    _ask_system(memory)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        if before is not None:
            _set_soft_limit(before)


def _ask_system(memory: int) -> None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # of data and stacks, used or not
        _set_soft_limit(memory + pages * os.sysconf("SC_PAGE_SIZE"))


def _soft_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def _set_soft_limit(wanted: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


@functools.cache
def default_memory() -> int:
    """Three quarters of the memory that this process may have, in bytes: the machine's, or that of its control group."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        found = [8 * 2**30]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(path).read_text()))
    return int(_SHARE_OF_MACHINE * min(found))


def parse_size(text: str) -> int:
    """Bytes of ``6G``, ``500M`` or ``2.5GiB``; :class:`UsageError` for anything else, and for less than 256 MiB."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    count = int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if count < _LEAST:
        raise UsageError(f"a size is a number with K, M, G or T and at least {size(_LEAST)}, such as 6G, not {text!r}")
    return count


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
