"""What may import what: light modules load nothing heavy, and dependencies inside the package point one way."""

from __future__ import annotations

import ast
import graphlib
import io
import json
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "tensorflow", "tf2onnx", "onnxruntime", "onnx", "onnx_ir", "networkx", "numpy", "transformers"}

# The package's modules and subpackages, lowest layer first; each imports itself and lower layers only.
LAYERS = (
    ("codes", "deferred", "errors", "records", "verdict", "words"),
    ("limits", "outcome", "plugins"),
    ("options",),
    ("files", "processes"),
    ("graphs", "interface"),
    ("kernel", "runs"),
    ("parting", "patches"),
    ("precision",),
    ("blaming",),
    ("verdicts",),
    ("reporting", "rewriting", "exporting"),
    ("formats", "torch_side"),
    ("command_line",),
    ("api", "guarding", "passes"),
    ("sweeping", "olive", "pytest_plugin", "testing"),
    ("demo", "commands"),
    ("cli",),
    ("__init__", "__main__"),
)
# Lower layers that are out of bounds all the same: (importer, imported).
APART = {
    ("rewriting", "verdicts"),
    ("rewriting", "parting"),
    ("exporting", "verdicts"),
    ("exporting", "parting"),
    ("exporting", "kernel"),
}


def loaded_after(statement: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def heavy_after(statement: str) -> set[str]:
    """Those of them that are heavy."""
    return HEAVY & loaded_after(statement)


LIGHT = ["graphcheck", "graphcheck.errors", "graphcheck.verdict", "graphcheck.cli", "graphcheck.pytest_plugin"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_module_loads_nothing_heavy(module: str) -> None:
    assert heavy_after(f"import {module}") == set()


@pytest.mark.parametrize("statement", ["import networkx", "import onnx_ir.passes", "from onnx import helper"])
def test_a_heavy_import_is_seen(statement: str) -> None:
    assert statement.split()[1].split(".")[0] in heavy_after(f"import graphcheck\n{statement}")


def module_name(path: str) -> str:
    """``graphcheck/kernel/ops/table.py`` -> ``graphcheck.kernel.ops.table``; a package's ``__init__.py`` is the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def unit_of(module: str) -> str:
    """The module or subpackage right below graphcheck that ``module`` belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


class WithoutTypeChecking(ast.NodeTransformer):
    """Drops what is imported for type checking alone."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imports(path: str, source: str, known: set[str], *, typing: bool = True) -> set[str]:
    """The modules of the package that ``source`` imports anywhere: in functions, and (``typing``) for type checking too."""
    module, found = module_name(path), set()
    package = module.split(".") if path.endswith("__init__.py") else module.split(".")[:-1]
    tree = ast.parse(source)
    for node in ast.walk(tree if typing else WithoutTypeChecking().visit(tree)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {name if (name := f"{base}.{alias.name}") in known else base for alias in node.names}
    return {name for name in found if name.split(".")[0] == "graphcheck"} - {module}


def violations(sources: dict[str, str]) -> list[str]:
    """What is wrong with the imports among ``sources`` (path -> text), one phrase each, without the common prefix."""
    level = {unit: height for height, units in enumerate(LAYERS) for unit in units}
    known = {module_name(path) for path in sources}
    graph = {module_name(path): imports(path, source, known) for path, source in sources.items()}
    found = [f"{unit_of(module)} stands in no layer" for module in graph if unit_of(module) not in level]
    for module, imported in graph.items():
        here = unit_of(module)
        for name in sorted(imported):
            there = unit_of(name)
            below = level.get(there, len(LAYERS)) < level.get(here, len(LAYERS))
            if here != there and (not below or (here, there) in APART):
                found.append(f"{module.removeprefix('graphcheck.')} imports {name}")
    loaded = {
        name: imports(path, source, known, typing=unit_of(name) == "kernel")
        for path, source in sources.items()
        for name in [module_name(path)]
    }
    try:
        graphlib.TopologicalSorter(loaded).prepare()
    except graphlib.CycleError as error:
        found.append("cycle: " + " <- ".join(name.removeprefix("graphcheck.") for name in error.args[1]))
    return found


def test_dependencies_point_one_way() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "graphcheck").rglob("*.py")}
    assert "graphcheck/verdict.py" in sources
    assert violations(sources) == []


def test_one_module_alone_reaches_upwards_by_a_name() -> None:
    """What a notebook shows of a result is the report's to say."""
    texts = {p.relative_to(ROOT).as_posix(): p.read_text() for p in (ROOT / "graphcheck").rglob("*.py")}
    named = {(path, name) for path, text in texts.items() for name in re.findall(r'import_module\("(graphcheck.*?)"', text)}
    assert named == {("graphcheck/verdict.py", "graphcheck.reporting.notebook")}


# Imports, and what is said of them; the first three are right.
IMPORTS = [
    ({"files/model": "import graphcheck.errors"}, []),
    ({"rewriting/a": "from graphcheck.patches import find"}, []),
    ({"kernel/__init__": "from . import a", "kernel/a": "from ..errors import x"}, []),
    ({"files/model": "import graphcheck.kernel.ops"}, ["files.model imports graphcheck.kernel.ops"]),
    ({"limits": "def f():\n    from graphcheck import cli", "cli": ""}, ["limits imports graphcheck.cli"]),
    ({"kernel/a": "from ..runs import session"}, ["kernel.a imports graphcheck.runs"]),
    ({"runs/a": "from ..kernel.proof import pair"}, ["runs.a imports graphcheck.kernel.proof"]),
    ({"kernel/a": "from ..parting import witness"}, ["kernel.a imports graphcheck.parting"]),
    ({"patches/a": "from graphcheck.verdicts import x"}, ["patches.a imports graphcheck.verdicts"]),
    ({"rewriting/a": "import graphcheck.verdicts"}, ["rewriting.a imports graphcheck.verdicts"]),
    ({"exporting/a": "from .. import cli", "cli": ""}, ["exporting.a imports graphcheck.cli"]),
    ({"errors": "from graphcheck import compare"}, ["errors imports graphcheck"]),
    ({"novelty": ""}, ["novelty stands in no layer"]),
    (
        {"kernel/a": "from . import b", "kernel/b": "def f():\n    from . import a"},
        ["cycle: kernel.a <- kernel.b <- kernel.a"],
    ),
    (
        {"kernel/a": "from . import b", "kernel/b": "if TYPE_CHECKING:\n    from . import a"},
        ["cycle: kernel.a <- kernel.b <- kernel.a"],
    ),
    ({"runs/a": "from . import b", "runs/b": "if TYPE_CHECKING:\n    from . import a"}, []),
]


@pytest.mark.parametrize(("sources", "expected"), IMPORTS)
def test_a_wrong_import_is_told(sources: dict[str, str], expected: list[str]) -> None:
    assert violations({f"graphcheck/{name}.py": source for name, source in sources.items()}) == expected


def code_lines(source: str) -> int:
    """Lines that hold code: no blank lines, no comments, no docstrings."""
    tree = ast.parse(source)
    doc: set[int] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                doc |= set(range(body[0].lineno, (body[0].end_lineno or 0) + 1))
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in quiet:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - doc)


# Room -> the most lines of code it may hold. The kernel is what `proved` rests on: a capability that needs more raises its
# number in a decision that says by how much and why.
BUDGET = {"kernel": 10863}


@pytest.mark.parametrize("room", BUDGET)
def test_a_room_keeps_its_budget(room: str) -> None:
    held = sum(code_lines(path.read_text()) for path in (ROOT / "graphcheck" / room).rglob("*.py"))
    assert 0 < held <= BUDGET[room]


def test_docstrings_comments_and_blank_lines_are_free() -> None:
    text = ['"""What."""', "", "# why", "x = 1  # one", "", "def f():", '    """It.', "", '    More."""', "    return (", "x)"]
    assert code_lines("\n".join(text) + "\n") == 4


def loops_over_nodes(source: str) -> list[str]:
    """What the loops and comprehensions of ``source`` run over, where that is a graph or its nodes."""
    places = [n.iter for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.For, ast.comprehension))]
    return [text for text in map(ast.unparse, places) if re.search(r"(\bgraph|\bnodes|\ball_nodes\(\))\)*$", text)]


