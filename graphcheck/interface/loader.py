"""Inputs that a loader script of the user's yields."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import runpy
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.interface.inputs import save_npz
from graphcheck.options import Options


@contextlib.contextmanager
def loaded(options: Options) -> Iterator[Options]:
    """The options with what a loader script yields as ``inputs`` and ``more_inputs``, files that go when it ends.

    Trouble with an input names the script, not the file that the input went to.
    """
    script = options.data_loader_script
    if script is None:
        yield options
        return
    with contextlib.redirect_stdout(sys.stderr):  # what a script prints is no part of the answer
        feeds = load_script(script, options.iterations)
    with tempfile.TemporaryDirectory(prefix="graphcheck-") as folder:
        paths = [Path(folder, f"{i}.npz") for i in range(len(feeds))]
        for path, feed in zip(paths, feeds, strict=True):
            save_npz(path, {name: np.asarray(value) for name, value in feed.items()})
        try:
            yield dataclasses.replace(options, data_loader_script=None, inputs=paths[0], more_inputs=paths[1:])
        except UsageError as error:
            raise UsageError(re.sub(rf"{re.escape(folder)}.(\d+)\.npz", rf"input \1 of {script}", str(error))) from None


def load_script(text: str, iterations: int | None) -> list[dict[str, Any]]:
    """The feeds (input name -> array) that ``FILE.py[:FUNCTION]`` yields; FUNCTION is ``load_data`` where not named."""
    path, _, function = text.partition(":") if ":" in Path(text).name else (text, "", "")
    name = function or "load_data"
    if not Path(path).is_file():
        raise UsageError(f"{path}: there is no such loader script")
    try:
        found = runpy.run_path(path).get(name)
        if not callable(found):
            raise UsageError(f"{path}: the loader script defines no function {name!r}")
        feeds = list(itertools.islice(found(), iterations))
    except GraphcheckError:
        raise
    except (Exception, SystemExit) as error:  # the script is the user's
        raise GraphcheckError(f"{path}: the loader script fails with {type(error).__name__}: {error}") from None
    if not feeds or not all(isinstance(feed, Mapping) for feed in feeds):
        raise UsageError(f"{path}: {name}() must yield mappings of input names to arrays, at least one")
    return [dict(feed) for feed in feeds]
