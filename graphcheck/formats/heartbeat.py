"""What a long command says where nobody watches: a line for each phase, and for each minute, on standard error."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SILENT, PHASE, MINUTE = 30.0, 10.0, 60.0
"""Seconds in which nothing is said; between two lines at least; between two lines of one phase."""


@contextlib.contextmanager
def beating(file: Any, first: str, phase: float | None = None) -> Iterator[Callable[[str], None]]:
    """Write lines such as ``graphcheck: 62 s: proving`` to ``file`` while it lasts, none of them in the first half minute.

    What it yields is told of each phase. ``phase`` are the seconds between lines of phases, of which there may be thousands.
    """
    started, current, over = time.monotonic(), [first], threading.Event()
    gap = PHASE if phase is None else phase

    def beat() -> None:
        last, said, wait = started, "", SILENT
        while not over.wait(wait):
            now, text = time.monotonic(), current[0]
            if text != said or now - last >= MINUTE:
                with contextlib.suppress(OSError, ValueError):  # a closed file must not end the command
                    file.write(f"graphcheck: {now - started:.0f} s: {text}\n")
                    file.flush()
                last, said = now, text
            wait = gap

    thread = threading.Thread(target=beat, name="graphcheck-heartbeat", daemon=True)
    thread.start()
    try:
        yield lambda text: current.__setitem__(0, text)
    finally:
        over.set()
        thread.join()