def test_the_interpreter_is_the_only_loop_that_evaluates_nodes() -> None:
    assert loops_over_nodes((ROOT / "graphcheck/kernel/interpreter.py").read_text()) == ["nodes"]
    assert loops_over_nodes((ROOT / "graphcheck/patches/trace.py").read_text()) == []
    assert loops_over_nodes("for n in graph: f(n)\nx = [n for n in reversed(list(model.graph))]\nfor v in graph.inputs: 0") == [
        "graph",
        "reversed(list(model.graph))",
    ]


def test_onnxruntime_is_run_from_one_room() -> None:
    """An export is run where it was made, and as an optimizer it is one among others; everything else asks ``runs``."""
    own = {p.relative_to(ROOT / "graphcheck") for p in (ROOT / "graphcheck").rglob("*.py")
           if re.search(r"^\s*(import|from) onnxruntime\b", p.read_text(), re.MULTILINE)}  # fmt: skip
    assert {path.as_posix() for path in own} == {"runs/session.py", "exporting/run.py", "guarding/tools/onnxruntime.py"}


def classes() -> dict[str, set[str]]:
    """Name of a class -> the rooms that have one of that name."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "graphcheck").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).add(unit_of(module_name(path.relative_to(ROOT).as_posix())))
    return found


@pytest.mark.parametrize("room", ["patches", "rewriting"])
def test_a_class_has_a_name_of_its_own(room: str) -> None:
    assert {name: rooms for name, rooms in classes().items() if room in rooms and len(rooms) > 1} == {}
