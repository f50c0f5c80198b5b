"""What other distributions bring by entry points: operators, forms of rewrite, readers of dumps."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

from graphcheck.errors import UsageError


def loaded(group: str, what: str, needs: Sequence[str] = (), name: str | None = None) -> Iterator[tuple[str, str, Any]]:
    """(distribution, name, object) of each entry point of a group, or of those of one ``name``.

    Raises :class:`UsageError`, which names the distribution, where one cannot be loaded or lacks what it ``needs``.
    """
    for point in importlib.metadata.entry_points(group=group):
        if name not in (None, point.name):
            continue
        owner = point.dist.name if point.dist is not None else point.value
        try:
            found = point.load()
        except Exception as error:  # whatever importing it raises
            cause = f"{type(error).__name__}: {error}"
            raise UsageError(f"{owner}: its {what} {point.name!r} cannot be loaded ({cause})") from error
        if missing := [attribute for attribute in needs if not hasattr(found, attribute)]:
            raise UsageError(f"{point.value}: is not a {what}, since it has no {missing[0]}")
        yield owner, point.name, found
