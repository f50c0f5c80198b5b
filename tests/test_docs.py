"""The pages of docs and BugList.md: their commands run and print what is shown, and every link leads somewhere."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shutil
from pathlib import Path

import onnx
import pytest
from documented import ROOT, Page, run, run_examples, understood

import graphcheck
from graphcheck.cli import main
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.kernel.values.residues import LOW, PRIME_COUNT

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): Page(path) for path in sorted(DOCS.rglob("*.md"))}
PAGES["BugList.md"] = Page(ROOT / "BugList.md")
WITH_COMMANDS = [name for name, page in PAGES.items() if page.shown]
NET = '<ir_version: 10, opset_import: ["": 21]> net (float[N,2] x) => (float[N,1] y) <float[2,1] w = {0.3, 0.7}> { y = %s }'


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """The reader's own files that pages take for granted: models, folders of them and a list of pairs."""
    proto = onnx.parser.parse_model(NET % "MatMul (x, w)")
    other = onnx.parser.parse_model(NET % "Gemm (x, w)")
    for folder, model in (("reference", proto), ("exports", other), ("models", proto)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.onnx").write_bytes(model.SerializeToString())
    for name in ("reference", "export", "models/net.optimized", "a", "b", "before", "after"):
        shutil.copy(tmp_path / "exports" / "net.onnx", tmp_path / f"{name}.onnx")
    pairs = [{"a": "reference.onnx", "b": "exports/net.onnx"}]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return tmp_path


@pytest.mark.torch
@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_the_commands_print_what_the_page_shows(
    name: str, given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(PAGES[name], given, monkeypatch, capsys) > 0


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.examples])
def test_the_python_examples_run(name: str, given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    module, pixels = torch.nn.Conv2d(3, 4, 2, 2).eval(), torch.randn(1, 3, 4, 4)
    torch.onnx.export(module, (pixels,), given / "model.onnx", dynamo=False)
    names = {"module": module, "pixels": pixels, "export": lambda path: shutil.copy(given / "export.onnx", path)}
    assert run_examples(PAGES[name], names, given, monkeypatch) > 0


def test_a_wrong_page_is_seen(given: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = given / "page.md"
    command = "$ graphcheck compare reference.onnx export.onnx --no-run\n"
    for text in (f"{command}✓ identical\n", "$ graphcheck compare reference.onnx absent.onnx\n"):
        page.write_text(f"```console\n{text}```\n", encoding="utf-8")
        with pytest.raises(AssertionError):
            run(Page(page), given, monkeypatch, capsys)


def test_commands_in_sentences_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    mentioned = [command for page in PAGES.values() for command in page.mentioned]
    assert mentioned
    assert [command for command in mentioned if not understood(command, capsys)] == []
    assert not understood("graphcheck compare A B --prove", capsys)


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    links = re.findall(r"\]\(([^)\s]+)\)", page.prose)
    assert [link for link in links if not leads(page.path, link)] == []


def leads(path: Path, link: str) -> bool:
    """Whether a link from a page is a web address, or names a file and, behind #, a heading of it."""
    if link.startswith("https://"):
        return True
    file, _, anchor = link.partition("#")
    target = path.parent / file if file else path
    if not target.is_file():
        return False
    titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
    return not anchor or anchor in {re.sub(r"[^\w]+", "-", re.sub("[`,.:?]", "", t.lower())).strip("-") for t in titles}


def test_a_broken_link_is_seen() -> None:
    index = DOCS / "index.md"
    assert leads(index, "index.md") and not leads(index, "absent.md") and not leads(index, "index.md#absent")


def test_every_page_stands_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    assert set(PAGES) - {"BugList.md"} == listed


def test_the_reference_has_every_command_and_option(capsys: pytest.CaptureFixture[str]) -> None:
    namespace = runpy.run_path(str(DOCS / "hooks.py"))
    page = namespace["on_page_markdown"](PAGES["reference/commands.md"].text)
    assert namespace["PLACE"] not in page
    main(["--help"])
    names = re.findall(r"^│ ([a-z]+) ", capsys.readouterr().out, re.M)
    assert "compare" in names and "sweep" in names
    examples = re.findall(r"^    (graphcheck .*)$", page, re.M)
    assert [command for command in examples if "[OPTIONS]" not in command and not understood(command, capsys)] == []
    for name in names:
        assert f"\n## {name}\n" in page and sum(f" {name} " in command for command in examples) >= 2
        main([name, "--help"])
        options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", capsys.readouterr().out)) - {"--help"}
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert [option for option in options if f"`{option}`" not in section and option not in section] == []


def test_the_reference_has_every_keyword() -> None:
    namespace = runpy.run_path(str(DOCS / "hooks.py"))
    page = namespace["on_page_markdown"](PAGES["reference/python.md"].text)
    assert not any(place in page for place in namespace["KEYWORDS"])
    assert "`fold_normalization`" in page
    named = inspect.signature(graphcheck.assert_equivalent).parameters
    assert len(named) > 25 and [name for name in list(named)[2:] if f"| `{name}` | <code>" not in page] == []


def test_the_keys_of_the_json_are_documented(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(given)
    pair = "reference.onnx export.onnx"
    commands = {
        "compare": f"compare {pair} --atol 1",
        "analyze": "analyze export.onnx",
        "rewrite": "rewrite export.onnx --dry-run --explain",
        "passes": "guard export.onnx --passes onnxruntime:EliminateIdentity --no-run",
        "sweep": "sweep pairs.json --no-run --jobs 1",
    }
    text = PAGES["reference/json.md"].text
    for name, command in commands.items():
        assert main([*command.split(), "--json", "r.json"]) == 0
        written = set(json.loads(Path("r.json").read_text()))
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.M)
        listed = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
        optional = {"graphs", "alignment", "times_ms"} if name == "rewrite" else set()
        assert written <= listed and listed - written <= optional, name


def test_pages_name_no_place_of_a_machine() -> None:
    found = [name for name, page in PAGES.items() if re.search(r"(/(home|root|tmp|work)/|[A-Z]:\\)", page.text)]
    assert found == []


def test_python_examples_use_public_names() -> None:
    examples = "".join(text for page in PAGES.values() for kind, text in page.blocks if kind == "python")
    used = set(re.findall(r"\bgraphcheck\.(\w+)", re.sub(r"(?:from|import) graphcheck\.\S+.*", "", examples)))
    assert used and used <= set(graphcheck.__all__)


def test_code_that_pages_quote_is_in_the_package() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "graphcheck").rglob("*.py"))
    quoted = [text for page in PAGES.values() for kind, text in page.blocks if kind == "py"]
    assert quoted and [text for text in quoted if text not in code] == []


