"""What is written for people: the map of the tests has every file, prose keeps to 120 columns, sentences name the noun."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
COLUMNS = 120


def unlike(text: str, files: set[str]) -> dict[str, int]:
    """Files that the map names another number of times than once, and what it names that is no file."""
    named = Counter(re.findall(r"^- `([\w/]+\.py)`: \S", text, re.MULTILINE))
    return {name: named[name] for name in files | set(named) if named[name] != 1 or name not in files}


def test_the_map_names_every_file_of_the_tests_once() -> None:
    found = (path for pattern in ("*.py", "*/*.py") for path in TESTS.glob(pattern))
    files = {path.relative_to(TESTS).as_posix() for path in found if path.name != "__init__.py"}
    assert "test_prose.py" in files and "zoo/oracle.py" in files
    assert unlike((TESTS / "README.md").read_text(encoding="utf-8"), files) == {}


def test_a_file_that_the_map_forgets_is_seen() -> None:
    text = "- `a.py`: A.\n- `b.py`: B.\n- `b.py`: B again.\n- `gone.py`: G.\n- `bare.py`:\n"
    assert unlike(text, {"a.py", "b.py", "c.py", "bare.py"}) == {"b.py": 2, "c.py": 0, "gone.py": 1, "bare.py": 0}


def test_the_rooms_of_the_map_exist() -> None:
    heads = re.findall(r"^`graphcheck/.*", (TESTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = [name.removeprefix("graphcheck/") for head in heads for name in re.findall(r"`([\w/.]+)`", head)]
    assert len(named) > 15
    assert [name for name in named if name != "proved" and not (ROOT / "graphcheck" / name).exists()] == []


def long_lines(text: str) -> list[int]:
    """The numbers of the lines of prose that are too long; tables, headings, code and single long words are none."""
    found, fence = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
        told = not fence and not re.match(r"\s*[|#<]|    ", line)
        if told and len(line) > COLUMNS and " " in line[:COLUMNS].strip():
            found.append(number)
    return found


PAGES = [page for pattern in ("*.md", "*/*.md", "docs/*/*.md") for page in ROOT.glob(pattern) if ".venv" not in page.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_keeps_to_its_columns(page: Path) -> None:
    assert long_lines(page.read_text(encoding="utf-8")) == []


def test_a_long_line_is_seen() -> None:
    long = "word " * 30
    text = f"{long}\n| {long} |\n```\n{long}\n```\n- {long}\n# {long}\n    {long}\n<img {long}>\n{'x' * 130}"
    assert long_lines(text) == [1, 6]


# "it is no file" and "its name is none that a file can have" put a negative in the place of the noun.
ODD = re.compile(r"(?<!there )\b(?:is|are|was|were|be|of) no (?!longer|more)\w+|\b(?:is|are) none\b")


def odd_sentences(source: str) -> list[str]:
    """The texts of a file, docstrings aside, that say what something is by what it is not."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs]
    return [text.value for text in texts if ODD.search(text.value)]


def test_sentences_say_the_noun() -> None:
    found = {path.name: odd for path in (ROOT / "graphcheck").rglob("*.py") if (odd := odd_sentences(path.read_text()))}
    assert found == {}


def test_an_odd_sentence_is_seen() -> None:
    told = ["a header that long is none", "is no regular file", "those of no external data"]
    source = "\n".join(['"""It is no test."""', *(f"x = {text!r}" for text in told), "y = 'there is no file'"])
    assert odd_sentences(source) == told
