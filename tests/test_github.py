"""The action, the hooks and the workflow: each step that is shell is run, with its inputs put in as GitHub puts them in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

ROOT = Path(__file__).parent.parent
yaml = pytest.importorskip("yaml")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
NET = '<ir_version: 10, opset_import: ["": 21]> net (float[N,2] x) => (float[N,1] y) <float[2,1] w = {0.3, %s}> { y = %s }'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with models, and what a runner has: its temporary folder with graphcheck installed, and its files."""
    tmp_path = tmp_path / "my models"  # a blank in the path breaks what is not quoted
    tmp_path.mkdir()
    for name, text in (
        ("a", NET % (0.7, "MatMul (x, w)")),
        ("b", NET % (0.7, "Gemm (x, w)")),
        ("c", NET % (0.8, "Gemm (x, w)")),
    ):
        (tmp_path / f"{name}.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "optimize.py").write_text("import shutil, sys\nshutil.copy(sys.argv[1], sys.argv[2])\n")
    programs = tmp_path / "temp" / "graphcheck-env" / "bin"
    programs.mkdir(parents=True)
    for name, module in (("python", ""), ("graphcheck", " -m graphcheck")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path / "temp"))
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def step(name: str) -> dict[str, Any]:
    (found,) = (step for step in ACTION["runs"]["steps"] if step.get("id", step.get("name")) == name)
    return dict(found)


def put(text: str, inputs: dict[str, str]) -> str:
    """A text of the action with its expressions replaced; one that is neither an input nor known is an error."""
    known = {f"inputs.{name}": str(about.get("default", "")) for name, about in ACTION["inputs"].items()}
    known |= {f"inputs.{name}": value for name, value in inputs.items()}
    known |= {"github.action_path": str(ROOT), "steps.python.outputs.python-path": sys.executable}
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda match: known[match[1]], text)


def shell(name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Runs a step of the action as a runner does."""
    about = step(name)
    assert "${{" not in about["run"], "an expression in a script would be evaluated by the shell"
    env = os.environ | {key: put(value, inputs) for key, value in about.get("env", {}).items()}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", about["run"]]
    return subprocess.run(bash, env=env, capture_output=True, text=True, check=False)


def outputs(here: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (here / "GITHUB_OUTPUT").read_text().splitlines())


# the arguments -> the verdict and the exit code
RUNS = [
    ("compare", "a.onnx b.onnx", "proved", 0),
    ("compare", "a.onnx\n  c.onnx\n", "different", 1),
    ("compare", "a.onnx broken.onnx", "", 2),
    ("compare", "a.onnx b.onnx --require identical", "proved", 3),
    ("guard", f"a.onnx -- '{sys.executable}' optimize.py {{in}} {{out}}", "identical", 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "arguments", "verdict", "code"), RUNS)
def test_the_check_tells_its_verdict_and_leaves_files(
    here: Path, command: str, arguments: str, verdict: str, code: int
) -> None:
    done = shell("check", command=command, arguments=arguments)
    told = outputs(here)
    assert (done.returncode, told["verdict"], told["exit-code"]) == (code, verdict, str(code)), done.stderr
    folder = Path(told["folder"])
    made = {path.name for path in folder.iterdir()}
    if code == 2:
        assert "broken.onnx" in done.stderr and "sarif" not in told
        return
    assert made == {f"graphcheck.{kind}" for kind in ("json", "html", "xml", "sarif")}
    assert ("::error title=graphcheck" in done.stdout) == (code == 1)
    assert ("::warning title=graphcheck" in done.stdout) == (code == 3)
    assert verdict in (here / "GITHUB_STEP_SUMMARY").read_text()
    findings = json.loads(Path(told["sarif"]).read_text())["runs"][0]["results"]
    assert len(findings) == (code != 0)


@pytest.mark.slow
def test_an_optimizer_pass_by_pass_has_no_one_verdict(here: Path) -> None:
    done = shell("check", command="guard", arguments="a.onnx --passes onnxslim:FusionGemm")
    told = outputs(here)
    assert (done.returncode, told["verdict"], told["exit-code"]) == (0, "", "0"), done.stderr
    assert json.loads((Path(told["folder"]) / "graphcheck.json").read_text())["schema"] == "graphcheck/passes/1"


def test_arguments_are_words_and_never_commands(here: Path) -> None:
    done = shell("check", arguments="'a.onnx' \"b.onnx\" '--val-range' 'x=$(touch bad),`touch bad`;touch bad'")
    assert done.returncode == 2 and not (here / "bad").exists()
    assert shell("check", command="sweep", arguments="a.onnx").returncode == 2
    assert "::error" in shell("check", command="sweep", arguments="a.onnx").stdout


def test_every_expression_of_the_action_leads_somewhere() -> None:
    text = (ROOT / "action.yml").read_text()
    ids = {step.get("id") for step in ACTION["runs"]["steps"]}
    script = step("check")["run"]
    for source, name in re.findall(r"(inputs|steps)\.([\w-]+)", text):
        assert name in (ACTION["inputs"] if source == "inputs" else ids), name
    for name in re.findall(r"steps\.check\.outputs\.([\w-]+)", text):
        assert f'echo "{name}=' in script
    assert all(about["description"] for about in (*ACTION["inputs"].values(), *ACTION["outputs"].values()))
    assert all("shell" in step for step in ACTION["runs"]["steps"] if "run" in step)
    with pytest.raises(KeyError):
        put("${{ inputs.nothing }}", {})


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["id"])
def test_a_hook_is_what_it_says(hook: dict[str, Any], here: Path) -> None:
    words = {
        "graphcheck-compare": ["a.onnx", "{}.onnx"],
        "graphcheck-guard": ["a.onnx", "--", "sh", "-c", "cp {}.onnx {{out}}; : {{in}}"],
    }[hook["id"]]
    assert hook["language"] == "python" and re.search(hook["files"], "models/net.onnx")
    assert re.search(hook["files"], "net.onnx.data") and not re.search(hook["files"], "onnx.py")
    for other, code in (("b", 0), ("c", 1)):
        entry = [sys.executable, "-m", *hook["entry"].split(), *(word.format(other) for word in words)]
        assert subprocess.run(entry, capture_output=True, text=True, check=False).returncode == code


def test_the_workflow_calls_what_is_there() -> None:
    runs = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    assert runs == [".ci/run", "make hosts"]
    assert os.access(ROOT / ".ci/run", os.X_OK) and re.search(r"^hosts:", (ROOT / "Makefile").read_text(), re.M)
    assert WORKFLOW[True].keys() == {"push", "pull_request"}  # YAML 1.1 reads "on" as True