def test_operators_that_pages_name_as_taught_are() -> None:
    sentence = re.search(r"operators\s+such\s+as\s+(.*?)\s+are\s+expanded", PAGES["explanation.md"].text, re.DOTALL)
    named = re.findall(r"`(\w+)`", sentence[1] if sentence else "")
    assert named and {("", name) for name in named} <= set(TAUGHT)


@pytest.mark.torch
@pytest.mark.slow
def test_the_error_probability_is_what_the_explanation_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The formula of the page on the numbers that its command records gives the probability that it prints."""
    run(Page(DOCS / "explanation.md"), tmp_path, monkeypatch, capsys)
    text = PAGES["explanation.md"].text
    printed = re.search(r"= ([\d.e-]+)\s+That is the number printed", text)
    proof = json.loads((tmp_path / "vit.json").read_text())["proof"]
    total = 0.0
    for tier in proof["tiers"]:
        primes, pairs = len(tier["primes"]), tier["fingerprints"] // 2
        for key, value in (("degree", tier["degree"]), ("height", tier["height"]), ("primes", primes), ("hashed", 0)):
            assert f"| `{key}` | {value:.0f}" in text and tier["hashed"] == 0
        chance = tier["degree"] / LOW + tier["height"] / 21 / PRIME_COUNT
        total += pairs * ((2 * chance) ** primes + 2.0**-128)
    assert total == pytest.approx(proof["error_probability"], rel=0.01, abs=0.0)
    assert printed and float(printed[1]) == pytest.approx(total, rel=0.05, abs=0.0)
