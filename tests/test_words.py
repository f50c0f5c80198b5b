"""How numbers, shapes, sizes and names are written, and that it is told in one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graphcheck import words
from graphcheck.reporting import words as page

PACKAGE = Path(words.__file__).parent


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (None, 2, "-"), (True, 2, "True"), ("x\n", 2, "x\\n"), (1234567, 2, "1,234,567"), (1e5, 2, "100,000"),
        (1e7, 2, "1.0e+07"), (0.5, 2, "0.5"), (0.0012345, 3, "0.00123"), (99.4, 2, "99"), (345.678, 2, "3.5e+02"),
        (345.678, 3, "346"), (1e-9, 3, "1.00e-09"), (float("nan"), 2, "nan"), (-2.25, 2, "-2.2"),
    ],
)  # fmt: skip
def test_a_number(value: object, digits: int, text: str) -> None:
    assert words.number(value, digits) == text


def test_the_page_writes_the_same_numbers_in_its_own_signs() -> None:
    assert [page.number(v) for v in (None, True, 1234567, 0.0012345, "x")] == ["–", "yes", "1\u202f234\u202f567", "0.00123", "x"]
    assert {v: page.VERDICTS[v].glyph for v in page.VERDICTS} == words.GLYPHS


def test_shapes_sizes_and_names() -> None:
    assert words.dims([2, None, "batch"]) == "2×?×batch" and words.dims([]) == "scalar" and words.dims(None) == "?"
    assert page.shape(["n" * 40, 3]) == f"{'n' * 8}…{'n' * 7}×3" and page.shape(None) == ""
    assert words.shapes({"x": (2, 3), "s": ()}) == "x=2x3, s=scalar" and words.shapes({}) == "no inputs"
    assert words.size(3 << 29) == "1.5 GiB" and words.size(1 << 28) == "256 MiB"
    assert [words.plural(n, "node") for n in (0, 1, 2)] == ["no nodes", "1 node", "2 nodes"]
    assert words.short("a" * 50 + "\x1b" + "b" * 50, 11) == "aaaaa…bbbbb" and words.safe("\u202e") == "\\u202e"


# What writes a shape, a length of bytes, a glyph or a name without its middle.
OWN = re.compile(r"""["'][x×]["']\.join|\bGiB\b.*\{|:\.\dg\} [GM]iB|["'][≡✓≈≠]["']|\}…\{""")


def told_twice(sources: dict[str, str]) -> list[str]:
    return sorted(name for name, source in sources.items() if name != "words.py" and OWN.search(source))


def test_a_shape_and_a_long_name_are_written_in_one_file() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    assert OWN.search(sources["words.py"]) and told_twice(sources) == []
    planted = {"a.py": "'x'.join(map(str, shape))", "b.py": 'f"{t[:9]}…{t[-9:]}"', "c.py": 'f"{n / 2**30:.3g} GiB"'}
    assert told_twice(planted) == list(planted)
