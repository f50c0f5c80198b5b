"""The command line: exit codes, what is printed and written, and that it starts without heavy imports."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphcheck
from graphcheck.cli import main
from tests.test_boundaries import HEAVY, heavy_after, loaded_after

ROOT = Path(__file__).parent.parent
# One function of x [n, 2, 4, 4] as Conv, and as patches times a matrix; a third one has another weight.
HEAD = '<ir_version: 8, opset_import: ["": 18]> g (float[n,2,4,4] x) => (float[n,3,2,2] y)'
CONV = HEAD + " { y = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w) }"
MOVED = (
    HEAD
    + """ <int64[6] s = {0, 2, 2, 2, 2, 2}, int64[4] t = {0, 2, 2, 8}> {
    a = Reshape(x, s)
    b = Transpose<perm = [0, 2, 4, 1, 3, 5]>(a)
    c = Reshape(b, t)
    d = MatMul(c, w)
    y = Transpose<perm = [0, 3, 1, 2]>(d)
}"""
)
WEIGHT = np.random.default_rng(7).standard_normal((3, 2, 2, 2)).astype(np.float32)


def save(path: Path, text: str, weight: np.ndarray[Any, Any]) -> Path:
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def conv(tmp_path: Path) -> Path:
    return save(tmp_path / "conv.onnx", CONV, WEIGHT)


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    return save(tmp_path / "moved.onnx", MOVED, np.ascontiguousarray(WEIGHT.reshape(3, 8).T))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return save(tmp_path / "other.onnx", CONV, WEIGHT * np.float32(1.5))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command line in ``tmp_path``: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["sweep", "--help"], ["--version"]])
def test_help_loads_nothing_that_takes_its_time(arguments: list[str]) -> None:
    """In a process of its own: what has been imported once the command line has answered."""
    told = heavy_after(f"from graphcheck.cli import main\nassert main({arguments}) == 0")
    assert told == set() and {"numpy", "onnxruntime"} <= HEAVY
    assert "numpy" in heavy_after(f"from graphcheck.cli import main\nmain({arguments})\nimport numpy.linalg")


def test_the_process_that_watches_loads_next_to_nothing() -> None:
    """It is there as long as the one that works."""
    code = "import graphcheck.__main__, sys; print(*(n for n in sys.modules if n.startswith('graphcheck')))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    few = {"graphcheck", *(f"graphcheck.{name}" for name in "__main__ processes limits errors words verdict".split())}  # noqa: SIM905
    assert set(run.stdout.split()) <= few


# What `compare` of two files, printed into a file or a pipe, has no use for: onnxruntime runs in a child.
UNUSED = {"torch", "tensorflow", "tf2onnx", "transformers", "onnxruntime", "networkx", "sympy", "rich", "jinja2", "fast_sugiyama"}


@pytest.mark.parametrize("options", [[], ["--no-run"], ["--json", "found.json"], ["--require", "proved", "--format", "junit"]])
def test_compare_loads_no_more_than_it_needs(conv: Path, moved: Path, options: list[str], tmp_path: Path) -> None:
    """Each takes a tenth of a second and more, in which two small models are proved."""
    command = ["compare", str(conv), str(moved), *(str(tmp_path / o) if o == "found.json" else o for o in options)]
    loaded = loaded_after(f"from graphcheck.cli import main\nassert main({command}) == 0")
    assert loaded & UNUSED == set() and {"numpy", "onnx", "onnx_ir"} <= loaded


@pytest.mark.parametrize(("options", "begun"), [([], [False]), (["--no-run"], [])])
def test_onnxruntime_is_begun_while_the_packages_load(conv: Path, moved: Path, options: list[str], begun: list[bool]) -> None:
    command = ["compare", str(conv), str(moved), *options]
    loaded_after(
        "import sys\nfrom graphcheck.runs import early\nfrom graphcheck.cli import main\nstart, begun = early.start, []\n"
        "early.start = lambda: begun.append('onnx' in sys.modules) or start()\n"
        f"assert main({command}) == 0 and begun == {begun} and early._begun == []"
    )


@pytest.mark.parametrize("statement", ["import networkx", "import sympy", "import rich.text"])
def test_an_unused_package_is_seen(conv: Path, statement: str) -> None:
    loaded = loaded_after(f"from graphcheck.cli import main\nmain(['compare', {str(conv)!r}, {str(conv)!r}])\n{statement}")
    assert statement.split()[1].split(".")[0] in loaded & UNUSED


@pytest.mark.parametrize("command", ["demo", "export", "analyze", "compare", "rewrite", "report", "guard"])
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and command in out


def test_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version") == (0, f"graphcheck {graphcheck.__version__}\n", "")


def test_equal_models_exit_with_0_and_the_verdict_comes_first(run: Run, conv: Path, moved: Path) -> None:
    code, out, err = run("compare", conv, moved)
    assert (code, err) == (0, "")
    assert out.startswith("✓ proved: ")
    assert "\x1b" not in out


def test_a_model_is_identical_to_itself(run: Run, conv: Path) -> None:
    code, out, _ = run("compare", conv, conv, "--require", "identical")
    assert code == 0 and out.startswith("≡ identical: ")


def test_weaker_than_required_exits_with_3(run: Run, conv: Path, moved: Path) -> None:
    code, out, _ = run("compare", conv, moved, "--require", "identical")
    assert code == 3 and out.endswith("required: identical; established: proved\n")


def test_different_models_exit_with_1_and_leave_a_witness_that_replays(run: Run, conv: Path, other: Path) -> None:
    before = set(Path().iterdir())
    code, out, _ = run("compare", conv, other, "--reduce", "reduced", "--json", "result.json")
    assert code == 1 and out.startswith("≠ different: ")
    assert {p.name for p in set(Path().iterdir()) - before} == {"reduced", "result.json"}
    result = json.loads(Path("result.json").read_text())
    witness = result["witness"]
    assert Path(witness["path"]).is_file() and f"witness {witness['id']}: " in out and f"kept as {witness['id']}" in out
    assert f"  replay it: {witness['replay']}\n" in out
    for replay in (shlex.split(witness["replay"]), ["graphcheck", "compare", conv, other, "--replay", witness["id"][:6]]):
        code, out, _ = run(*replay[1:])
        assert code == 1 and "on the given input" in out
    assert run("compare", result["reduced"]["a"], result["reduced"]["b"])[0] == 1


def test_json_on_standard_output_is_alone_there(run: Run, conv: Path, moved: Path) -> None:
    code, out, err = run("compare", conv, moved, "--json", "-")
    result = json.loads(out)
    assert (code, err, result["schema"], result["verdict"]) == (0, "", "graphcheck/compare/1", "proved")
    assert {"proof", "numeric", "structure", "divergence", "witness", "command"} <= set(result)


def test_report_holds_both_graphs(run: Run, conv: Path, moved: Path) -> None:
    code, out, _ = run("compare", conv, moved, "--report", "out.html", "--numerics", "quick")
    assert code == 0 and "wrote out.html" in out
    assert "<html" in Path("out.html").read_text()


def test_report_is_drawn_again_from_saved_results(run: Run, conv: Path, moved: Path) -> None:
    run("compare", conv, moved, "--json", "one.json")
    run("analyze", conv, "--json", "two.json")
    code, out, _ = run("report", "one.json", "two.json", "-o", "out.html")
    assert (code, out) == (0, "wrote out.html\n")


@pytest.mark.parametrize(
    ("options", "code"), [(["--atol", "1e-3"], 0), (["--atol", "0", "--rtol", "0"], 1), (["--atol", "y:1e-3"], 0)]
)
def test_tolerances_gate_the_exit_code_alone(
    run: Run, conv: Path, tmp_path: Path, options: list[str], code: int
) -> None:
    # One ulp on each weight: within-rounding, and other numbers in the output.
    near = np.nextafter(WEIGHT, np.float32(9))
    got, out, _ = run("compare", conv, save(tmp_path / "near.onnx", CONV, near), *options, "--json", "r.json")
    result = json.loads(Path("r.json").read_text())
    assert (got, result["tolerances"]["passed"]) == (code, code == 0)
    assert result["verdict"] == "within-rounding"
    assert "decide the exit code alone" in out


def test_no_tolerance_excuses_a_difference(run: Run, conv: Path, other: Path) -> None:
    assert run("compare", conv, other, "--atol", "1e9")[0] == 1


def test_inputs_of_a_loader_script_are_run_and_saved(run: Run, conv: Path, moved: Path) -> None:
    Path("load.py").write_text(
        "import numpy as np\n"
        "print('loading')\n"
        "def wrong():\n    yield {'z': np.zeros((2, 2, 4, 4), np.float32)}\n"
        "def feeds():\n"
        "    for seed in range(9):\n"
        "        yield {'x': np.random.default_rng(seed).random((2, 2, 4, 4), np.float32)}\n"
    )
    options = ["--data-loader-script", "load.py:feeds", "--iterations", "3", "--json", "r.json"]
    code, _, _ = run("compare", conv, moved, *options, "--save-inputs", "in.npz", "--save-outputs", "out.npz")
    assert code == 0
    assert len(json.loads(Path("r.json").read_text())["numeric"]["runs"]) == 3
    with np.load("in.npz") as saved:
        assert np.array_equal(saved["x"], np.random.default_rng(0).random((2, 2, 4, 4), np.float32))
    with np.load("out.npz") as saved:
        assert set(saved.files) == {"a/y", "b/y"}
    assert run("compare", conv, moved, "--load-inputs", "in.npz")[0] == 0
    _, out, err = run("compare", conv, moved, "--data-loader-script", "load.py:feeds", "--json", "-")
    assert json.loads(out) and err == "loading\n"
    _, _, err = run("compare", conv, moved, "--data-loader-script", "load.py:wrong")
    assert err.endswith("graphcheck: input 0 of load.py:wrong: no input is named 'z'; there are x\n")


def test_names_cannot_move_the_cursor(run: Run, tmp_path: Path) -> None:
    model = onnx.parser.parse_model(CONV)
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    model.graph.output[0].name = model.graph.node[0].output[0] = "y\x1b[2J\x1b]0;owned\x07"
    (tmp_path / "evil.onnx").write_bytes(model.SerializeToString())
    for arguments in (("analyze", "evil.onnx"), ("compare", "evil.onnx", "evil.onnx")):
        code, out, _ = run(*arguments)
        assert code == 0 and "\x1b" not in out and "\\x1b[2J" in out


def test_analyze_hashes_the_file_only_where_it_is_asked_for(run: Run, moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("graphcheck.files.model.file_digest", lambda path: asked.append(Path(path)) or "of the file")
    assert run("analyze", moved)[0] == 0 and not asked
    assert run("analyze", moved, "--json", "r.json")[0] == 0 and asked == [moved]
    assert json.loads(Path("r.json").read_text())["model"]["sha256"] == "of the file"


def test_analyze_tells_the_geometry(run: Run, moved: Path) -> None:
    code, out, _ = run("analyze", moved, "--json", "r.json")
    assert code == 0 and "1 patch embedding" in out and "kernel 2×2, strides 2×2" in out
    (site,) = json.loads(Path("r.json").read_text())["patch_embeddings"]
    assert (site["kernel_shape"], site["in_channels"], site["out_channels"]) == ([2, 2], 2, 3)


def test_rewrite_writes_a_proved_model(run: Run, moved: Path, conv: Path) -> None:
    code, out, _ = run("rewrite", moved, "--to", "conv", "-o", "out.onnx", "--json", "r.json")
    assert code == 0 and out.startswith("✓ proved: ") and out.endswith("wrote out.onnx\n")
    assert set(json.loads(Path("r.json").read_text())["graphs"]) == {"a", "b"}
    assert "Conv" in {node.op_type for node in onnx.load("out.onnx").graph.node}
    assert run("compare", "out.onnx", conv)[0] == 0


def test_the_fastest_form_is_measured_or_nothing_is_changed(run: Run, moved: Path, conv: Path) -> None:
    code, out, _ = run("rewrite", moved, "--to", "fastest", "-o", "out.onnx", "--json", "r.json", "--threads", "1")
    assert code == 0 and "median" in out
    (row,) = json.loads(Path("r.json").read_text())["measured"]
    assert {"matmul", "conv"} <= {form["form"] for form in row["forms"]}
    assert run("compare", "out.onnx", conv)[0] == 0


def test_a_rank_limit_is_kept(run: Run, moved: Path, conv: Path) -> None:
    assert run("rewrite", moved, "--to", "matmul", "--max-rank", "5", "-o", "out.onnx")[0] == 0
    result = onnx.shape_inference.infer_shapes(onnx.load("out.onnx"), data_prop=True)
    ranks = [len(value.type.tensor_type.shape.dim) for value in result.graph.value_info]
    assert ranks and max(ranks) <= 5
    assert run("compare", "out.onnx", conv)[0] == 0


def test_rewrite_copies_byte_by_byte_where_nothing_applies(run: Run, conv: Path) -> None:
    code, out, _ = run("rewrite", conv, "--to", "conv", "-o", "out.onnx")
    assert code == 0 and "a byte copy" in out
    assert Path("out.onnx").read_bytes() == conv.read_bytes()
    assert run("rewrite", conv, "--to", "conv", "-o", "none.onnx", "--fail-if-none")[0] == 3
    assert not Path("none.onnx").exists()


def test_a_dry_run_writes_nothing(run: Run, moved: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    code, out, _ = run("rewrite", moved, "--dry-run")
    assert code == 0 and "reshape -> conv" in out.replace("matmul", "reshape")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("verdict", "code"), [("different", 1), ("undecided", 3)])
def test_a_rewrite_that_is_not_proved_is_not_written(
    run: Run, moved: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verdict: str, code: int
) -> None:
    from graphcheck.verdict import Comparison, Verdict
    from graphcheck.verdicts import compare as comparing

    monkeypatch.setattr(comparing, "compared", lambda *_, **__: Comparison(Verdict(verdict), "as the test says", {}))
    before = sorted(tmp_path.iterdir())
    got, out, _ = run("rewrite", moved, "-o", "out.onnx")
    assert got == code and "as the test says" in out and "nothing was written" in out
    assert sorted(tmp_path.iterdir()) == before


def test_rewrite_replaces_its_input_only_when_forced(run: Run, moved: Path) -> None:
    before = moved.read_bytes()
    code, _, err = run("rewrite", moved, "-o", moved)
    assert code == 2 and "--force" in err and moved.read_bytes() == before
    assert run("rewrite", moved, "-o", moved, "--force")[0] == 0
    assert moved.read_bytes() != before


def test_an_interrupt_ends_quietly(run: Run, conv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcheck.verdicts import compare as comparing

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparing, "compared", interrupted)
    assert run("compare", conv, conv) == (130, "", "")


def test_a_crash_of_our_own_is_no_verdict(run: Run, conv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphcheck.verdicts import compare as comparing

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(comparing, "compared", broken)
    code, _, err = run("compare", conv, conv)
    assert code == 2 and err.startswith("graphcheck: graphcheck itself failed (ZeroDivisionError: oh)")
    monkeypatch.setenv("GRAPHCHECK_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main(["compare", str(conv), str(conv)])


def test_a_closed_pipe_is_no_difference(conv: Path) -> None:
    command = [sys.executable, "-m", "graphcheck", "analyze", str(conv), "--json", "-"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE and done.stderr == b""


def test_what_cannot_be_printed_is_trouble_and_no_traceback(conv: Path) -> None:
    command = [sys.executable, "-m", "graphcheck", "analyze", str(conv)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    for environment in (buffered, buffered | {"PYTHONUNBUFFERED": "1"}):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, check=False
            )
        assert (done.returncode, done.stderr) == (2, b"graphcheck: standard output: No space left on device\n")
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=ROOT, capture_output=True, check=False)
    assert (closed.returncode, closed.stderr) == (0, b"")


def test_onnxruntime_is_told_to_report_nothing(run: Run, conv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    assert run("compare", conv, conv)[0] == 0
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_format_on_standard_output_is_alone_there(run: Run, conv: Path, moved: Path) -> None:
    import xml.etree.ElementTree as ET

    code, out, err = run("compare", conv, moved, "--format", "junit")
    assert (code, err) == (0, "") and ET.fromstring(out).tag == "testsuites"


def test_flags_take_no_value_in_the_help(run: Run) -> None:
    for command in ("compare", "rewrite", "analyze", "guard"):
        assert run(command, "--help")[1].count("<bool>") <= 1  # typer's own, of --help


def test_paths_may_hold_spaces_and_any_script(run: Run, moved: Path) -> None:
    folder = Path("mit Abstand モデル")
    folder.mkdir()
    code, out, err = run("rewrite", moved, "-o", folder / "ein é.onnx", "--json", folder / "r.json")
    assert (code, err) == (0, "") and f"wrote {folder}/ein é.onnx" in out
    assert run("compare", moved, folder / "ein é.onnx")[0] == 0
    assert run("report", folder / "r.json", "-o", folder / "r.html")[0] == 0


def test_export_lists_the_variants(run: Run) -> None:
    code, out, _ = run("export", "--list")
    assert code == 0 and "vit-conv-dynamo-static" in out
