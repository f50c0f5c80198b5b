"""A format is one file and one line; JUnit XML, SARIF and annotations: well formed, within limits, no name breaks out."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from xml.etree import ElementTree

import onnx
import pytest

from graphcheck import formats
from graphcheck.cli import main
from graphcheck.command_line import fields_of, parameter
from graphcheck.errors import UsageError
from graphcheck.formats import add_step_summary, format_results, write_formats
from graphcheck.options import Told
from graphcheck.outcome import Outcome
from graphcheck.verdict import Comparison, Verdict

TOY = """
def write(outcomes, require):
    return "".join(f"{o.name} is {o.status}, {require} asked for" for o in outcomes)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new format: one file in the folder and one name in the table; returns a folder with two models."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "toy.py").write_text(TOY)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "room")])
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, "toy"))
    monkeypatch.delitem(sys.modules, "graphcheck.formats.toy", raising=False)
    monkeypatch.chdir(tmp_path)
    net = '<ir_version: 10, opset_import: ["": 21]> net (float[2] x) => (float[2] y) { y = Relu (x) }'
    for side in "ab":
        (tmp_path / side).mkdir()
        (tmp_path / side / "net.onnx").write_bytes(onnx.parser.parse_model(net).SerializeToString())
    return tmp_path


def test_a_new_format_is_one_file_and_one_line(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a/net.onnx", "b/net.onnx", "--format", "toy=told.txt", "--format", "toy"]) == 0
    said = "a/net.onnx / b/net.onnx is identical, within-rounding asked for"
    assert (toy / "told.txt").read_text() == said and capsys.readouterr().out == said
    assert main(["sweep", "a", "--against", "b", "--format", "toy=told.txt"]) == 0
    assert (toy / "told.txt").read_text() == "net is identical, within-rounding asked for"
    (field,) = (field for field in fields_of(Told, "compare") if field.name == "format")
    told = parameter(field, str).annotation.__metadata__[0].help
    assert "junit, sarif, github, summary, layers, model-explorer, tensors or toy, to FILE" in told


def test_a_format_without_its_line_is_none(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", formats.FORMATS[:-1])
    with pytest.raises(UsageError, match=r"there is no format 'toy'; the formats are junit, .*layers, model-explorer, tensors"):
        format_results(MIXED, "toy")


def test_every_file_of_a_format_has_its_line() -> None:
    files = {path.stem for path in Path(formats.__file__).parent.glob("*.py") if "\ndef write(" in path.read_text()}
    assert files == {name.replace("-", "_") for name in formats.FORMATS}


HOSTILE = "<b>&\"']]>\x1b[31m\x00\n::error::x%0A|`@team\u202e\ud800\uffff"
PLACE = {"tensor": "t9", "node": "/encoder/layer.0/Gelu", "op_type": "Gelu"}
RESULT = {
    "divergence": {"a": None, "b": PLACE, "shared": 3},
    "witness": {"replay": "graphcheck compare a b --inputs w"},
}
MIXED = [
    Outcome("same", "identical", "the same graph", a="a/same.onnx", b="b/same.onnx", seconds=0.5),
    Outcome("close", "within-rounding", "two constants", a="a/close.onnx", b="b/close.onnx"),
    Outcome("bad", "different", "output y differs", a="a/bad.onnx", b="b/bad.onnx", result=RESULT),
    Outcome("slow", "undecided", "the time limit of 3 s was reached", "timeout", a="a/slow.onnx", b="b/slow.onnx"),
    Outcome("broken", "trouble", "is an empty file", "error", a="/elsewhere/b r.onnx"),
    Outcome(HOSTILE, "different", HOSTILE, a=f"a/{HOSTILE}", b=f"b/{HOSTILE}"),
]


def test_junit_counts_every_result_once_and_undecided_is_a_failure() -> None:
    root = ElementTree.fromstring(format_results(MIXED, "junit"))
    (suite,) = root
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == ("6", "3", "1")
    cases = {case.get("name"): [part.tag for part in case] for case in suite}
    assert cases["same"] == cases["close"] == ["system-out"]
    assert cases["bad"] == cases["slow"] == ["failure"] and cases["broken"] == ["error"] and len(cases) == 6
    bad = suite.find("testcase[@name='bad']/failure")
    assert bad is not None and bad.get("type") == "different" and bad.text is not None
    assert "first divergence in B: Gelu /encoder/layer.0/Gelu (t9)" in bad.text and "--inputs w" in bad.text
    slow = suite.find("testcase[@name='slow']/failure")
    assert slow is not None and slow.get("type") == "timeout"
    assert suite.find(".//skipped") is None


# What the JSON schema of SARIF 2.1.0 demands and admits of the objects used here, each of which is closed; what GitHub
# demands besides is in the first set: https://docs.github.com/en/code-security/code-scanning/integrating-with-code-scanning
SARIF: dict[str, tuple[set[str], set[str]]] = {
    "log": ({"version", "runs"}, {"$schema", "inlineExternalProperties", "properties"}),
    "run": ({"tool", "results"}, {"columnKind", "properties", "invocations", "artifacts", "originalUriBaseIds"}),
    "driver": ({"name", "rules"}, {"version", "semanticVersion", "informationUri", "organization"}),
    "rule": ({"id", "shortDescription", "fullDescription", "help"}, {"name", "defaultConfiguration", "properties"}),
    "suppression": ({"kind"}, {"status", "justification", "location", "guid", "properties"}),
    "result": (
        {"message", "locations", "partialFingerprints"},
        {"ruleId", "ruleIndex", "level", "kind", "relatedLocations", "properties", "rank", "guid", "suppressions"},
    ),
    "location": ({"physicalLocation"}, {"id", "logicalLocations", "message", "annotations", "relationships"}),
    "physical": ({"artifactLocation"}, {"region", "contextRegion", "address", "properties"}),
    "artifact": ({"uri"}, {"uriBaseId", "index", "description"}),
    "region": (set(), {"startLine", "startColumn", "endLine", "endColumn", "message", "snippet"}),
    "logical": (set(), {"name", "index", "fullyQualifiedName", "decoratedName", "parentIndex", "kind", "properties"}),
    "text": ({"text"}, {"markdown", "id", "arguments", "properties"}),
}


def closed(kind: str, value: dict[str, Any]) -> None:
    """Fail where an object lacks what it must have, or has what it may not."""
    must, may = SARIF[kind]
    assert must <= set(value) <= must | may, (kind, set(value))


def check_objects(log: dict[str, Any]) -> None:
    closed("log", log)
    (run,) = log["runs"]
    closed("run", run)
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints") and set(run["tool"]) == {"driver"}
    closed("driver", run["tool"]["driver"])
    for rule in run["tool"]["driver"]["rules"]:
        closed("rule", rule)
        for name in ("shortDescription", "fullDescription", "help"):
            closed("text", rule[name])
        assert set(rule["defaultConfiguration"]) <= {"enabled", "level", "rank", "parameters", "properties"}
    for result in run["results"]:
        closed("result", result)
        closed("text", result["message"])
        for suppression in result.get("suppressions", ()):
            closed("suppression", suppression)
            assert suppression["kind"] in ("inSource", "external")
            assert suppression["status"] in ("accepted", "underReview", "rejected")
        for location in (*result["locations"], *result.get("relatedLocations", ())):
            closed("location", location)
            closed("physical", location["physicalLocation"])
            closed("artifact", location["physicalLocation"]["artifactLocation"])
            closed("region", location["physicalLocation"]["region"])
            for place in location.get("logicalLocations", ()):
                closed("logical", place)


@pytest.mark.parametrize("wrong", ["run", "result", "location"])
def test_an_object_that_sarif_does_not_admit_is_seen(wrong: str) -> None:
    log = json.loads(format_results(MIXED[2:3], "sarif"))
    check_objects(log)
    (run,) = log["runs"]
    place = {"run": run, "result": run["results"][0], "location": run["results"][0]["locations"][0]}[wrong]
    place["verdict"] = "different"
    with pytest.raises(AssertionError):
        check_objects(log)


# What the schema that Jenkins' xUnit plugin reads JUnit with (junit-10.xsd) demands and admits of the elements used here.
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname", "id", "package", "file", "group", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name"}, {"time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def test_junit_is_as_its_schema_has_it() -> None:
    for element in ElementTree.fromstring(format_results(MIXED, "junit")).iter():
        must, may, inside = JUNIT[element.tag]
        assert must <= set(element.attrib) <= must | may
        assert {child.tag for child in element} <= inside
        assert re.fullmatch(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?", element.get("time", ""))


def check_sarif(log: dict[str, Any]) -> list[dict[str, Any]]:
    """What SARIF 2.1.0 requires of the parts that are used here (sections 3.13 to 3.33)."""
    check_objects(log)
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
    (found,) = log["runs"]
    rules = found["tool"]["driver"]["rules"]
    assert found["tool"]["driver"]["name"] == "graphcheck" and len({rule["id"] for rule in rules}) == len(rules)
    for result in found["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] and result["message"]["text"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        for location in (*result["locations"], *result.get("relatedLocations", ())):
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            assert re.fullmatch(r"[\w./~%:-]+", uri) and urlparse(uri).scheme in ("", "file")
            assert location["physicalLocation"]["region"]["startLine"] >= 1
            assert all(place["name"] for place in location.get("logicalLocations", ()))
    results: list[dict[str, Any]] = found["results"]
    return results


def test_sarif_has_a_finding_for_what_is_not_established_at_its_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = format_results(MIXED, "sarif")
    text.encode()
    bad, slow, broken, hostile = check_sarif(json.loads(text))
    assert [(f["ruleId"], f["level"]) for f in (bad, slow, broken, hostile)] == [
        ("different", "error"), ("undecided", "warning"), ("trouble", "error"), ("different", "error"),
    ]  # fmt: skip
    node, tensor = bad["locations"][0]["logicalLocations"]
    assert node == {"name": "Gelu", "fullyQualifiedName": "/encoder/layer.0/Gelu", "kind": "node"}
    assert tensor == {"name": "t9", "kind": "tensor"}
    assert bad["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "b/bad.onnx"
    assert bad["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a/bad.onnx"
    assert broken["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "file:///elsewhere/b%20r.onnx"
    assert len({f["partialFingerprints"]["graphcheck/v1"] for f in (bad, slow, broken, hostile)}) == 4
    weak = check_sarif(json.loads(format_results(MIXED, "sarif", Verdict.IDENTICAL)))
    assert len(weak) == 5 and weak[0]["message"]["text"].endswith("(required: identical)")


def test_annotations_keep_to_ten_a_kind_and_count_the_rest() -> None:
    many = [Outcome(f"bad{i}", "different", "x") for i in range(25)] + MIXED
    lines = format_results(many, "github").splitlines()
    errors = [line for line in lines if line.startswith("::error ")]
    warnings = [line for line in lines if line.startswith("::warning ")]
    assert (
        len(errors) == 10 and errors[-1] == "::error title=graphcheck::19 more like these; the step summary lists all"
    )
    assert len(warnings) == 1 and len(lines) == 12
    assert lines[-1] == "graphcheck: 27 different, 1 identical, 1 within-rounding, 1 undecided, 1 trouble"


def test_no_name_can_write_a_command_or_markup() -> None:
    (line, _) = format_results(MIXED[-1:], "github").splitlines()
    assert line.count("::") >= 2 and "\n" not in line and "%250A" in line and "title=graphcheck%3A different%3A" in line
    table = format_results(MIXED[-1:], "summary").strip().splitlines()
    assert len(table) == 5 and table[-1].count("|") == 6
    for sign in ("<b>", "`", "@team", "\x1b", "\u202e"):
        assert sign not in table[-1]


def test_the_summary_puts_first_what_needs_attention_and_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = format_results(MIXED[:5], "summary").strip().splitlines()[4:]
    assert [re.split(r" *\| *", row)[2] for row in rows] == [
        "different", "trouble", "undecided", "identical", "within-rounding",
    ]  # fmt: skip
    long = format_results([Outcome(f"n{i}", "proved", "y" * 390) for i in range(4000)], "summary")
    assert len(long.encode()) <= 1_000_000 and re.search(r"\| \d+ more that do not fit here \|", long)
    file = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    write_formats(MIXED, [("github", tmp_path / "annotations")], Verdict.PROVED)
    assert file.read_text().count("### graphcheck") == 1 and (tmp_path / "annotations").exists()
    for _ in range(3):
        add_step_summary([Outcome(f"n{i}", "proved", "y" * 390) for i in range(1500)], "proved", file)
    assert file.stat().st_size <= 1_000_000


OPEN = Outcome("open", "undecided", "Foo has no taught meaning", a="a/open.onnx", b="b/open.onnx", code="GC204")
ACCEPTED = "undecided: Foo has no taught meaning (accepted by --accept GC204)"


def test_what_is_accepted_passes_and_stays_what_it_is() -> None:
    given = [OPEN, *MIXED[2:5]]  # none of which has the code
    root = ElementTree.fromstring(format_results(given, "junit", accept=["GC204"]))
    assert (root.get("failures"), root.get("errors")) == ("2", "1")
    (case,) = root.findall(".//testcase[@name='open']")
    assert [(part.tag, part.text) for part in case] == [("system-out", ACCEPTED)]
    found = check_sarif(json.loads(format_results(given, "sarif", accept=["GC204"])))
    assert (found[0]["ruleId"], found[0]["level"], found[0]["properties"]["status"]) == ("undecided", "note", "undecided")
    assert found[0]["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "--accept GC204"}]
    assert [(f["level"], f.get("suppressions")) for f in found[1:]] == [("error", None), ("warning", None), ("error", None)]
    lines = format_results(given, "github", accept=["GC204"]).splitlines()
    (notice,) = [line for line in lines if line.startswith("::notice ")]
    assert ACCEPTED in notice and len([line for line in lines if line.startswith("::warning ")]) == 1
    assert lines[-1] == "graphcheck: 2 undecided, 1 different, 1 trouble"
    assert "accepted by --accept GC204" in format_results(given, "summary", accept=["GC204"])


@pytest.mark.parametrize("accept", [(), ["GC210"]])
def test_what_is_not_accepted_fails(accept: list[str]) -> None:
    assert 'failures="1"' in format_results(OPEN, "junit", accept=accept)
    (finding,) = check_sarif(json.loads(format_results(OPEN, "sarif", accept=accept)))
    assert finding["level"] == "warning" and "suppressions" not in finding
    assert format_results(OPEN, "github", accept=accept).startswith("::warning ")


def test_a_difference_and_trouble_are_never_accepted() -> None:
    for status, failure in (("different", None), ("trouble", "error")):
        given = Outcome("n", status, "because", failure, a="a.onnx", code="GC204")
        (finding,) = check_sarif(json.loads(format_results(given, "sarif", accept=["GC204"])))
        assert finding["level"] == "error" and "suppressions" not in finding
        assert format_results(given, "github", accept=["GC204"]).startswith("::error ")
        assert "system-out" not in format_results(given, "junit", accept=["GC204"])


def test_one_comparison_will_do() -> None:
    evidence = {
        "a": {"path": "a.onnx"},
        "b": {"path": "b.onnx"},
        "divergence": {"a": None, "b": PLACE},
        "timings": {"total": 2.0},
    }
    result = Comparison(Verdict.DIFFERENT, "they part", evidence)
    for given in (result, result.to_json(), [result]):
        (case,) = ElementTree.fromstring(format_results(given, "junit"))[0]
        assert case.get("name") == "a.onnx / b.onnx" and case.get("time") == "2.000"
        (finding,) = check_sarif(json.loads(format_results(given, "sarif")))
        assert finding["locations"][0]["logicalLocations"][0]["name"] == "Gelu"
        assert format_results(given, "github").startswith("::error title=graphcheck%3A different%3A a.onnx / b.onnx::")
    guarded = Comparison(Verdict.PROVED, "same", evidence | {"b": {"path": "{out}"}})
    assert 'name="a.onnx"' in format_results(guarded, "junit") and 'failures="0"' in format_results(guarded, "junit")
