"""A file is written whole or not at all."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest

from graphcheck.errors import ModelError
from graphcheck.files import atomic

PACKAGE = Path(__file__).parent.parent / "graphcheck"


def test_a_file_is_replaced_with_the_rights_of_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    atomic.write_bytes(b"new", path)
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_a_full_disk_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ModelError, match=r"a\.bin: cannot be written: No space left on device"):
        atomic.write_bytes(b"new", path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_whatever_is_raised_meanwhile_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic.replacing(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no.a\.bin: cannot be written: No such file or directory"):
        atomic.write_bytes(b"new", tmp_path / "no" / "a.bin")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.bin").write_bytes(b"old")
    (tmp_path / "link.bin").symlink_to("real.bin")
    atomic.write_bytes(b"new", tmp_path / "link.bin")
    assert (tmp_path / "link.bin").is_symlink() and (tmp_path / "real.bin").read_bytes() == b"new"


def makes_its_own(source: str) -> bool:
    """Whether a source makes and renames temporary files itself."""
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}
    return bool(called & {"os.replace", "os.rename", "tempfile.mkstemp", "tempfile.NamedTemporaryFile"})


def test_nobody_else_makes_and_renames_temporary_files() -> None:
    assert makes_its_own("import os\nos.replace(a, b)") and not makes_its_own("text.replace(a, b)")
    assert [p.name for p in PACKAGE.rglob("*.py") if makes_its_own(p.read_text())] == ["atomic.py"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(text: str) -> None:
        with atomic.replacing_folder(tmp_path / "models" / "one") as made:
            (made / "file").write_text(text if text != "third" else None)  # type: ignore[arg-type]

    for text in ("first", "second"):
        write(text)
        assert (tmp_path / "models" / "one" / "file").read_text() == text
    with pytest.raises(TypeError):
        write("third")
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["one"]
    assert (tmp_path / "models" / "one" / "file").read_text() == "second"
