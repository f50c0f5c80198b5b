"""``graphcheck sweep`` as people call it: real models, real processes, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.sweeping import command
from tests.sweeping_support import alive, rows, save_model, script, wait_for

ROOT = Path(__file__).parent.parent
CODE = """import sys, typer
from graphcheck.sweeping.command import sweep
app = typer.Typer()
app.command()(sweep)
sys.exit(app(standalone_mode=False))"""


def sweep(*arguments: object) -> int:
    """The exit code of ``graphcheck sweep ARGUMENTS``; raises what the command line turns into a sentence."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command.sweep)
    return int(app(args=[str(argument) for argument in arguments], standalone_mode=False))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("same", "negated", "broken"):
        for side in "ab":
            save_model(tmp_path / side / f"{name}.onnx")
    save_model(tmp_path / "b" / "negated.onnx", "Neg")
    (tmp_path / "b" / "broken.onnx").write_bytes(b"\x08")
    return tmp_path


def results(file: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(file.read_text())["results"]}


def test_two_folders_in_every_format(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--format={kind}=out.{kind}" for kind in ("junit", "sarif", "github", "summary")]
    assert sweep("a", "--against", "b", "--json", "out.json", "--report", "out", "--jobs", 3, *files) == 1
    text = capsys.readouterr().out
    assert "3 done: " in text and "≠ different  negated" in text and "! trouble" in text and "\x1b" not in text
    found = results(here / "out.json")
    assert {name: row["status"] for name, row in found.items()} == {
        "same": "identical", "negated": "different", "broken": "trouble",
    }  # fmt: skip
    assert found["broken"]["reason"].startswith(str(here / "b" / "broken.onnx"))
    assert all(not row["known"] and row["seconds"] > 0 for row in found.values())
    root = ElementTree.parse(here / "out.junit").getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "1")
    (run,) = json.loads((here / "out.sarif").read_text())["runs"]
    different = next(result for result in run["results"] if result["ruleId"] == "different")
    assert different["locations"][0]["logicalLocations"][0]["kind"] == "node"
    assert "pages/" in (here / "out" / "index.html").read_text() and len(list((here / "out" / "pages").iterdir())) == 2
    assert len(list((here / "graphcheck-sweep-witnesses").iterdir())) == 1

    (here / "b" / "broken.onnx").unlink()
    (here / "a" / "broken.onnx").unlink()
    save_model(here / "b" / "negated.onnx")
    assert sweep("a", "--against", "b", "--format", "github") == 0
    out = capsys.readouterr().out
    assert out == "graphcheck: 2 identical\n"
    assert rows(here / "graphcheck-sweep.sqlite") == [
        ("broken", "trouble"), ("negated", "different"), ("same", "identical"),
    ]  # fmt: skip


def test_guard_analyze_and_rewrite(here: Path) -> None:
    (here / "b" / "broken.onnx").unlink()
    crash = script(here, "if given.stem == 'negated': os.abort()\nif given.stem == 'same': print('noise')")
    assert sweep("b", "--guard", crash, "--json", "out.json") == 2
    found = results(here / "out.json")
    assert found["same"]["status"] == "identical" and found["negated"]["status"] == "trouble"
    assert "was killed by signal 6" in found["negated"]["reason"]
    assert sweep("b", "--analyze", "--json", "out.json") == 0
    assert {row["status"] for row in results(here / "out.json").values()} == {"analyzed"}
    assert sweep("b", "--rewrite", "conv", "--out", "made", "--json", "out.json") == 0
    assert {row["status"] for row in results(here / "out.json").values()} == {"unchanged"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--against", "b", "--analyze"], "--against and --analyze exclude each other"),
        (["a", "--guard", "onnxsim"], "--guard must name {in}"),
        (["a", "--rewrite", "circle"], "there is no form 'circle'"),
        (["a", "--against", "b", "--out", "c"], "--out is for --rewrite"),
        (["a", "--against", "b", "--timeout", "0"], "--timeout takes seconds above 0"),
        (["a", "--against", "b", "--max-memory", "lots"], "such as 4G, not 'lots'"),
        (["a", "--against", "b", "--format", "junit", "--json", "-"], "can go to standard output"),
        (["a"], "has no manifest.json"),
        (["a", "--against", "a/same.onnx"], "is no folder"),
    ],
)
def test_bad_usage_is_said_before_any_work(here: Path, arguments: list[str], says: str) -> None:
    with pytest.raises((UsageError, GraphcheckError)) as caught:
        sweep(*arguments)
    assert says in str(caught.value)


def test_sizes() -> None:
    assert [command.parse_size(text) for text in ("4G", "500 M".replace(" ", ""), "1.5KiB", "7")] == [
        4 * 2**30, 500 * 2**20, 1536, 7,
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_ended_goes_on_where_it_was(here: Path, how: signal.Signals) -> None:
    """Two models go through, two hang; what was done is not done again, and what hung leaves no process."""
    for number, name in enumerate("abcd"):
        save_model(here / "m" / f"{name}.onnx", last=10.0 + number)
    hang = f"Path({str(here)!r}, 'hang').exists() and given.stem in 'cd'"
    log = f"open({str(here / 'log')!r}, 'a').write(given.stem + '\\n')"
    guard = script(
        here, f"{log}\nif {hang}:\n    Path({str(here)!r}, given.stem).write_text(str(os.getpid()))\n    time.sleep(60)"
    )
    (here / "hang").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        [sys.executable, "-c", CODE, "m", "--guard", guard, "--jobs", "2"], env=environment, stderr=subprocess.DEVNULL
    )
    store = here / "graphcheck-sweep.sqlite"
    try:
        pids = [int(wait_for(lambda n=name: (here / n).exists() and (here / n).read_text())) for name in "cd"]
        wait_for(lambda: len(rows(store)) == 2)
        running.send_signal(how)
        assert running.wait(20) != 0
    finally:
        running.kill()
        running.wait()
    wait_for(lambda: not any(map(alive, pids)))
    (here / "hang").unlink()
    assert sweep("m", "--guard", guard, "--jobs", "2", "--json", "out.json") == 0
    found = results(here / "out.json")
    assert [found[name]["known"] for name in "abcd"] == [True, True, False, False]
    assert sorted((here / "log").read_text().split()) == ["a", "b", "c", "c", "d", "d"] and len(rows(store)) == 4
