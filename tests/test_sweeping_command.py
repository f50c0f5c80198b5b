"""``graphcheck sweep`` as people call it: real models, real processes, a kill in the middle."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import onnx
import onnx_ir as ir
import pytest
import typer

from graphcheck import command_line, limits
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.exporting.catalogue import catalogue
from graphcheck.exporting.manifest import Exported, Manifest, write_manifest
from graphcheck.sweeping import command, executors
from tests.patch_cases import patchify
from tests.sweeping_support import Faked, alive, answer, rows, save_model, script, wait_for

ROOT = Path(__file__).parent.parent
CODE = """import signal, sys, typer
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from graphcheck.command_line import command
from graphcheck.sweeping.command import sweep
app = typer.Typer()
app.command()(command(sweep))
sys.exit(app(standalone_mode=False))"""


def sweep(*arguments: object) -> int:
    """The exit code of ``graphcheck sweep ARGUMENTS``; raises what the command line turns into a sentence."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command_line.command(command.sweep))
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


def test_an_undecided_pair_tells_its_code_and_may_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for side, value in (("a", "float"), ("b", "float16")):
        Path(side).mkdir()
        text = f'<ir_version: 10, opset_import: ["": 21]> g ({value}[2] x) => ({value}[2] y) {{ y = Relu(x) }}'
        onnx.save(onnx.parser.parse_model(text), f"{side}/m.onnx")
    assert sweep("a", "--against", "b") == 3
    assert "GC215: the declared types differ" in capsys.readouterr().out
    assert sweep("a", "--against", "b", "--accept", "GC204") == 3 and "accepted" not in capsys.readouterr().out
    assert sweep("a", "--against", "b", "--accept", "GC215") == 0
    text = capsys.readouterr().out
    assert "? undecided" in text and "1 accepted by --accept, which decides the exit code alone" in text


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


def test_guard_and_analyze(here: Path) -> None:
    (here / "b" / "broken.onnx").unlink()
    crash = script(here, "if given.stem == 'negated': os.abort()\nif given.stem == 'same': print('noise')")
    assert sweep("b", "--guard", crash, "--json", "out.json") == 2
    found = results(here / "out.json")
    assert found["same"]["status"] == "identical" and found["negated"]["status"] == "trouble"
    assert "was ended by SIGABRT" in found["negated"]["reason"]
    assert sweep("b", "--analyze", "--json", "out.json") == 0
    assert {row["status"] for row in results(here / "out.json").values()} == {"analyzed"}


