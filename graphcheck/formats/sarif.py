"""SARIF 2.1.0 (OASIS): a finding for each pair that is not established, at the node where the models part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from graphcheck.outcome import Outcome
from graphcheck.verdict import EXIT_DIFFERENT, EXIT_OK, EXIT_TROUBLE, Verdict, version
from graphcheck.words import safe

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LONGEST = 1000
_RULES = (
    (
        "different",
        "error",
        "The models are not the same function",
        "There is an input on which both run and differ by more than rounding explains, or their interfaces do not fit.",
    ),
    (
        "trouble",
        "error",
        "A model could not be looked at",
        "A model cannot be read, an optimizer failed, or a process crashed: nothing is known of this pair.",
    ),
    (
        "undecided",
        "warning",
        "Not shown to be the same function, nor to differ",
        "The proof, or the level of it that is required, was not reached; the message says what stopped it.",
    ),
)


def write(outcomes: Sequence[Outcome], require: Verdict) -> str:
    """One run; what is established leaves no finding, since code scanning would show it as one, and what ``--accept`` let
    pass a suppressed one."""
    run = {
        "tool": {
            "driver": {
                "name": "graphcheck",
                "version": version("graphcheck") or "unknown",
                "rules": [
                    {
                        "id": name,
                        "shortDescription": {"text": text},
                        "fullDescription": {"text": more},  # which GitHub asks for, as for the help
                        "help": {"text": more},
                        "defaultConfiguration": {"level": level},
                    }
                    for name, level, text, more in _RULES
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_finding(o, require) for o in outcomes if o.exit_code(require) != EXIT_OK or o.accepted],
        "properties": {"looked_at": len(outcomes)},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _finding(o: Outcome, require: Verdict) -> dict[str, Any]:
    index = {EXIT_DIFFERENT: 0, EXIT_TROUBLE: 1}.get(o.exit_code(require), 2)
    rule, level, *_ = _RULES[index]
    divergence = (o.result or {}).get("divergence") or {}
    sides = [(o.b, divergence.get("b")), (o.a, divergence.get("a"))]
    locations = [_location(path, place) for path, place in sides if path]
    mark = hashlib.sha256(json.dumps([o.name, rule]).encode()).hexdigest()
    text = f"{o.name}: {o.status}: {o.why}" + ("" if index < 2 else f" (required: {require})")
    finding: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": index,
        "level": "note" if o.accepted else level,
        "message": {"text": safe(text)[:_LONGEST]},
        "partialFingerprints": {"graphcheck/v1": mark, "primaryLocationLineHash": f"{mark[:16]}:1"},
        "properties": {"status": o.status, "failure": o.failure, "seconds": round(o.seconds, 3)},
    }
    if o.accepted:
        finding["suppressions"] = [{"kind": "external", "status": "accepted", "justification": f"--accept {o.family}"}]
    # The place of a finding is in B, the model under test; A, the reference, stands beside it.
    if locations:
        finding["locations"] = locations[:1]
    if locations[1:]:
        finding["relatedLocations"] = [{"id": 1, **locations[1]}]
    return finding


def _location(path: str, place: dict[str, Any] | None) -> dict[str, Any]:
    # A model has no lines; GitHub asks for one.
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": {"startLine": 1}}
    }
    if place:
        node = safe(place["node"])[:_LONGEST]
        location["logicalLocations"] = [
            {"name": node.rpartition("/")[2] or node, "fullyQualifiedName": node, "kind": "node"},
            {"name": safe(place["tensor"])[:_LONGEST], "kind": "tensor"},
        ]
    return location


def _uri(path: str) -> str:
    """Relative to the working directory (the repository, in CI) where it is below it, else a file URI."""
    resolved = Path(os.path.abspath(path))
    here = Path.cwd()
    if resolved.is_relative_to(here):
        return quote(resolved.relative_to(here).as_posix(), errors="replace")
    return "file://" + quote(resolved.as_posix(), errors="replace")
