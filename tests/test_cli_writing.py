"""What a command writes: looked at before any work, never over what it reads, and nothing is left by one that is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_cli import ROOT, Run, conv, moved, other, run

__all__ = ["conv", "moved", "other", "run"]  # fixtures


def test_files_are_written_before_the_answer_is_read(run: Run, conv: Path, moved: Path) -> None:
    command = [sys.executable, "-m", "graphcheck", "compare", conv, moved, "--no-run"]
    command += ["--json", "r.json", "--report", "r.html", "--format", "junit=r.xml"]
    reader, writer = os.pipe()
    os.close(reader)  # as head does, once it has what it wants
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=writer, check=False)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert all(Path(name).stat().st_size for name in ("r.json", "r.html", "r.xml"))


# what is to be written, and what is wrong with it
TARGETS = [
    ("compare conv.onnx moved.onnx --report conv.onnx", "conv.onnx: is read here"),
    ("compare conv.onnx moved.onnx --json ./moved.onnx", "moved.onnx: is read here"),
    ("compare conv.onnx moved.onnx --save-inputs x --save-outputs x", "x: is named twice"),
    ("compare conv.onnx moved.onnx --report -", "-: only --json writes to standard output"),
    ("compare conv.onnx moved.onnx --reduce conv.onnx", "conv.onnx: is a file, where a folder is to be written"),
    ("compare conv.onnx moved.onnx --witness conv.onnx/in", "conv.onnx: is a file, where a folder is to be written"),
    ("compare conv.onnx moved.onnx --format junit=none/x.xml", "there is no folder none"),
    ("compare conv.onnx moved.onnx --format junit --json -", "only one --format, or --json -, can go"),
    ("analyze conv.onnx --json conv.onnx", "conv.onnx: is read here"),
    ("rewrite moved.onnx -o -", "-: only --json writes to standard output"),
    ("rewrite moved.onnx -o out.onnx --report moved.onnx", "moved.onnx: is read here"),
    ("rewrite moved.onnx -o out.onnx --json out.onnx", "out.onnx: is named twice"),
    ("guard conv.onnx -o conv.onnx -- cp {in} {out}", "conv.onnx: is read here"),
    ("analyze -", "-: is standard input"),
    ("analyze cnov.onnx", "cnov.onnx: there is no such file; did you mean conv.onnx?"),
    ("compare conv.onnx other.onnx", "other.onnx: there is no such file\n"),
]


@pytest.mark.parametrize(("arguments", "said"), TARGETS, ids=[arguments for arguments, _ in TARGETS])
def test_what_cannot_be_read_or_written_is_said_before_any_work(
    run: Run, conv: Path, moved: Path, tmp_path: Path, arguments: str, said: str
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    code, out, err = run(*arguments.split())
    assert (code, out, err.count("\n")) == (2, "", 1) and said in err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_read_only_folder_is_seen_before_any_work(
    run: Run, moved: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list(Path(os.environ["GRAPHCHECK_CACHE"]).iterdir())
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write anywhere
    for arguments in (["-o", "out.onnx"], ["--dry-run", "--json", "out.json"]):
        code, _, err = run("rewrite", moved, *arguments)
        assert code == 2 and "its folder is read-only" in err
    assert run("rewrite", moved, "--dry-run", "--json", os.devnull)[0] == 0 and Path(os.devnull).is_char_device()
    code, out, err = run("compare", moved, other, "--no-run")  # a witness is no reason to lose the verdict
    assert (code, err) == (1, "") and out.startswith("≠ different: ") and " witness: " in out
    assert list(Path(os.environ["GRAPHCHECK_CACHE"]).iterdir()) == kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_and_leaves_no_file(run: Run, conv: Path, tmp_path: Path, number: int) -> None:
    """The loader script says that it is being run, which is while there is a temporary folder, and waits."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    Path("load.py").write_text("import time, pathlib\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's & ignores it
    code += "from graphcheck.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "compare", conv, conv, "--data-loader-script", "load.py"]
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        while not Path("begun").exists() and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(number)
        said = running.communicate()[0]
    assert (running.returncode, said) == (128 + number, b"")
    assert list(temporary.iterdir()) == []
