"""A file is written whole or not at all: a temporary file beside it is filled, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from graphcheck.errors import ModelError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file to fill, which takes the place of ``path`` at the end; nothing is left on failure.

    A link stays a link: the file that it points to is replaced. A device or a pipe has no place to take, so that it is
    yielded itself. Raises :class:`ModelError` (``PATH: cannot be written: ...``) where the system refuses.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with _telling(target):
            yield target
        return
    with _telling(target):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of ``path`` as a whole; where another comes first, that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _telling(path):
        made = Path(tempfile.mkdtemp(dir=path.parent))
        try:
            yield made
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                made.rename(path)
        finally:
            shutil.rmtree(made, ignore_errors=True)


def write_bytes(data: bytes, path: str | os.PathLike[str]) -> None:
    """Write ``data`` to ``path``; raises as :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def _telling(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(target, f"cannot be written: {error.strerror or error}") from None