def test_rewritten_models_are_written_once_proved_and_again_where_they_are_missing(here: Path) -> None:
    model = patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48])
    (here / "m").mkdir()
    (here / "m" / "patches.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    save_model(here / "m" / "none.onnx")
    arguments = ("m", "--rewrite", "conv", "--json", "out.json", "--out")
    for out, known in (("made", [False, False]), ("made", [True, True]), ("other", [False, False])):
        assert sweep(*arguments, out) == 0
        found = results(here / "out.json")
        assert (found["patches"]["status"], found["none"]["status"]) == ("proved", "unchanged")
        assert [found[name]["known"] for name in ("patches", "none")] == known
        made = onnx.load(here / out / "patches.onnx")
        assert "Conv" in [node.op_type for node in made.graph.node]
        assert (here / out / "none.onnx").read_bytes() == (here / "m" / "none.onnx").read_bytes()
    (here / "other" / "patches.onnx").unlink()
    assert sweep(*arguments, "other") == 0
    assert not results(here / "out.json")["patches"]["known"] and (here / "other" / "patches.onnx").exists()


REWRITTEN = {  # option -> (form, a model's body, the operator that the option alone brings)
    "--pointwise": ("conv", "w = Constant <value = float[3,3] {1,2,3,4,5,6,7,8,9}> () t = Transpose <perm = [0,2,3,1]> (x) "
                    "m = MatMul (t, w) y = Transpose <perm = [0,3,1,2]> (m)", "Conv"),
    "--ordinary": ("matmul", "w = Constant <value = float[1,3,2,2] {1,2,3,4,5,6,7,8,9,10,11,12}> () y = Conv (x, w)", "MatMul"),
    "--movement": ("space-to-depth", "s = Constant <value_ints = [0,3,2,2,2,2]> () k = Constant <value_ints = [0,12,2,2]> () "
                   "r = Reshape (x, s) t = Transpose <perm = [0,3,5,1,2,4]> (r) y = Reshape (t, k)", "SpaceToDepth"),
    "--stills": ("conv", "a = Constant <value_ints = [2]> () u = Unsqueeze (x, a) c = Concat <axis = 2> (u, u) "
                 "k = Constant <value_ints = [1,3,2,2,2]> () w = ConstantOfShape <value = float[1] {0.5}> (k) "
                 "y = Conv <strides = [2,2,2]> (c, w)", "Conv"),
}  # fmt: skip


@pytest.mark.parametrize("option", [*REWRITTEN])
def test_the_options_of_rewrite_are_those_of_a_sweep(option: str, here: Path) -> None:
    form, body, operator = REWRITTEN[option]
    (here / "m").mkdir()
    text = f'<ir_version: 10, opset_import: ["": 21]> g (float[N,3,4,4] x) => (float[N,a,b,c{",d" * (option == "--stills")}] y)'
    onnx.save(onnx.parser.parse_model(f"{text} {{ {body} }}"), here / "m" / "net.onnx")
    assert sweep("m", "--rewrite", form, "--out", "plain", "--json", "out.json") == 0
    left = results(here / "out.json")["net"]
    refused = option != "--pointwise"  # which is not looked for
    assert left["status"] == "unchanged" and left["reason"].startswith("nothing to rewrite")
    assert ("; refused: 1 by GC3" in left["reason"]) == refused
    assert sweep("m", "--rewrite", form, "--out", "made", "--json", "out.json", option) == 0
    told = json.loads((here / "out.json").read_text())
    assert told["rewriting"] == {option.removeprefix("--"): True}
    assert told["results"][0]["status"] in ("proved", "within-rounding") and not told["results"][0]["known"]
    made, plain = (onnx.load(here / folder / "net.onnx").graph.node for folder in ("made", "plain"))
    assert operator in [node.op_type for node in made] and [n.op_type for n in made] != [n.op_type for n in plain]


KINDS = {
    "0": answer(), "1": answer("different", result={"schema": "graphcheck/compare/1"}), "2": answer("undecided"),
    "3": answer("undecided", "timeout"), "4": answer("trouble", "crash"), "5": answer("within-rounding"),
}  # fmt: skip


def said(folder: Path, text: str) -> tuple[Any, ...]:
    """What a sweep tells of its results, but for what is known from before."""
    told = json.loads((folder / "out.json").read_text())
    rows = [{key: value for key, value in row.items() if key != "known"} for row in told["results"]]
    table = [line for line in text.splitlines() if not line.startswith(("wrote", "  6 were known"))]
    pages = [(page.name, page.read_text()) for page in sorted((folder / "site").rglob("*.html"))]
    return rows, told["exit_code"], table, (folder / "out.xml").read_text(), pages


def test_shards_that_are_merged_tell_what_one_run_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(KINDS):
        save_model(tmp_path / "m" / f"{name}.onnx", last=float(number))
    workers = Faked(lambda task: KINDS[Path(task["a"]).stem], room=1)
    monkeypatch.setattr(executors, "Local", lambda jobs: workers)
    told = ("--json", "out.json", "--report", "site", "--format", "junit=out.xml")
    command_ = ("m", "--guard", "x {in} {out}", "--max-memory", "1G", *told)
    code = sweep(*command_, "--store", "one.sqlite")
    whole = said(tmp_path, capsys.readouterr().out)
    assert code == 1 and whole[0][3]["failure"] == "timeout" and len(whole[4]) == 1

    workers.tasks.clear()
    codes = [sweep(*command_, "--store", f"shards/{i}.sqlite", "--shard", f"{i}/4") for i in range(1, 5) if not made(i)]
    done = [Path(task["a"]).stem for task in workers.tasks]
    assert sorted(done) == list(KINDS), "each in one part"
    assert max(codes) > 0 and 1 in codes
    capsys.readouterr()
    # On another machine, whose memory is another: that is no reason to do anything again.
    other = tuple("2G" if word == "1G" else word for word in command_)
    assert sweep(*other, "--store", "all.sqlite", "--merge", "shards") == code and len(workers.tasks) == len(KINDS)
    assert said(tmp_path, capsys.readouterr().out) == whole
    assert rows(tmp_path / "all.sqlite") == rows(tmp_path / "one.sqlite")
    # A shard that was lost is done by the one who merges.
    lost = next(i for i in range(1, 5) if rows(tmp_path / "shards" / f"{i}.sqlite"))
    again = [name for name, _ in rows(tmp_path / "shards" / f"{lost}.sqlite")]
    (tmp_path / "shards" / f"{lost}.sqlite").unlink()
    assert sweep(*command_, "--store", "rest.sqlite", "--merge", "shards") == code
    assert sorted(Path(task["a"]).stem for task in workers.tasks[len(KINDS) :]) == again
    (tmp_path / "broken.sqlite").write_bytes(b"no store" * 999)
    with pytest.raises(GraphcheckError, match=r"broken\.sqlite: cannot serve as the store of results"):
        sweep(*command_, "--store", "all.sqlite", "--merge", "broken.sqlite")
    assert (tmp_path / "broken.sqlite").read_bytes() == b"no store" * 999


def made(number: int) -> bool:
    """Whether a shard's store is there; its folder is made."""
    Path("shards").mkdir(exist_ok=True)
    return Path("shards", f"{number}.sqlite").exists()


def documented() -> list[str]:
    text = "".join((ROOT / "docs" / "how-to" / name).read_text() for name in ("sweep.md", "ci.md"))
    found = re.findall(r"^ *graphcheck sweep (.*(?:\n +--.*)*)", text, re.MULTILINE)
    assert len(found) >= 8
    return [" ".join(arguments.split()) for arguments in found]


@pytest.mark.parametrize("arguments", documented())
def test_documented_commands_are_understood(here: Path, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("exports", "reference", "variants"):
        save_model(here / folder / "m.onnx")
    (here / "pairs.json").write_text(json.dumps([{"a": "a/same.onnx", "b": "b/same.onnx"}]))
    variants = [variant for variant in catalogue() if variant.family == "convolution"][:2]
    exported = tuple(Exported(variant, "m.onnx", 1, "") for variant in variants)
    write_manifest(here / "variants", Manifest(exported))
    reached = []

    def workers(address: str) -> Faked:
        reached.append(address)
        return Faked(lambda task: answer())

    monkeypatch.setattr(executors, "Local", workers)
    monkeypatch.setattr(executors, "OnDask", type("OnDask", (), {"__new__": lambda _, address, resources: workers(address)}))
    assert sweep(*shlex.split(arguments)) == 0
    assert reached == (["tcp://scheduler:8786"] if "--dask" in arguments else [max(1, limits.cores() // 2)])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a", "--against", "b", "--analyze"], "--against and --analyze exclude each other"),
        (["a", "--guard", "onnxsim"], "--guard must name {in}"),
        (["a", "--rewrite", "circle"], "there is no form 'circle'"),
        (["a", "--rewrite", "unfold", "--pointwise"], "--pointwise is for --to conv, matmul or fastest"),
        (["a", "--rewrite", "conv", "--movement"], "--movement is for --to space-to-depth or reshape"),
        (["a", "--against", "b", "--stills"], "--stills goes with --rewrite FORM"),
        (["a", "--rewrite", "fastest"], "the forms are measured by graphcheck rewrite --to fastest alone"),
        (["a", "--against", "b", "--out", "c"], "--out is for --rewrite"),
        (["a", "--against", "b", "--timeout", "0"], "--timeout takes seconds above 0"),
        (["a", "--against", "b", "--max-memory", "lots"], "such as 6G, not 'lots'"),
        (["a", "--against", "b", "--format", "junit", "--json", "-"], "can go to standard output"),
        (["a", "--against", "b", "--shard", "3/2"], "--shard takes I/N, the I-th of N parts, such as 2/5, not '3/2'"),
        (["a", "--against", "b", "--shard", "1/2", "--merge", "x"], "not with --shard, --fresh or --retry"),
        (["a", "--against", "b", "--merge", "absent.sqlite"], "absent.sqlite: there is no such store"),
        (["a", "--against", "b", "--merge", "b"], "there is no store (*.sqlite) below this folder"),
        (["a", "--against", "b", "--resources", "gpu=1"], "give --dask ADDRESS too"),
        (["a", "--against", "b", "--dask", "x:1", "--resources", "gpu"], "--resources takes NAME=NUMBER"),
        (["a"], "has no manifest.json"),
        (["a", "--against", "a/same.onnx"], "is not a folder"),
    ],
)
def test_bad_usage_is_said_before_any_work(here: Path, arguments: list[str], says: str) -> None:
    with pytest.raises((UsageError, GraphcheckError)) as caught:
        sweep(*arguments)
    assert says in str(caught.value)


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
        assert running.wait(240) != 0  # only a hang takes longer, on a busy machine too
    finally:
        running.kill()
        running.wait()
    wait_for(lambda: not any(map(alive, pids)))
    (here / "hang").unlink()
    assert sweep("m", "--guard", guard, "--jobs", "2", "--json", "out.json") == 0
    found = results(here / "out.json")
    assert [found[name]["known"] for name in "abcd"] == [True, True, False, False]
    assert sorted((here / "log").read_text().split()) == ["a", "b", "c", "c", "d", "d"] and len(rows(store)) == 4
