"""The command line of a fuzzer: one look at each seed, counts, and what was found false."""

from __future__ import annotations

import argparse
import collections
import time
from collections.abc import Callable

Looked = tuple[collections.Counter[str], str | None]  # what was met, and what is false of it


def fuzz(about: str | None, each: str, false: str, looked: Callable[[int], Looked], show: Callable[[int], object]) -> int:
    """Look at --graphs seeds; 1 if something was found.

    ``each`` is what a seed makes (graphs, pairs), ``false`` what is found (false types, false claims); ``show`` prints what
    a seed makes.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--graphs", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int)
    options = parser.parse_args()
    if options.show is not None:
        show(options.show)
        return 0
    counts: collections.Counter[str] = collections.Counter()
    findings, start = 0, time.monotonic()
    for seed in range(options.seed, options.seed + options.graphs):
        if time.monotonic() - start > options.seconds:
            break
        try:
            found, wrong = looked(seed)
        except Exception as error:
            found, wrong = collections.Counter({each: 1}), f"raised {type(error).__name__}: {error}"
        counts += found
        if wrong is not None:
            findings += 1
            print(f"seed {seed}: {wrong[:300]}", flush=True)
    for kind, count in sorted(counts.items()):
        print(f"{count:8} {kind}")
    print(f"seeds {options.seed} on, {time.monotonic() - start:.0f} s, {findings} {false}")
    return 1 if findings else 0
