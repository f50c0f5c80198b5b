"""The inputs that the command line keeps for its user, each under an ID: where they lie, and how many stay."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

from graphcheck.errors import UsageError

_NEWEST = 200  # so many are kept
_NAME = "graphcheck-witness-{}.npz"


def folder() -> Path:
    """``$GRAPHCHECK_CACHE``, else ``graphcheck`` in the folder that the system has for a user's caches."""
    if given := os.environ.get("GRAPHCHECK_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "graphcheck"


def writable() -> Path | None:
    """The folder, made where it is missing; None where nothing can be kept."""
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: of a user without a home
        found = folder().absolute()
        found.mkdir(parents=True, exist_ok=True)
        return found if os.access(found, os.W_OK) else None
    return None


def path(name: str, within: Path) -> Path:
    """The file of an ID in a folder."""
    return within / _NAME.format(name)


def find(name: str) -> Path:
    """The kept file of an ID, or of its first characters; UsageError where there is none, or several."""
    found = _files(f"{name}*") if re.fullmatch(r"[0-9a-f]+", name) else []
    if len(found) != 1:
        many = "no input is kept" if not found else f"{len(found)} inputs are kept"
        raise UsageError(f"{many} under the ID {name!r} in {folder()}: give --inputs FILE.npz")
    return found[0]


def forget_old() -> None:
    """Remove the oldest files that are too many."""
    with contextlib.suppress(OSError):
        for old in sorted(_files("*"), key=lambda file: -file.stat().st_mtime)[_NEWEST:]:
            old.unlink()


def _files(pattern: str) -> list[Path]:
    try:
        return sorted(folder().glob(_NAME.format(pattern)))
    except RuntimeError:
        return []
