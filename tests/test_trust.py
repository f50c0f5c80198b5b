"""docs/trust.md says what the code is: its rooms and lines, what it imports, the tests that exist, where it departs.

``python tests/test_trust.py`` writes the numbers of the table anew.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from test_boundaries import BUDGET, ROOT, code_lines, imports, module_name

PAGE = ROOT / "docs" / "trust.md"
ROW = re.compile(r"^\| ((?:`[\w/.]+`(?:, )?)+) \| ([\d,]+) \| ([\d,]+) \|", re.M)
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted((ROOT / "graphcheck").rglob("*.py"))}
STANDARD = frozenset(sys.stdlib_module_names)


def section(title: str) -> str:
    return PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rooms(text: str) -> dict[str, tuple[int, int]]:
    """The rooms of the table, with the files and lines of code that it states."""
    return {names: (int(files.replace(",", "")), int(lines.replace(",", ""))) for names, files, lines in ROW.findall(text)}


def counted(names: str) -> tuple[int, int]:
    """The files (with code in them) and the lines of code of a room."""
    found: set[str] = set()
    for name in re.findall(r"`([^`]+)`", names):
        found |= {p for p in SOURCES if p == f"graphcheck/{name}" or str(Path(p).parent) + "/" == f"graphcheck/{name}"}
    lines = [code_lines(SOURCES[path]) for path in found]
    return sum(n > 0 for n in lines), sum(lines)


def holds(stated: tuple[int, int], real: tuple[int, int]) -> bool:
    """Within a tenth, two files and a hundred lines: a change of the code need not touch the page each time."""
    return all(abs(x - y) <= max(least, 0.1 * y) for x, y, least in zip(stated, real, (2, 100), strict=True))


def test_the_table_states_what_there_is() -> None:
    stated = rooms(section("Our own code"))
    assert len(stated) == 11
    assert f"{BUDGET['kernel']:,} lines" in section("Our own code")
    assert [(names, counted(names)) for names, numbers in stated.items() if not holds(numbers, counted(names))] == []


def test_a_wrong_number_is_seen() -> None:
    assert holds((7, 1000), (8, 1090)) and not holds((7, 1000), (7, 1200)) and not holds((7, 1000), (10, 1000))


def trusted() -> set[str]:
    """The modules of the rooms of the table."""
    names = re.findall(r"`([^`]+)`", " ".join(rooms(section("Our own code"))))
    return {module_name(p) for p in SOURCES if any(p.startswith(f"graphcheck/{name}") for name in names)}


def reached(starts: Iterable[str]) -> set[str]:
    """The modules that some modules import, and those that these import."""
    known = {module_name(path): path for path in SOURCES}
    names = set(known)
    found, todo = set[str](), list(starts)
    while todo:
        module = todo.pop()
        if module in known and module not in found:
            found.add(module)
            todo += imports(known[module], SOURCES[known[module]], names)
    return found


def test_all_that_the_kernel_imports_is_in_the_table() -> None:
    kernel = {module_name(path) for path in SOURCES if path.startswith("graphcheck/kernel/")}
    assert kernel <= trusted()
    assert reached(kernel) - trusted() - {"graphcheck"} == set()


def third_party(sources: Iterable[str]) -> set[str]:
    """The packages of others that code imports."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.split(".")[0])
    return found - STANDARD - {"graphcheck"}


def test_all_third_party_code_is_named() -> None:
    kernel = {module_name(path) for path in SOURCES if path.startswith("graphcheck/kernel/")}
    modules = reached(kernel)
    used = third_party(SOURCES[path] for path in SOURCES if module_name(path) in modules)
    table = section("Other people's code")
    assert {"numpy", "onnx", "onnx_ir"} <= used
    named = {"google": "protobuf"}
    assert [name for name in used if named.get(name, name) not in table] == []


@pytest.mark.parametrize("title", ["Our own code", "Other people's code", "What checks what"])
def test_tests_that_are_named_exist(title: str) -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", section(title))
    assert named and [name for name in named if not (ROOT / name).exists()] == []


RAISED = ("Untaught", "Unshaped", "_unknown")  # what makes an error of a sentence


def departures() -> list[str]:
    """What the kernel says of operators on which the standard and the runtimes differ, without the names it fills in."""
    found = []
    for path in SOURCES:
        if not path.startswith("graphcheck/kernel/"):
            continue
        for node in ast.walk(ast.parse(SOURCES[path])):
            raised = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED
            if isinstance(node, ast.Call) and raised:
                found += [text for argument in node.args for text in _texts(argument) if re.search(r"standard|runtimes", text)]
            if isinstance(node, ast.FunctionDef) and node.name in ("_doubt", "broken_length"):
                returned = [child.value for child in ast.walk(node) if isinstance(child, ast.Return) and child.value]
                found += [text for value in returned for text in _texts(value) if len(text) > 5]
    return found


def _texts(node: ast.AST) -> list[str]:
    """The parts of a string between what is filled in, without the name of an operator at its beginning."""
    constants = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return [re.sub(r"^[A-Z]\w+ ", "", text).strip(" :]") for text in constants]


def test_every_departure_is_on_the_page() -> None:
    said = departures()
    page = " ".join(section("Where graphcheck departs from the standard, or the standard is silent").split())
    assert len(said) >= 14
    assert [text for text in said if text not in page] == []
    quoted = re.findall(r"`([^`]+)`", page.partition("\nAnd these are choices")[0])
    assert [text for text in quoted if text not in said] == []


def rewrite() -> None:
    """Write the numbers of the table anew."""

    def renewed(row: re.Match[str]) -> str:
        files, lines = counted(row[1])
        return f"| {row[1]} | {files} | {lines:,} |"

    PAGE.write_text(ROW.sub(renewed, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    rewrite()
