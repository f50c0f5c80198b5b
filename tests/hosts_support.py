"""The wheel of this tree, fresh environments that hold it, and what is run in them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "hosts"  # environments are kept there, and made anew where what they hold has changed
CONSTRAINTS = ("--constraint", str(ROOT / "constraints.txt"))
PIP = ("-m", "pip", "--disable-pip-version-check", "-q")


def call(*command: str | Path, cwd: Path = ROOT, code: int = 0, **variables: str) -> str:
    """What a command prints, both streams together; it has to end with ``code``."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GRAPHCHECK", "GITHUB", "PYTEST"))}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=plain | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def wheel(folder: Path) -> Path:
    """The wheel that is built of the source distribution, beside it in ``folder``."""
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    # the path: whoever adds hatchling by it, and not by the extra, has it here too
    path = os.environ.get("PYTHONPATH", "")
    call(*build, "-t", "sdist", PYTHONPATH=path)
    (source,) = folder.glob("*.tar.gz")
    safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since 3.11.4
    shutil.unpack_archive(source, folder / "source", **safely)
    (tree,) = (folder / "source").iterdir()
    call(*build, "-t", "wheel", cwd=tree, PYTHONPATH=path)
    (made,) = folder.glob("*.whl")
    return made


def pythons() -> dict[str, str]:
    """Version -> the interpreter, of those that the package says it runs on and that are at hand."""
    found = {}
    for version in ("3.11", "3.12", "3.13"):
        program = shutil.which(f"python{version}")
        if program and subprocess.run([program, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0:
            found[version] = program
    return found


def environment(name: str, wheel: Path, packages: Sequence[str] = (), python: str = sys.executable) -> Path:
    """The folder of an environment with the wheel, ``packages`` and what they bring along, at the versions of the constraints."""
    folder = FOLDER / name
    holds = hashlib.sha256(repr((packages, python, (ROOT / "constraints.txt").read_text())).encode()).hexdigest()
    mark = folder / "holds"
    if not mark.is_file() or mark.read_text() != holds:
        shutil.rmtree(folder, ignore_errors=True)
        call(python, "-m", "venv", folder)
        call(folder / "bin/python", *PIP, "install", *CONSTRAINTS, wheel, *packages)
        mark.write_text(holds)
    call(folder / "bin/python", *PIP, "install", "--force-reinstall", "--no-deps", wheel)
    return folder


def beside(folder: Path, wheel: Path) -> Path:
    """An environment that holds the wheel, and finds all else where this process does; nothing is fetched."""
    call(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "-q", "install", "--no-deps", "--no-index", wheel)
    (packages,) = folder.glob("lib/python*/site-packages")
    own = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "beside.pth").write_text("\n".join(own) + "\n")
    return folder
