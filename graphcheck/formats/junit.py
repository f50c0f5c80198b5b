"""JUnit XML, as Jenkins and GitLab read it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from graphcheck.outcome import Outcome
from graphcheck.verdict import EXIT_OK, EXIT_TROUBLE, Verdict
from graphcheck.words import safe

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """Every result is a test case: different is a failure, so is undecided (never a skip), trouble is an error."""
    codes = [o.exit_code(require) for o in outcomes]
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(code not in (EXIT_OK, EXIT_TROUBLE) for code in codes)),
        "errors": str(codes.count(EXIT_TROUBLE)),
        "time": f"{sum(o.seconds for o in outcomes):.3f}",
    }
    root = ElementTree.Element("testsuites", {"name": "graphcheck", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "graphcheck", "skipped": "0", **counts})
    for o, code in zip(outcomes, codes, strict=True):
        attributes = {"classname": "graphcheck", "name": _xml(o.name), "time": f"{o.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if code != EXIT_OK:
            tag = "error" if code == EXIT_TROUBLE else "failure"
            found = ElementTree.SubElement(case, tag, {"type": o.failure or o.status, "message": _xml(o.reason)})
            found.text = _xml(o.details(require))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(f"{o.status}: {o.why}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", "\n".join(safe(line) for line in text.split("\n")))
